"""The loop over epochs and steps of a run, which ``fit`` cannot replace."""

import contextlib
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

import keras
import tensorflow as tf
from tqdm import tqdm

from ncen_tf.base.environment import signal_handlers
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Dataset
from ncen_tf.data.pipeline import training_batches
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.checkpoints import Checkpoint, DivergedError, as_number, require_finite
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.devices import gather, has_several_workers
from ncen_tf.train.measurements import gradient_measurement, robustness_measurement
from ncen_tf.train.run_directory import EpochRecord, RunDirectory, TestMetrics
from ncen_tf.train.weight_average import WeightAverage

logger = logging.getLogger(__name__)

STEPS_BETWEEN_READINGS = 10
"""Reading metrics waits for the device, so it is not done after every step."""

Step = Callable[[tf.Tensor, tf.Tensor], None]
Rates: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


def learning_rates(config: TrainConfig, steps: int) -> Rates:
    """Make the learning rate of a run with ``steps`` optimizer steps in an epoch.

    The schedule ``steps`` divides it by 10 every ``decay_every`` epochs (Luo et al., section IV-A);
    ``cosine`` is half a cosine (Loshchilov and Hutter, 2017, Eq. 5, without restarts). Neither falls below
    ``min_learning_rate``; an initial rate below that stays as it is.
    """
    initial, floor = config.learning_rate, min(config.learning_rate, config.min_learning_rate)
    if initial == floor:
        return initial
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(initial, config.epochs * steps, floor / initial)
    decays = range(1, math.ceil(config.epochs / config.decay_every))
    if not decays:
        return initial
    # The value at a boundary is still that before it.
    boundaries = [number * config.decay_every * steps - 1 for number in decays]
    rates = [initial, *(max(initial * 0.1**number, floor) for number in decays)]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, rates)


