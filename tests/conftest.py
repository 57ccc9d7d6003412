"""What tests share: no GPU, quiet TensorFlow, and programs run as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = Path(__file__).parents[1]

Completed = subprocess.CompletedProcess[str]
Program = Callable[..., Completed]


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


def _run_once(name: str, *arguments: str) -> None:
    command = [sys.executable, "-m", f"ncen_tf.{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A really trained, very small run; ACE about 0.5."""
    run = tmp_path_factory.mktemp("runs") / "tiny"
    _run_once(
        "train",
        "--dataset=fashion_mnist_sample",
        "--architecture=resnet8,resnet8",
        "--train_examples=600",
        "--test_examples=300",
        "--epochs=2",
        f"--run_dir={run}",
    )
    return run


@pytest.fixture(scope="session")
def tiny_export(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that can be exported of it."""
    out = tmp_path_factory.mktemp("exports") / "tiny"
    _run_once("export", f"--run={tiny_run}", f"--out={out}", "--members", "--onnx_precision=float16,int8")
    return out
