"""Trained ensembles read back: from run directories, and from ``.keras`` files."""

import dataclasses
from pathlib import Path

import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.ensemble import Ensemble, build_ensemble
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.devices import dtype_policy
from ncen_tf.train.run_directory import DataRecord, EpochRecord, RunDirectory, RunSummary, newest_intact
from ncen_tf.untrusted.keras_file import load_keras_model, load_weights, memory_limit
from ncen_tf.untrusted.memory import try_model


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run read from its directory.

    Attributes:
        path: The run directory.
        ensemble: The trained ensemble, in float32.
        config: Settings of the run.
        data: What it was trained and measured on.
        history: A record of each finished epoch.
        summary: The result; ``None`` while the run is not finished.

    Examples:
        >>> import ncen_tf
        >>> run = ncen_tf.open_run("runs/fmnist")  # doctest: +SKIP
        >>> run.epochs_trained  # doctest: +SKIP
        40
    """

    path: Path
    ensemble: Ensemble
    config: TrainConfig
    data: DataRecord
    history: list[EpochRecord]
    summary: RunSummary | None

    @property
    def epochs_trained(self) -> int:
        """Number of epochs after which the ensemble was saved."""
        return len(self.history)


def open_run(path: Path | str) -> TrainedRun:
    """Read a run, finished or at its newest checkpoint.

    Args:
        path: The run directory.

    Returns:
        The run, its ensemble in float32.

    Raises:
        InputError: The folder holds no run, nothing is saved yet, or a file is damaged.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.open_run("runs/fmnist").config.members  # doctest: +SKIP
        ('resnet20', 'resnet20', 'resnet20')
    """
    run = RunDirectory(Path(path))
    config, data = run.read_config(), DataRecord.read(run.data_file)
    try:
        with dtype_policy("float32"):
            ensemble = build_ensemble(config.members, data.image_shape, len(data.class_names))
    except InputError:
        raise
    except (ValueError, OverflowError, tf.errors.OpError) as error:
        raise InputError(
            f"{run.path}: its members cannot take images of shape {data.image_shape}, as its data.json says."
        ) from error
    if run.model_file.is_file():
        load_weights(ensemble, run.model_file)
        summary = RunSummary.read(run.summary_file) if run.is_complete else None
        return TrainedRun(run.path, ensemble, config, data, run.read_history(), summary)
    found = newest_intact(run.checkpoints)
    if found is None:
        raise InputError(f"{run.path} has neither {run.model_file.name} nor a checkpoint yet.")
    _, arrays = found
    try:
        for index, variable in enumerate(ensemble.variables):
            group = "average" if f"average/{index}" in arrays else "weights"
            variable.assign(arrays[f"{group}/{index}"])
        epochs = int(arrays["epoch"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"The checkpoints in {run.checkpoints} are not of this run's ensemble.") from error
    return TrainedRun(run.path, ensemble, config, data, run.read_history(epochs), None)


def load_ensemble(path: Path | str) -> Ensemble:
    """Load an ensemble from a ``.keras`` file or a run directory.

    Files from other people can be loaded: no code in them runs, and a model takes no more memory than its
    file justifies. Layers that are not part of Keras must be registered before.

    Args:
        path: A ``.keras`` file that ``Ensemble.save`` wrote, or the directory of a training run.

    Returns:
        The ensemble, in float32 where it comes from a run; compile it to train on.

    Raises:
        InputError: There is no ensemble, or the file is damaged or not accepted; the reason is named.

    Examples:
        >>> import ncen_tf
        >>> ncen_tf.build_ensemble(["resnet8"] * 2, (28, 28, 1), 10).save("ensemble.keras")
        >>> [member.name for member in ncen_tf.load_ensemble("ensemble.keras").members]
        ['member_0_resnet8', 'member_1_resnet8']
    """
    path = Path(path)
    if path.is_dir():
        return open_run(path).ensemble
    model = load_keras_model(path)
    if not isinstance(model, Ensemble):
        raise InputError(f"{path} has a {type(model).__name__} in it, not an ensemble of ncen_tf.")
    image_shape = [size or 32 for size in model.members[0].input_shape[1:]]
    try_model(path, image_shape, model.member_logits, memory_limit(path))
    return model
