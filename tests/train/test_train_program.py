"""The training program as a user runs it: devices, interruption, refusals."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

import ncen_tf  # noqa: F401 -- registers the classes that load_model needs
from ncen_tf.train.checkpoint import checkpoint_steps
from tests.conftest import ROOT, Program

TINY = (
    "--dataset=fashion_mnist_sample",
    "--architecture=resnet8,resnet8",
    "--train_examples=50",
    "--test_examples=50",
    "--epochs=2",
    "--batch_size=9",
    "--deterministic",
)


def weights(run: Path) -> list[np.ndarray]:
    return keras.saving.load_model(run / "ensemble.keras").get_weights()


def largest_difference(first: Path, second: Path) -> float:
    pairs = zip(weights(first), weights(second), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    command = [sys.executable, "-m", "ncen_tf.train", *TINY, f"--run_dir={run}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "ACE" in done.stdout
    assert f"--run={run}" in done.stdout
    return run


def start(run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ncen_tf.train", *TINY, f"--run_dir={run}", "--checkpoint_every=3"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path, number: int) -> None:
    deadline = time.monotonic() + 240
    while max(checkpoint_steps(run / "checkpoints"), default=0) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("signal_sent", "returncode", "checkpoint"), [(signal.SIGKILL, -9, 6), (signal.SIGINT, 130, 18)]
)
def test_an_interrupted_run_resumes_to_the_same_weights(
    signal_sent: signal.Signals, returncode: int, checkpoint: int, finished: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle of the first epoch, Ctrl-C in the middle of the second."""
    run = tmp_path / "run"
    process = start(run)
    wait_for_checkpoint(process, run, checkpoint)
    process.send_signal(signal_sent)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == returncode, stderr
    assert not (run / "summary.json").exists()
    if signal_sent == signal.SIGINT:
        assert "same command resumes" in stdout
        assert "saved after this step" in stderr
        assert "Traceback" not in stderr
    process = start(run)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert largest_difference(run, finished) == 0
    for name in ("test", "train"):
        summaries = [json.loads((folder / "summary.json").read_text())[name] for folder in (run, finished)]
        assert summaries[0] == summaries[1]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]


def test_the_same_command_on_a_finished_run_says_so(finished: Path, run_program: Program) -> None:
    before = (finished / "summary.json").stat().st_mtime_ns
    done = run_program("train", *TINY, f"--run_dir={finished}")
    assert done.returncode == 0
    assert "is complete" in done.stdout
    assert (finished / "summary.json").stat().st_mtime_ns == before


def test_a_finished_run_can_be_understood_from_its_folder(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["dataset"]["train_examples"] == 50
    assert summary["flags"]["seed"] == "0"
    assert summary["environment"]["tensorflow"]
    assert summary["parameters"] == sum(
        weight.size for weight in keras.saving.load_model(finished / "ensemble.keras").get_weights()
    ) - sum(2 * 2 * channels for channels in 3 * [16] + 2 * [32] + 2 * [64])  # moving statistics
    assert list((finished / "tensorboard").glob("events.*"))
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds_per_step"] for line in lines]
    assert summary["median_seconds_per_step"] == pytest.approx(sum(seconds) / 2), "of two epochs"
    last = lines[-1]
    assert last["test"] == summary["test"]
    assert last["train"].keys() == {"loss", "ce", "l_cos", "l_norm", "accuracy"}


def test_other_flags_on_the_same_folder_are_refused_with_the_difference(
    finished: Path, refuse: Callable[..., None]
) -> None:
    refuse("train", *TINY, "--seed=1", f"--run_dir={finished}", says="--seed was 0, is 1")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--epochs=0"], "--epochs is at least 1"),
        (["--epochs=many"], "--epochs=many"),
        (["--structure=Ensemble9"], "--structure"),
        (["--members=7"], "--members is 3, 4 or 5"),
        (["--architecture=resnet20,resnet21"], "'resnet21' is not a member"),
        (["--lambda_cos=nan"], "finite"),
        (["--train_examples=55"], "multiple of 10"),
        (["--train_examples=70000"], "there are at most 6000"),
        (["--flagfile=absent.cfg"], "absent.cfg"),
        (["--no_such_flag=1"], "no_such_flag"),
        (["positional"], "Unexpected argument 'positional'"),
        (["--run_dir=pyproject.toml"], "is a file"),
        (["--run_dir=configs"], "holds no run"),
    ],
)
def test_wrong_flags_end_with_one_sentence(
    arguments: list[str], says: str, tmp_path: Path, refuse: Callable[..., None]
) -> None:
    first = ["--dataset=fashion_mnist_sample", f"--run_dir={tmp_path / 'run'}"]
    refuse("train", *first, *arguments, says=says)


def test_a_flag_without_effect_is_named_and_a_default_is_not(run_program: Program) -> None:
    done = run_program("train", "--regularizer=gal", "--adp_alpha=3", "--run_dir=pyproject.toml")
    warnings = [line for line in done.stderr.splitlines() if "no effect" in line]
    assert len(warnings) == 1
    assert "--adp_alpha has no effect with --regularizer=gal" in warnings[0]


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.cfg")), ids=lambda path: path.stem)
def test_shipped_configs_are_valid(config: Path, refuse: Callable[..., None]) -> None:
    """They get as far as the run directory, which is a file here."""
    refuse("train", f"--flagfile={config}", "--run_dir=pyproject.toml", says="is a file")
