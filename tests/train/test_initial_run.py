"""A run that begins with another run's ensemble."""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.train.trained import load_trained
from tests.conftest import Program

TINY = ("--dataset=fashion_mnist_sample", "--train_examples=40", "--test_examples=20", "--batch_size=16")
STANDING_STILL = ("--learning_rate=0", "--min_learning_rate=0", "--epochs=1")


def test_it_begins_where_the_other_ended(run_program: Program, tiny_run: Path, tmp_path: Path) -> None:
    """At a rate of zero it ends there too, but for moving statistics; resumed, it does without the other."""
    other, path = tmp_path / "other", tmp_path / "run"
    shutil.copytree(tiny_run, other)
    architecture = RunDirectory(other).read_flags()["architecture"]
    arguments = (*TINY, *STANDING_STILL, f"--architecture={architecture}", f"--initial_run={other}")
    run_program("train", *arguments, "--precision=mixed_bfloat16", f"--run_dir={path}")
    first, second = (load_trained(RunDirectory(run)).ensemble for run in (other, path))
    for before, after in zip(first.trainable_weights, second.trainable_weights, strict=True):
        np.testing.assert_array_equal(before, after)

    shutil.rmtree(other)
    for file in ("summary.json", "ensemble.keras"):
        (path / file).unlink()
    resumed = run_program("train", *arguments, "--precision=mixed_bfloat16", f"--run_dir={path}")
    assert resumed.returncode == 0, resumed.stderr
    assert keras.saving.load_model(path / "ensemble.keras", compile=False)


def test_a_run_may_take_the_place_of_the_one_it_begins_with(
    run_program: Program, refuse: Callable[..., None], tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    before = load_trained(RunDirectory(run)).ensemble.trainable_weights
    architecture = f"--architecture={RunDirectory(run).read_flags()['architecture']}"
    command = (
        *TINY,
        *STANDING_STILL,
        architecture,
        f"--initial_run={run}",
        f"--run_dir={run}",
        "--overwrite",
    )
    refuse("train", *command, "--train_examples=55", says="a positive multiple of 10")
    assert (run / "summary.json").is_file(), "nothing is deleted for a run that cannot begin"
    assert run_program("train", *command).returncode == 0
    for one, other in zip(before, load_trained(RunDirectory(run)).ensemble.trainable_weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_begun_with_is_refused(
    refuse: Callable[..., None], tiny_run: Path, tmp_path: Path
) -> None:
    def refused(name: str, *flags: str, says: str) -> None:
        refuse("train", *TINY, *STANDING_STILL, *flags, f"--run_dir={tmp_path / name}", says=says)

    architecture = f"--architecture={RunDirectory(tiny_run).read_flags()['architecture']}"
    refused("a", architecture, f"--initial_run={tmp_path}", says="is not a run directory")
    refused("b", "--architecture=resnet14,resnet8", f"--initial_run={tiny_run}", says="cannot begin with")