def make_step(ensemble: Ensemble, strategy: tf.distribute.Strategy) -> Step:
    """Compile a training step on a batch that the replicas share.

    Every worker makes the whole batch, which costs little beside a training step, and takes the shares of its
    replicas: contiguous rows, as one device would see them, their numbers differing by one at most.
    """
    replicas = strategy.num_replicas_in_sync

    # One graph for each batch size, of which there are two: a graph for any size is slower, and one that
    # is first this, then that, would make a resumed run round differently.
    @tf.function(autograph=False)
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        def replica_step() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            size = tf.shape(images)[0]
            share = slice(replica * size // replicas, (replica + 1) * size // replicas)
            ensemble.train_step((images[share], labels[share]))

        strategy.run(replica_step)

    result: Step = step
    return result


def fit_run(
    ensemble: Ensemble,
    config: TrainConfig,
    data: Dataset,
    run: RunDirectory,
    strategy: tf.distribute.Strategy,
    steps: int,
    *,
    progress: bool,
) -> None:
    """Train to the last epoch, from the newest checkpoint if there is one.

    It takes the place of ``ensemble.fit``, which cannot start within an epoch, and which fails under
    MultiWorkerMirroredStrategy in Keras 3.15 (keras-team/keras#20585).
    """
    average = WeightAverage(config.ema_momentum) if config.ema_momentum else None
    if average:
        average.set_model(ensemble)
    checkpoint = Checkpoint(ensemble, run.checkpoints, average)
    if checkpoint.restore():
        logger.info("Going on after step %d of epoch %d", checkpoint.step, checkpoint.epoch + 1)
    else:
        checkpoint.save()  # shows now, not after hours, whether the folder can be written
    measures = [gradient_measurement(ensemble, data.test)]
    if config.adversarial_training:
        measures.append(robustness_measurement(ensemble, config.adversarial_training, data.test))
    history, rates = run.read_history(checkpoint.epoch), learning_rates(config, steps)
    writer = tf.summary.create_file_writer(str(run.tensorboard))
    train_step = make_step(ensemble, strategy)
    interval = 0.1 if sys.stderr.isatty() else 30  # a log file gets a line every half minute
    bar = tqdm(
        total=config.epochs * steps,
        initial=checkpoint.epoch * steps + checkpoint.step,
        unit="step",
        dynamic_ncols=True,
        mininterval=interval,
        maxinterval=interval,
        disable=not progress,
    )
    interrupt = threading.Event()

    def note_interrupt(*_: object) -> None:
        interrupt.set()
        restore_handlers()
        print("\nStopping: the run is saved after this step. Once more stops at once.", file=sys.stderr)

    def stop_if_asked(step: int) -> None:
        asked = interrupt.is_set()
        if has_several_workers(strategy):  # They stop after the same step, and asking takes time.
            at_reading = step % STEPS_BETWEEN_READINGS == 0 or step == steps
            asked = at_reading and any(gather(strategy, [int(asked)]))
        if asked:
            if step:
                checkpoint.save()
            raise KeyboardInterrupt(f"The run is saved in {run.path}: the same command resumes it.")

    def shown(metrics: dict[str, float]) -> dict[str, str]:
        rate = as_number(ensemble.optimizer.learning_rate)
        values = {name: f"{value:.4f}" for name, value in metrics.items()}
        return {"epoch": f"{checkpoint.epoch + 1}/{config.epochs}", "lr": f"{rate:g}"} | values

    def finish_epoch(seconds_per_step: float) -> None:
        metrics = _metrics(ensemble)
        with average.in_place() if average else contextlib.nullcontext():
            measured = {name: value for measure in measures for name, value in measure().items()}
        numbers = metrics | {f"test_{name}": v for name, v in measured.items() if isinstance(v, float)}
        require_finite(ensemble, numbers, checkpoint.epoch, checkpoint.step)
        last_step = as_number(ensemble.optimizer.iterations) - 1
        rate = rates if isinstance(rates, float) else rates(last_step)
        record = EpochRecord(
            epoch=checkpoint.epoch + 1,
            learning_rate=float(f"{float(rate):.6g}"),
            train=metrics,
            test=TestMetrics(**measured),
            seconds_per_step=seconds_per_step,
        )
        history.append(record)
        run.write_history(history)
        _write_scalars(writer, record)
        if progress:
            bar.write("  ".join(f"{name} {value}" for name, value in shown(numbers).items()))
        checkpoint.epoch, checkpoint.step = checkpoint.epoch + 1, 0
        checkpoint.save()

    with signal_handlers(note_interrupt) as restore_handlers, bar:
        try:
            for epoch in range(checkpoint.epoch, config.epochs):
                stop_if_asked(0)
                first, started, seconds = checkpoint.step, time.perf_counter(), 0.0
                if first == 0:
                    ensemble.reset_metrics()
                batches = training_batches(
                    data.train,
                    config.batch_size,
                    epoch=epoch,
                    seed=config.seed,
                    noise_eps=config.noise_eps,
                    crop_padding=config.crop_padding,
                    flip=config.flip,
                    skip_steps=first,
                )
                for step, (images, labels) in enumerate(batches, first + 1):
                    train_step(images, labels)
                    if average:
                        average.on_train_batch_end(step - 1)
                    checkpoint.step = step
                    if step % STEPS_BETWEEN_READINGS == 0:
                        metrics = _metrics(ensemble)
                        require_finite(ensemble, metrics, epoch, step)
                        bar.set_postfix(shown(metrics), refresh=False)
                    bar.update()
                    seconds = time.perf_counter() - started
                    if step % config.checkpoint_every == 0 and step != steps:
                        checkpoint.save()
                    stop_if_asked(step)
                # No step if it was interrupted after the last.
                finish_epoch(seconds / max(checkpoint.step - first, 1))
        except DivergedError as error:
            raise InputError(
                f"{error} The checkpoint after {checkpoint.saved_steps} steps is the last finite one."
            ) from error
    if average:
        average.on_train_end()


def _metrics(ensemble: Ensemble) -> dict[str, float]:
    return {metric.name: float(metric.result()) for metric in ensemble.metrics}


def _write_scalars(writer: tf.summary.SummaryWriter, record: EpochRecord) -> None:
    """Write the numbers of an epoch for TensorBoard."""
    with writer.as_default(step=record.epoch):  # flushes at the end
        tf.summary.scalar("learning_rate", record.learning_rate)
        for part, figures in (("train", record.train), ("test", record.test.model_dump())):
            for name, value in figures.items():
                if isinstance(value, tuple):
                    for member, one in enumerate(value):
                        tf.summary.scalar(f"{part}/{name}/member_{member}", one)
                elif value is not None:
                    tf.summary.scalar(f"{part}/{name}", value)
