"""Checkpoints under damage, a wrong clock, a full disk, and NaN."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.ensemble import Ensemble, build_ensemble
from ncen_tf.train.checkpoint import NonFiniteStateError, RunCheckpoint, checkpoint_steps
from tests.train.full_disk import files_up_to

STEPS_PER_EPOCH = 100


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    ensemble = build_ensemble(("resnet8", "resnet8"), (8, 8, 1))
    ensemble.compile(keras.optimizers.Adam())
    ensemble.optimizer.build(ensemble.trainable_variables)
    return ensemble


@pytest.fixture
def checkpoint(ensemble: Ensemble, tmp_path: Path) -> RunCheckpoint:
    return RunCheckpoint(ensemble, tmp_path, STEPS_PER_EPOCH)


def bias(ensemble: Ensemble) -> keras.Variable:
    return ensemble.members[1].layers[-1].bias


def save(checkpoint: RunCheckpoint, ensemble: Ensemble, *numbers: int) -> None:
    """Checkpoints whose weights tell their number."""
    for number in numbers:
        checkpoint.epoch, checkpoint.step = divmod(number, STEPS_PER_EPOCH)
        bias(ensemble).assign(np.full(10, number))
        checkpoint.save()


def restored(checkpoint: RunCheckpoint, ensemble: Ensemble) -> int:
    """The number of the checkpoint whose weights are read."""
    assert checkpoint.restore()
    number = checkpoint.number
    np.testing.assert_array_equal(bias(ensemble), np.full(10, number))
    return number


def test_the_two_of_the_highest_steps_are_kept(
    checkpoint: RunCheckpoint, ensemble: Ensemble, tmp_path: Path
) -> None:
    assert not checkpoint.restore()
    save(checkpoint, ensemble, 0, 9, 10, 200)
    assert checkpoint_steps(tmp_path) == [10, 200]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-200"]
    assert restored(checkpoint, ensemble) == 200
    assert (checkpoint.epoch, checkpoint.step) == (2, 0)


def test_steps_decide_which_is_newest_whatever_the_clock_said(
    checkpoint: RunCheckpoint, ensemble: Ensemble, tmp_path: Path
) -> None:
    save(checkpoint, ensemble, 9, 10)
    for path in (tmp_path / "step-10").rglob("*"):
        os.utime(path, (0, 0))
    os.utime(tmp_path / "step-10", (0, 0))
    assert restored(checkpoint, ensemble) == 10


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("pattern", ["*.data-*", "*.index"])
def test_a_truncated_newest_falls_back_to_the_one_before_and_says_so(
    checkpoint: RunCheckpoint,
    ensemble: Ensemble,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    pattern: str,
    kept: float,
) -> None:
    save(checkpoint, ensemble, 9, 10)
    (file,) = (tmp_path / "step-10").glob(pattern)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    assert restored(checkpoint, ensemble) == 9
    assert f"{tmp_path / 'step-10'} is damaged" in caplog.text
    # The damaged one must not count among those kept: a good one would go for it.
    assert checkpoint_steps(tmp_path) == [9]


@pytest.mark.parametrize("pattern", ["*.data-*", "*.index"])
def test_a_flipped_bit_and_a_missing_file_are_damage(
    checkpoint: RunCheckpoint, ensemble: Ensemble, tmp_path: Path, pattern: str
) -> None:
    save(checkpoint, ensemble, 8, 9, 10)
    (file,) = (tmp_path / "step-10").glob(pattern)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert restored(checkpoint, ensemble) == 9
    save(checkpoint, ensemble, 10)
    next((tmp_path / "step-10").glob(pattern)).unlink()
    assert restored(checkpoint, ensemble) == 9


def test_when_all_are_damaged_nothing_is_started_over(
    checkpoint: RunCheckpoint, ensemble: Ensemble, tmp_path: Path
) -> None:
    save(checkpoint, ensemble, 9, 10)
    for file in tmp_path.rglob("*.data-*"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match=r"No checkpoint in .* can be read: all 2 are damaged"):
        checkpoint.restore()
    assert checkpoint_steps(tmp_path) == [9, 10]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_never_written(
    checkpoint: RunCheckpoint, ensemble: Ensemble, tmp_path: Path, value: float
) -> None:
    save(checkpoint, ensemble, 9)
    bias(ensemble).assign(np.full(10, value))
    checkpoint.step = 10
    with pytest.raises(NonFiniteStateError):
        checkpoint.save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-9"]
    assert restored(checkpoint, ensemble) == 9


def test_a_disk_that_fills_up_leaves_earlier_checkpoints_intact(
    checkpoint: RunCheckpoint, ensemble: Ensemble, tmp_path: Path
) -> None:
    save(checkpoint, ensemble, 8, 9)
    with (
        files_up_to(100_000),
        pytest.raises(InputError, match=r"step-10 cannot be written \(File too large\)"),
    ):
        save(checkpoint, ensemble, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-8", "step-9"]
    assert restored(checkpoint, ensemble) == 9
    save(checkpoint, ensemble, 10)
    assert restored(checkpoint, ensemble) == 10
