"""Checkpoints that hold everything a run needs to go on as if it had never stopped."""

import logging
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing_directory
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.checkpoint_index import check_index
from ncen_tf.train.write_failure import write_failure

logger = logging.getLogger(__name__)

KEPT = 2
"""Should the newest be damaged, there is the one before."""
_FOLDER, _FILES = "step-", "state"
_FAILURES = (tf.errors.OpError, OSError, LookupError, RuntimeError, TypeError, ValueError)
"""What TensorFlow makes of files that it cannot write or read."""


class NonFiniteStateError(ArithmeticError):
    """Weights, optimizer state or metrics hold NaN or infinity."""


def checkpoint_steps(folder: Path) -> list[int]:
    """Numbers of the checkpoints in a folder, ascending: steps since the run began, not times."""
    names = [path.name.removeprefix(_FOLDER) for path in folder.glob(f"{_FOLDER}*")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def checkpoint_path(folder: Path, number: int) -> Path:
    """Prefix of a checkpoint's files, as ``tf.train.Checkpoint.read`` takes it."""
    return folder / f"{_FOLDER}{number}" / _FILES


def checkpoint_epoch(folder: Path, number: int) -> int:
    """Epochs that were complete when a checkpoint was written."""
    path = checkpoint_path(folder, number)
    return int(tf.train.load_variable(str(path), "position/0/.ATTRIBUTES/VARIABLE_VALUE"))


def newest_intact(folder: Path) -> int | None:
    """Number of the newest checkpoint that can be read whole; ``None`` if there is none at all.

    Raises:
        InputError: there are checkpoints, but all of them are damaged.
    """
    numbers = checkpoint_steps(folder)
    for number in reversed(numbers):
        try:
            _read_back(checkpoint_path(folder, number))
        except (*_FAILURES, NonFiniteStateError):
            logger.warning(
                "Checkpoint %s is damaged: trying the one before it.", folder / f"{_FOLDER}{number}"
            )
            continue
        return number
    if numbers:
        raise InputError(f"No checkpoint in {folder} can be read: all {len(numbers)} are damaged.")
    return None


def _read_back(path: Path) -> None:
    """Read every tensor, which compares checksums, and refuse NaN and infinity."""
    check_index(path)
    reader = tf.train.load_checkpoint(str(path))
    for name, dtype in reader.get_variable_to_dtype_map().items():
        tensor = reader.get_tensor(name)
        if dtype.is_floating and not np.isfinite(tensor).all():
            raise NonFiniteStateError(name.partition("/")[0])


class RunCheckpoint:
    """Weights, optimizer state, running metrics and the position in the data.

    Args:
        ensemble: compiled, its optimizer built.
        folder: where checkpoints are kept.
        steps_per_epoch: turns the position into a checkpoint's number.
    """

    def __init__(self, ensemble: Ensemble, folder: Path, steps_per_epoch: int) -> None:
        self._folder = folder
        self._steps_per_epoch = steps_per_epoch
        self._position = [tf.Variable(0, dtype=tf.int64), tf.Variable(0, dtype=tf.int64)]
        # Explicit lists: attribute tracking silently leaves out models kept in a Python list.
        self._checkpoint = tf.train.Checkpoint(
            weights=[variable.value for variable in ensemble.variables],
            optimizer=[variable.value for variable in ensemble.optimizer.variables],
            metrics=[v.value for metric in ensemble.metrics for v in metric.variables],
            position=self._position,
        )
        self.epoch = self.step = 0

    @property
    def number(self) -> int:
        """Steps since the run began."""
        return self.epoch * self._steps_per_epoch + self.step

    def restore(self) -> bool:
        """Read the newest intact checkpoint and remove damaged and surplus ones; False if there is none.

        Raises:
            InputError: all are damaged.
        """
        number = newest_intact(self._folder)
        if number is None:
            return False
        self._checkpoint.read(str(checkpoint_path(self._folder, number))).assert_consumed()
        self.epoch, self.step = (int(variable) for variable in self._position)
        self._remove([damaged for damaged in checkpoint_steps(self._folder) if damaged > number])
        self._remove_surplus()  # of a process that was killed before it did
        return True

    def save(self) -> None:
        """Write a checkpoint and read it back; only then it gets its name and an older one is removed.

        Raises:
            NonFiniteStateError: NaN or infinity in what is to be saved.
            InputError: the folder cannot be written; what was there is left as it was.
        """
        for variable, value in zip(self._position, (self.epoch, self.step), strict=True):
            variable.assign(value)
        path = checkpoint_path(self._folder, self.number)
        try:
            with replacing_directory(path.parent) as temporary:
                self._checkpoint.write(str(temporary / _FILES))
                _read_back(temporary / _FILES)
        except _FAILURES as error:
            raise write_failure(path.parent, error) from error
        self._remove_surplus()

    def _remove_surplus(self) -> None:
        self._remove(checkpoint_steps(self._folder)[:-KEPT])

    def _remove(self, numbers: list[int]) -> None:
        for number in numbers:
            shutil.rmtree(self._folder / f"{_FOLDER}{number}", ignore_errors=True)
