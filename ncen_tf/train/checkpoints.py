"""Checkpoints: what training needs to go on as if it had never stopped, in finite numbers."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.train.weight_average import WeightAverage
from ncen_tf.untrusted.zip import read_npz

logger = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]

KEPT = 2
"""Number of checkpoints kept: if the newest is damaged, there is the one before."""
_PREFIX, _SUFFIX = "step-", ".npz"


class DivergedError(InputError):
    """Training produced NaN or infinity."""


class Checkpoint:
    """Weights, optimizer state, running metrics and the position in the data, saved and restored.

    Args:
        model: Compiled, with the variables of its optimizer.
        folder: Folder of the checkpoints; the newest two are kept.
        average: Moving average of the weights, which is saved and restored too.

    Attributes:
        epoch: Epochs that are complete.
        step: Steps of the current one.
    """

    def __init__(self, model: keras.Model, folder: Path, average: WeightAverage | None = None) -> None:
        self.folder = folder
        self.epoch = self.step = 0
        self.model = model
        groups: dict[str, list[Any]] = {
            "weights": model.variables,
            "optimizer": model.optimizer.variables,
            "metrics": [variable for metric in model.metrics for variable in metric.variables],
            "average": average.averages if average else [],
        }
        self._variables = {f"{name}/{i}": v for name, group in groups.items() for i, v in enumerate(group)}

    @property
    def saved_steps(self) -> int:
        """Number of steps after which the newest checkpoint was saved."""
        return max(checkpoint_steps(self.folder), default=0)

    def restore(self) -> bool:
        """Restore the model from the newest intact checkpoint and remove damaged newer ones.

        Returns:
            Whether there was one.

        Raises:
            InputError: All checkpoints are damaged, or of another model.
        """
        found = newest_intact(self.folder)
        if found is None:
            return False
        number, arrays = found
        shapes = {name: array.shape for name, array in arrays.items()}
        if not {"epoch", "step"} <= arrays.keys() or any(
            shapes.get(name) != tuple(variable.shape) for name, variable in self._variables.items()
        ):
            raise InputError(f"The checkpoints in {self.folder} are of another model.")
        for name, variable in self._variables.items():
            variable.assign(arrays[name])
        self.epoch, self.step = int(arrays["epoch"]), int(arrays["step"])
        for later in checkpoint_steps(self.folder):
            if later > number:
                checkpoint_file(self.folder, later).unlink(missing_ok=True)
        return True

    def save(self) -> None:
        """Write a checkpoint now.

        Raises:
            DivergedError: Weights or optimizer state are not finite.
            OSError: The file cannot be written.
        """
        arrays = {name: np.asarray(tf.convert_to_tensor(v)) for name, v in self._variables.items()}
        arrays |= {"epoch": np.array(self.epoch), "step": np.array(self.step)}
        wrong = sorted({name.partition("/")[0] for name, a in arrays.items() if not np.isfinite(a).all()})
        if wrong:
            raise _diverged(self.model, wrong, self.epoch, self.step)
        write_checkpoint(self.folder, int(as_number(self.model.optimizer.iterations)), arrays)


def as_number(variable: Any) -> float:
    """Read a scalar that may be a distributed variable."""
    return float(tf.convert_to_tensor(variable))


def require_finite(model: keras.Model, measured: Mapping[str, float], epoch: int, step: int) -> None:
    """Refuse metrics that are NaN or infinite.

    Args:
        model: What is trained.
        measured: Metrics by name.
        epoch: Epochs that are complete.
        step: Steps of the current one.

    Raises:
        DivergedError: One is not finite; names step, parts of the loss and members.
    """
    wrong = [name for name, value in measured.items() if not math.isfinite(value)]
    if wrong:
        raise _diverged(model, wrong, epoch, step)


def _diverged(model: keras.Model, wrong: list[str], epoch: int, step: int) -> DivergedError:
    parts = [name for name in wrong if name != "loss"] or wrong
    members = [
        str(index)
        for index, member in enumerate(getattr(model, "members", []))
        if not all(np.isfinite(weight).all() for weight in member.get_weights())
    ]
    where = f"; weights of member {' and '.join(members)} are not, too" if members else ""
    at = f"by step {step} of epoch {epoch + 1}" if step else f"by the end of epoch {epoch}"
    return DivergedError(
        f"Training diverged {at}: {' and '.join(parts)} {'are' if len(parts) > 1 else 'is'} not finite"
        f"{where}. Try a lower `learning_rate`, a weaker regularizer or `precision` float32."
    )


def checkpoint_steps(folder: Path) -> list[int]:
    """List the numbers of the checkpoints in a folder, ascending: optimizer steps since the run began."""
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    numbers = [name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    return sorted(int(number) for number in numbers if number.isascii() and number.isdigit())


def checkpoint_file(folder: Path, number: int) -> Path:
    """Return the path of a checkpoint."""
    return folder / f"{_PREFIX}{number}{_SUFFIX}"


def write_checkpoint(folder: Path, number: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a checkpoint, verify it, and remove all but the newest :data:`KEPT`.

    Raises:
        OSError: The file cannot be written; earlier checkpoints are left as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = checkpoint_file(folder, number)
    with replacing(file) as temporary:
        with temporary.open("wb") as stream:
            np.savez(stream, **dict[str, Any](arrays))
        written = read_checkpoint(temporary)
        if any(not np.array_equal(written[name], array) for name, array in arrays.items()):
            raise OSError(f"{file} is not what was written")
    for surplus in checkpoint_steps(folder)[:-KEPT]:
        checkpoint_file(folder, surplus).unlink(missing_ok=True)


def read_checkpoint(file: Path) -> Arrays:
    """Read all arrays of a checkpoint; the checksums in the file are compared.

    Raises:
        InputError: The file is damaged, or holds NaN or infinity.
    """
    arrays = read_npz(file)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{file} holds NaN or infinity in {name}.")
    return arrays


def newest_intact(folder: Path) -> tuple[int, Arrays] | None:
    """Read the newest checkpoint that is not damaged; ``None`` if there is none at all.

    Returns:
        Its number and its arrays.

    Raises:
        InputError: There are checkpoints, but all of them are damaged.
    """
    numbers = checkpoint_steps(folder)
    for number in reversed(numbers):
        try:
            return number, read_checkpoint(checkpoint_file(folder, number))
        except InputError as error:
            logger.warning("Checkpoint %s is damaged, trying the one before it: %s", number, error)
    if numbers:
        raise InputError(f"No checkpoint in {folder} can be read: all {len(numbers)} are damaged.")
    return None
