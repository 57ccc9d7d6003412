"""What tests share: no GPU, quiet TensorFlow, and programs run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parents[1]

Completed = subprocess.CompletedProcess[str]
Program = Callable[..., Completed]

OUT = {"train": "--run_dir", "export": "--out"}


@pytest.fixture
def run_program() -> Program:
    """Run ``python -m ncen_tf.NAME --flag=value ...`` to its end."""

    def run(name: str, *arguments: str, timeout: float = 300) -> Completed:
        command = [sys.executable, "-m", f"ncen_tf.{name}", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)

    return run


@pytest.fixture
def refuse(run_program: Program) -> Callable[..., None]:
    """Assert that a program refuses its arguments: exit code 2, one sentence, no traceback."""

    def check(name: str, *arguments: str, says: str) -> None:
        done = run_program(name, *arguments)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr
        assert says in errors[0]

    return check


def _run_once(factory: pytest.TempPathFactory, name: str, program: str, *arguments: str) -> Path:
    """Run a program that writes the folder ``name``; processes of pytest-xdist share one such folder."""
    base = factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{out}.lock"):
        if not out.exists():
            command = [sys.executable, "-m", f"ncen_tf.{program}", *arguments, f"{OUT[program]}={out}"]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A really trained, very small run; ACE about 0.5."""
    return _run_once(
        tmp_path_factory,
        "tiny-run",
        "train",
        "--dataset=fashion_mnist_sample",
        "--architecture=resnet8,resnet8",
        "--train_examples=600",
        "--test_examples=300",
        "--epochs=2",
    )


@pytest.fixture(scope="session")
def tiny_export(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that can be exported of it."""
    return _run_once(
        tmp_path_factory, "tiny", "export", f"--run={tiny_run}", "--members", "--onnx_precision=float16,int8"
    )
