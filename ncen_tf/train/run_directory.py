"""A run directory: the files of one training run, their typed content, and who may write them."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import filelock
import numpy as np
import numpy.typing as npt
from pydantic import Field

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import remove_leftovers, replacing
from ncen_tf.base.settings import Settings
from ncen_tf.train.config import TrainConfig
from ncen_tf.untrusted.zip import read_npz

logger = logging.getLogger(__name__)

Arrays = dict[str, npt.NDArray[Any]]

KEPT = 2
"""Number of checkpoints kept: if the newest is damaged, there is the one before."""
_PREFIX, _SUFFIX = "step-", ".npz"


class TestMetrics(Settings):
    """Measurements on the test images after an epoch: means over the images, BatchNorm in inference mode."""

    __test__ = False  # no test class of pytest

    clean_accuracy: float
    """Accuracy of the ensemble on clean images, in [0, 1]; called ACE in the paper."""
    member_accuracy: tuple[float, ...]
    ce: float
    """Cross-entropy on logits, mean over the members."""
    l_cos: float
    """Luo et al., Eq. 2, mean over the members, whatever the ensemble was trained with."""
    l_norm: float
    """Luo et al., Eq. 6, mean over the members."""
    pairwise_cosine: float
    """Mean cosine between the input gradients of two members."""
    cosine_to_mean: tuple[float, ...]
    """c_i of each member (Eq. 1)."""
    norm_deviation: tuple[float, ...]
    """d_i of each member (Eq. 7); they sum to 0."""
    norm_spread: float
    """Root mean square of d_i over members and images."""
    gradient_norm: tuple[float, ...]
    """|g_i| of each member: L2 norm of the gradient of its cross-entropy with respect to the image."""
    training_attack_accuracy: float | None = None
    """After adversarial training: accuracy under the training attack on the first 500 images."""
    pgd_accuracy: float | None = None
    """After adversarial training: accuracy under PGD with more steps on the same images."""


class EpochRecord(Settings):
    """A line of ``metrics.jsonl``."""

    epoch: int
    """Number of the epoch, from 1."""
    learning_rate: float
    """Learning rate of the last step."""
    train: dict[str, float]
    """Means over the epoch of loss, cross-entropy, terms of the regularizer, and accuracy."""
    test: TestMetrics
    seconds_per_step: float


_Size = Annotated[int, Field(ge=1, le=2**16)]


class DataRecord(Settings):
    """What a run was trained and measured on: ``data.json``."""

    name: str
    source: str
    image_shape: tuple[_Size, _Size, _Size]
    class_names: tuple[str, ...]
    train_examples: int
    test_examples: int
    sha256: str
    """Digest of all images and labels."""


class RunSummary(Settings):
    """The result of a finished run: ``summary.json``, which is written last."""

    clean_accuracy: float
    member_accuracy: tuple[float, ...]
    test: TestMetrics
    train: dict[str, float]
    """Means over the last epoch, as in :class:`EpochRecord`."""
    epochs: int
    parameters: int
    """Number of trainable parameters, over all members."""
    median_seconds_per_step: float
    replicas: int
    data: DataRecord
    environment: dict[str, Any]


class RunDirectory:
    """Paths and small files of one training run.

    ``config.json`` (:class:`~ncen_tf.train.config.TrainConfig`), ``data.json`` (:class:`DataRecord`),
    ``metrics.jsonl`` (an :class:`EpochRecord` a line), ``checkpoints/``, ``tensorboard/``,
    ``ensemble.keras``, ``diagnostics.png`` and ``summary.json`` (:class:`RunSummary`).

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.data_file = path / "data.json"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.model_file = path / "ensemble.keras"
        self.plot_file = path / "diagnostics.png"
        self.summary_file = path / "summary.json"

    @property
    def has_begun(self) -> bool:
        return self.config_file.is_file()

    @property
    def is_complete(self) -> bool:
        return self.has_begun and self.summary_file.is_file()

    def lock(self) -> filelock.BaseFileLock:
        """Keep other processes from training in the folder, until the lock is released or the process ends.

        Raises:
            InputError: The folder cannot be written, is a file or holds other files, or another process
                trains in it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: choose another `run_dir`.")
        if self.path.is_dir() and not self.has_begun:
            # Hidden files and data.json are left by a process that is killed while it begins a run.
            names = {entry.name for entry in self.path.iterdir()} - {self.data_file.name}
            if not all(name.startswith(".") for name in names):
                raise InputError(f"{self.path} is not empty and holds no run: choose another `run_dir`.")
        lock = filelock.FileLock(self.path / ".lock", timeout=0)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout:
            raise InputError(
                f"Another process trains in {self.path}: wait for it, or choose another `run_dir`."
            ) from None
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}): choose another `run_dir`."
            ) from error
        remove_leftovers(self.path)
        remove_leftovers(self.checkpoints)
        return lock

    def refuse_other(self, config: TrainConfig, data: DataRecord) -> None:
        """Make sure that the run in the folder is the one that is asked for.

        Raises:
            InputError: It has other settings or other data.
        """
        old, new = self.read_config().flat(), config.flat()
        changes = [
            f"`{name}` was {_text(old.get(name))}, is {_text(new.get(name))}"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and name != "checkpoint_every"
        ]
        if not changes and DataRecord.read(self.data_file).sha256 != data.sha256:
            changes = ["other images or labels"]
        if changes:
            raise InputError(
                f"{self.path} holds a run with other settings ({'; '.join(changes)}): choose another "
                "`run_dir`, or set `overwrite`."
            )

    def clear(self) -> None:
        """Delete an earlier run in the folder."""
        self.config_file.unlink(missing_ok=True)  # first: from now on, there is no run
        for folder in (self.checkpoints, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.summary_file, self.metrics_file, self.model_file, self.plot_file):
            file.unlink(missing_ok=True)

    def begin(self, config: TrainConfig, data: DataRecord) -> None:
        """Delete an earlier run in the folder, and write the settings of a new one."""
        self.clear()
        data.write(self.data_file)
        config.write(self.config_file)

    def read_config(self) -> TrainConfig:
        """Read the settings of the run.

        Raises:
            InputError: The folder holds no run, or a damaged one.
        """
        if not self.has_begun:
            raise InputError(f"{self.path} is not a run directory: it has no {self.config_file.name}.")
        return TrainConfig.read(self.config_file)

    def read_history(self, epochs: int | None = None) -> list[EpochRecord]:
        """Read ``metrics.jsonl``, the first ``epochs`` epochs only if that is given.

        Raises:
            InputError: A line is not that of an epoch.
        """
        if not self.metrics_file.exists():
            return []
        lines = enumerate(self.metrics_file.read_bytes().splitlines(), start=1)
        history = [EpochRecord.from_json(text, f"{self.metrics_file}, line {n}") for n, text in lines]
        return [record for record in history if epochs is None or record.epoch <= epochs]

    def write_history(self, history: list[EpochRecord]) -> None:
        """Replace ``metrics.jsonl``."""
        with replacing(self.metrics_file) as temporary:
            temporary.write_text("".join(record.model_dump_json() + "\n" for record in history))


def _text(value: Any) -> str:
    if value is None:
        return "not set"
    return ",".join(value) if isinstance(value, tuple) else str(value).lower()


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
