"""The training program as a user runs it: devices, interruption, refusals."""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.train.loop import learning_rates
from ncen_tf.train.run_directory import RunDirectory, checkpoint_steps, read_checkpoint
from tests.conftest import ROOT, Program

DATA = ("--dataset=fashion_mnist_sample", "--architecture=resnet8,resnet8")
TINY = (
    *DATA,
    "--train_examples=50",
    "--test_examples=50",
    "--epochs=2",
    "--batch_size=9",
    "--deterministic",
)


def largest_difference(first: Path, second: Path) -> float:
    weights = [ncen_tf.open_run(run).ensemble.get_weights() for run in (first, second)]
    return max(float(np.abs(a - b).max()) for a, b in zip(*weights, strict=True))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, in a folder whose name TensorFlow would take for a pattern."""
    run = tmp_path_factory.mktemp("runs") / "lr[0.1]*"
    command = [sys.executable, "-m", "ncen_tf.train", *TINY, f"--run_dir={run}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert "Clean accuracy" in done.stdout
    assert f"--run={run}" in done.stdout
    return run


def start(run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ncen_tf.train", *TINY, f"--run_dir={run}", "--checkpoint_every=3"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_checkpoint(process: subprocess.Popen[str], run: Path, number: int) -> None:
    deadline = time.monotonic() + 500
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
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == returncode, stderr
    assert not (run / "summary.json").exists()
    if signal_sent == signal.SIGINT:
        assert "saved after this step" in stderr
        assert "the same command resumes it" in stderr
        assert "Traceback" not in stderr
    unfinished = ncen_tf.open_run(run)
    assert (unfinished.summary, unfinished.epochs_trained) == (None, 1 if checkpoint > 12 else 0)
    process = start(run)
    _, stderr = process.communicate(timeout=500)
    assert process.returncode == 0, stderr
    assert largest_difference(run, finished) == 0
    one, other = (ncen_tf.open_run(path).summary for path in (run, finished))
    assert one is not None
    assert other is not None
    assert (one.test, one.train) == (other.test, other.train)
    assert [record.epoch for record in RunDirectory(run).read_history()] == [1, 2]


def test_the_same_command_on_a_finished_run_trains_nothing(finished: Path, run_program: Program) -> None:
    before = (finished / "summary.json").stat().st_mtime_ns
    done = run_program("train", *TINY, f"--run_dir={finished}")
    assert done.returncode == 0
    assert "is complete" in done.stderr
    assert (finished / "summary.json").stat().st_mtime_ns == before


def test_a_finished_run_can_be_understood_from_its_folder(finished: Path) -> None:
    run = ncen_tf.open_run(finished)
    assert run.summary is not None
    assert (run.data.train_examples, run.config.seed) == (50, 0)
    assert run.summary.environment["tensorflow"]
    model = keras.saving.load_model(finished / "ensemble.keras")
    moving = sum(2 * 2 * channels for channels in 3 * [16] + 2 * [32] + 2 * [64])
    assert run.summary.parameters == sum(weight.size for weight in model.get_weights()) - moving
    seconds = [record.seconds_per_step for record in run.history]
    assert run.summary.median_seconds_per_step == pytest.approx(sum(seconds) / 2), "of two epochs"
    last = run.history[-1]
    assert (last.test, last.learning_rate) == (run.summary.test, 0.001)
    assert last.train.keys() == {"loss", "ce", "l_cos", "l_norm", "accuracy"}
    assert (finished / "diagnostics.png").read_bytes().startswith(b"\x89PNG")
    # A file of another name: TensorFlow takes the folder's for a pattern.
    (events,) = shutil.copytree(finished / "tensorboard", finished.parent / "events").iterdir()
    found = {
        value.tag: float(tf.make_ndarray(value.tensor))
        for record in tf.data.TFRecordDataset(str(events))
        if (event := tf.compat.v1.Event.FromString(record.numpy())).step == 2
        for value in event.summary.value
    }
    assert found["test/clean_accuracy"] == pytest.approx(last.test.clean_accuracy)
    assert found["test/member_accuracy/member_1"] == pytest.approx(last.test.member_accuracy[1])
    assert found["train/loss"] == pytest.approx(last.train["loss"])


def test_runs_are_drawn_and_tabulated(
    finished: Path, run_program: Program, refuse: Callable[..., None], tmp_path: Path
) -> None:
    out = tmp_path / "compared.png"
    done = run_program("diagnose", f"--runs={finished},{finished / '.'}", f"--out={out}")
    assert out.read_bytes().startswith(b"\x89PNG")
    assert f"{ncen_tf.open_run(finished).history[-1].test.pairwise_cosine:.4f}" in done.stdout
    refuse("diagnose", f"--runs={finished},{finished}", says="--out must name the PNG file")
    refuse("diagnose", f"--runs={tmp_path}", says="is not a run directory")
    for name in ("config.json", "data.json"):
        shutil.copy(finished / name, tmp_path)
    refuse("diagnose", f"--runs={tmp_path}", says="has no finished epoch")


def test_nan_in_the_weights_of_a_run_is_refused(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    ensemble = ncen_tf.open_run(run).ensemble
    ensemble.members[1].layers[-1].bias.assign(np.full(10, np.nan))
    ensemble.save(run / "ensemble.keras")
    with pytest.raises(InputError, match="NaN or infinity"):
        ncen_tf.open_run(run)


STANDING_STILL = (
    "--train_examples=40",
    "--test_examples=20",
    "--batch_size=16",
    "--epochs=1",
    "--learning_rate=0",
    "--min_learning_rate=0",
)


def test_a_run_can_start_from_the_weights_of_another(
    finished: Path, run_program: Program, refuse: Callable[..., None], tmp_path: Path
) -> None:
    """With learning rate 0 it ends there too, in its own place as well, and resumed without the other run."""
    other, run = tmp_path / "other", tmp_path / "run"
    shutil.copytree(finished, other)
    before = ncen_tf.open_run(other).ensemble.trainable_weights
    command = (*DATA, *STANDING_STILL, f"--initial_run={other}", "--precision=mixed_bfloat16")
    says = "cannot start from their weights"
    refuse("train", *command, "--architecture=resnet14,resnet8", f"--run_dir={run}", says=says)
    refuse(
        "train", *command, "--train_examples=7000", f"--run_dir={other}", "--overwrite", says="from 1 to 6000"
    )
    assert (other / "summary.json").is_file(), "nothing is deleted for a run that cannot begin"
    for path in (run, other):
        done = run_program("train", *command, f"--run_dir={path}", "--overwrite")
        assert done.returncode == 0, done.stderr
        for one, same in zip(before, ncen_tf.open_run(path).ensemble.trainable_weights, strict=True):
            np.testing.assert_array_equal(one, same)
    shutil.rmtree(other)
    for file in ("summary.json", "ensemble.keras"):
        (run / file).unlink()
    resumed = run_program("train", *command, f"--run_dir={run}")
    assert resumed.returncode == 0, resumed.stderr
    assert ncen_tf.open_run(run).summary


@pytest.mark.parametrize("extra", ["--checkpoint_every=500", "--checkpoint_every=1"])
def test_a_diverging_run_says_where_and_keeps_a_finite_checkpoint(
    extra: str, tmp_path: Path, run_program: Program
) -> None:
    """The first step throws the weights far out; a later one overflows."""
    run = tmp_path / "run"
    sizes = ("--train_examples=20", "--test_examples=10", "--batch_size=8", "--epochs=2")
    done = run_program(
        "train", *DATA, *sizes, "--regularizer=none", "--learning_rate=1e30", extra, f"--run_dir={run}"
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(r"Training diverged by step \d+ of epoch 1: .* not finite", error), error
    assert "Try a lower --learning_rate" in error
    kept = checkpoint_steps(run / "checkpoints")
    assert f"The checkpoint after {kept[-1]} steps is the last finite one" in error
    assert len(read_checkpoint(run / "checkpoints" / f"step-{kept[-1]}.npz")) > 10


def test_an_adversarial_run_resumes_step_exactly(run_program: Program, tmp_path: Path) -> None:
    """Starts of the attack that came from a running generator would differ after a restart."""
    run = tmp_path / "run"
    sizes = ("--train_examples=40", "--test_examples=20", "--batch_size=16", "--epochs=2", "--deterministic")
    command = ("train", *DATA, *sizes, "--regularizer=none", "--adversarial_training=trades", "--at_steps=2")
    done = run_program(*command, f"--run_dir={run}")
    assert done.returncode == 0, done.stderr
    whole = ncen_tf.open_run(run)
    train, test = whole.history[-1].train, whole.history[-1].test
    assert train["divergence"] > 0
    assert train["loss"] == pytest.approx(train["ce"] + 6.0 * train["divergence"], rel=1e-4)
    assert test.pgd_accuracy is not None
    assert 0 <= test.pgd_accuracy <= test.clean_accuracy
    for file in ("summary.json", "ensemble.keras", "checkpoints/step-10.npz"):
        (run / file).unlink()
    resumed = run_program(*command, f"--run_dir={run}")
    assert resumed.returncode == 0, resumed.stderr
    again = ncen_tf.open_run(run)
    assert again.history[-1].test == test
    for one, other in zip(whole.ensemble.get_weights(), again.ensemble.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_learning_rates_by_step() -> None:
    def rates(steps: tuple[int, ...], **settings: Any) -> list[float]:
        schedule = learning_rates(ncen_tf.TrainConfig(epochs=60, **settings), 10)
        assert not isinstance(schedule, float)
        return [float(schedule(step)) for step in steps]

    at = (0, 149, 150, 299, 300, 449, 450, 599)
    assert rates(at) == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5, 1e-5], rel=1e-6)
    cosine = rates((0, 200, 300, 600), schedule="cosine")
    assert cosine == pytest.approx([1e-3, 1e-5 + 0.75 * 99e-5, (1e-3 + 1e-5) / 2, 1e-5], rel=1e-6)
    assert learning_rates(ncen_tf.TrainConfig(learning_rate=1e-6), 10) == 1e-6, "a rate below the floor"
    assert learning_rates(ncen_tf.TrainConfig(epochs=15), 10) == 1e-3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--epochs=0"], "--epochs must be greater than or equal to 1"),
        (["--epochs=many"], "--epochs=many"),
        (["--members=7"], "3, 4 or 5"),
        (["--adversarial_training=pgd", "--at_eps=0"], "--at_eps must be greater than 0"),
        (["--crop_padding=28"], "--crop_padding must be less than"),
        (["--train_examples=7000"], "from 1 to 6000"),
        (["--flagfile=absent.cfg"], "absent.cfg"),
        (["--run_dir=pyproject.toml"], "is a file"),
        (["--run_dir=configs"], "holds no run: choose another --run_dir"),
        (["--strategy=multi_worker"], "TF_CONFIG"),
    ],
)
def test_wrong_flags_end_with_one_sentence(
    arguments: list[str], says: str, tmp_path: Path, refuse: Callable[..., None]
) -> None:
    refuse("train", *DATA, f"--run_dir={tmp_path / 'run'}", *arguments, says=says)


def test_a_flag_without_effect_is_named_and_a_default_is_not(run_program: Program) -> None:
    done = run_program("train", "--regularizer=gal", "--adp_alpha=3", "--run_dir=pyproject.toml")
    warnings = [line for line in done.stderr.splitlines() if "no effect" in line]
    assert len(warnings) == 1
    assert "--adp_alpha has no effect with --regularizer=gal" in warnings[0]


def test_shipped_configs_are_valid(refuse: Callable[..., None]) -> None:
    """They get as far as the run directory, which is a file here."""
    for config in sorted((ROOT / "configs").glob("*.cfg")):
        refuse("train", f"--flagfile={config}", "--run_dir=pyproject.toml", says="is a file")
