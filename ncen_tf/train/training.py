"""A whole training run, from settings and data to a run directory."""

import contextlib
import dataclasses
import hashlib
import io
import logging
import statistics
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from ncen_tf.base.environment import describe_environment
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.data.dataset import Dataset
from ncen_tf.data.pipeline import steps_per_epoch
from ncen_tf.ensembles.ensemble import Ensemble, build_ensemble
from ncen_tf.ensembles.regularizers import ADP
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.devices import (
    broadcast,
    dtype_policy,
    fastest_precision,
    has_several_workers,
    is_chief,
    naming_lost_workers,
    refuse_different,
    set_up_devices,
)
from ncen_tf.train.diagnostics import write_diagnostics
from ncen_tf.train.loop import fit_run, learning_rates
from ncen_tf.train.run_directory import DataRecord, RunDirectory, RunSummary
from ncen_tf.train.trained_run import TrainedRun, open_run

logger = logging.getLogger(__name__)


def train_ensemble(
    config: TrainConfig,
    data: Dataset | Callable[[], Dataset],
    run_dir: Path | str,
    *,
    overwrite: bool = False,
    progress: bool = True,
) -> TrainedRun:
    """Train an ensemble, or go on with an interrupted training, and keep everything in a run directory.

    The same call goes on with a training that was interrupted, at the step of its newest checkpoint, and ends
    with the weights of an uninterrupted one: the batches depend on seed, epoch and step alone. Ctrl-C and
    SIGTERM save first. A finished run is read, not trained again.

    Args:
        config: Settings of the run.
        data: Images to train and measure on; or a function that loads them, which is called after
            TensorFlow's devices are set up.
        run_dir: Folder of the run: created if it does not exist.
        overwrite: Whether to delete an earlier run in the folder.
        progress: Whether to show a progress bar and a line after each epoch.

    Returns:
        The run, its ensemble in float32.

    Raises:
        InputError: The settings do not suit the data or this machine, the folder holds another run or cannot
            be written, or the training diverged.
        LostWorkerError: Another worker of a multi-worker training ended or cannot be reached.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after saving.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample", train_examples=20, test_examples=10)
        >>> config = ncen_tf.TrainConfig.for_dataset(
        ...     "fashion_mnist", members=["resnet8"] * 2, regularizer=None, epochs=1
        ... )
        >>> run = ncen_tf.train_ensemble(config, data, "runs/tiny", progress=False)
        >>> run.epochs_trained
        1
    """
    path = Path(run_dir)
    strategy = set_up_devices(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(naming_lost_workers(strategy))
        if is_chief(strategy):
            run = RunDirectory(path)
        else:  # Every worker has to take part in saving: the others do it in a folder that is deleted.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ncen_tf-worker-"))
            run = RunDirectory(Path(folder))
        stack.enter_context(run.lock())
        loaded = data() if callable(data) else data
        record = _describe(loaded)
        config = config.for_images(record.image_shape)
        _refuse_unsuitable(config, record)
        if has_several_workers(strategy):
            refuse_different(strategy, f"{config.model_dump_json()} {record.sha256} {overwrite}")
            if not overwrite:
                _send_to_workers(strategy, run)
        goes_on = run.has_begun and not overwrite
        if config.precision == "auto":
            found = run.read_config().precision if goes_on else fastest_precision(config, record, strategy)
            config = config.model_copy(update={"precision": found})
        if goes_on:
            run.refuse_other(config, record)
        if goes_on and run.is_complete:
            logger.info("The run in %s is complete", path)
        else:
            _train(config, loaded, record, run, strategy, goes_on=goes_on, progress=progress)
        return dataclasses.replace(open_run(run.path), path=path)


def _train(
    config: TrainConfig,
    data: Dataset,
    record: DataRecord,
    run: RunDirectory,
    strategy: tf.distribute.Strategy,
    *,
    goes_on: bool,
    progress: bool,
) -> None:
    steps = steps_per_epoch(len(data.train), config.batch_size)
    with dtype_policy(config.precision):
        with strategy.scope():
            ensemble = _build(config, record, steps)
        if config.initial_run and not goes_on:
            _take_weights(ensemble, config, record, open_run(config.initial_run))
        if not goes_on:
            run.begin(config, record)
        try:
            fit_run(ensemble, config, data, run, strategy, steps, progress=progress)
            with replacing(run.model_file) as temporary:
                ensemble.save(temporary)
        except tf.errors.OpError as error:
            if has_several_workers(strategy):
                raise
            raise InputError(f"TensorFlow fails: {error.message.splitlines()[0][:300]}.") from error
    history = run.read_history()
    write_diagnostics(run.plot_file, {run.path.name: history})
    RunSummary(
        clean_accuracy=history[-1].test.clean_accuracy,
        member_accuracy=history[-1].test.member_accuracy,
        test=history[-1].test,
        train=history[-1].train,
        epochs=config.epochs,
        parameters=sum(v.shape.num_elements() for v in ensemble.trainable_variables),
        median_seconds_per_step=statistics.median(one.seconds_per_step for one in history),
        replicas=strategy.num_replicas_in_sync,
        data=record,
        environment=describe_environment(),
    ).write(run.summary_file)


def _build(config: TrainConfig, data: DataRecord, steps: int) -> Ensemble:
    """Build and compile the ensemble of a run."""
    ensemble = build_ensemble(
        config.members,
        data.image_shape,
        len(data.class_names),
        sync_batch_norm=config.sync_batch_norm,
        seed=config.seed,
    )
    ensemble.compile(
        keras.optimizers.Adam(learning_rates(config, steps), epsilon=1e-8),
        config.regularizer,
        ce_on=config.ce_on,
        adversarial_training=config.adversarial_training,
        seed=config.seed,
        jit_compile=config.jit_compile,
    )
    ensemble.optimizer.build(ensemble.trainable_variables)
    return ensemble


def _describe(data: Dataset) -> DataRecord:
    digest = hashlib.sha256()
    for split in (data.train, data.test):
        digest.update(split.images.data)
        digest.update(split.labels.data)
    return DataRecord(
        name=data.name,
        source=data.source,
        image_shape=data.image_shape,
        class_names=data.class_names,
        train_examples=len(data.train),
        test_examples=len(data.test),
        sha256=digest.hexdigest(),
    )


def _refuse_unsuitable(config: TrainConfig, data: DataRecord) -> None:
    if config.crop_padding >= min(data.image_shape[:2]):
        raise InputError(
            f"`crop_padding` must be less than the image's size {data.image_shape[:2]}, "
            f"got {config.crop_padding}."
        )
    if isinstance(config.regularizer, ADP) and len(config.members) >= len(data.class_names):
        raise InputError(
            f"ADP needs fewer members than classes, got {len(config.members)} members for "
            f"{len(data.class_names)} classes."
        )


def _take_weights(ensemble: Ensemble, config: TrainConfig, data: DataRecord, initial: TrainedRun) -> None:
    """Give an ensemble the weights and moving statistics of another run.

    Raises:
        InputError: That run has other members, image sizes or numbers of classes.
    """
    if initial.config.members != config.members:
        raise InputError(
            f"The `initial_run` {initial.path} has members {','.join(initial.config.members)}: "
            f"{','.join(config.members)} cannot start from their weights."
        )
    shapes = [(one.image_shape, len(one.class_names)) for one in (initial.data, data)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"The weights of the `initial_run` {initial.path} are for {initial.data.name} and do not fit "
            f"{data.name}."
        )
    ensemble.set_weights(initial.ensemble.get_weights())


def _send_to_workers(strategy: tf.distribute.Strategy, run: RunDirectory) -> None:
    """Copy the state of the chief's run to the folders of the other workers."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file in run.path.rglob("*") if run.has_begun else ():
            if file.is_file() and not file.name.startswith(".") and run.tensorboard not in file.parents:
                archive.write(file, file.relative_to(run.path))
    with zipfile.ZipFile(io.BytesIO(broadcast(strategy, packed.getvalue()))) as archive:
        if not is_chief(strategy):
            archive.extractall(run.path)
