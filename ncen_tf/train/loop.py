"""The loop over epochs and steps of a run, which ``fit`` cannot replace."""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf
from tqdm import tqdm

from ncen_tf.base.environment import signal_handlers
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Dataset
from ncen_tf.data.pipeline import training_batches
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.callbacks import (
    Checkpoint,
    DivergedError,
    GradientDiagnostics,
    Logs,
    RobustnessProbe,
    StopOnNaN,
    as_number,
)
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.devices import gather, has_several_workers
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
    checkpoint = Checkpoint(run.checkpoints, config.checkpoint_every, average)
    if checkpoint.restore(ensemble):
        logger.info("Going on after step %d of epoch %d", checkpoint.step, checkpoint.epoch + 1)
    line = _ProgressLine(checkpoint.epoch * steps + checkpoint.step) if progress else None
    diagnostics = GradientDiagnostics(data.test, average)
    probe = RobustnessProbe(data.test, average) if ensemble.adversarial_training else None
    log = _RunLog(run, checkpoint.epoch, learning_rates(config, steps), diagnostics, probe)
    chosen = [average, diagnostics, probe, StopOnNaN(), log, line, checkpoint]
    callbacks = keras.callbacks.CallbackList(
        [callback for callback in chosen if callback], model=ensemble, epochs=config.epochs, steps=steps
    )
    step_function = make_step(ensemble, strategy)
    interrupt = threading.Event()

    def note_interrupt(*_: object) -> None:
        interrupt.set()
        restore_handlers()
        print("\nStopping: the run is saved after this step. Once more stops at once.", file=sys.stderr)

    with signal_handlers(note_interrupt) as restore_handlers:

        def stop_if_asked(step: int) -> None:
            asked = interrupt.is_set()
            if has_several_workers(strategy):  # They stop after the same step, and asking takes time.
                at_reading = step % STEPS_BETWEEN_READINGS == 0 or step == steps
                asked = at_reading and any(gather(strategy, [int(asked)]))
            if asked:
                if step:
                    checkpoint.save()
                raise KeyboardInterrupt(f"The run is saved in {run.path}: the same command resumes it.")

        try:
            callbacks.on_train_begin()
            for epoch in range(checkpoint.epoch, config.epochs):
                stop_if_asked(0)
                first = checkpoint.step
                if first == 0:
                    ensemble.reset_metrics()
                callbacks.on_epoch_begin(epoch)
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
                    callbacks.on_train_batch_begin(step - 1)
                    step_function(images, labels)
                    is_reading = step % STEPS_BETWEEN_READINGS == 0
                    callbacks.on_train_batch_end(step - 1, _metrics(ensemble) if is_reading else None)
                    stop_if_asked(step)
                callbacks.on_epoch_end(epoch, _metrics(ensemble))
            callbacks.on_train_end()
        except DivergedError as error:
            raise InputError(
                f"{error} The checkpoint after {checkpoint.saved_steps} steps is the last finite one."
            ) from error
        finally:
            if line:
                line.on_train_end()


def _metrics(ensemble: Ensemble) -> Logs:
    return {metric.name: float(metric.result()) for metric in ensemble.metrics}


class _ProgressLine(keras.callbacks.Callback):
    """Show a progress bar over all epochs and a line after each of them.

    Args:
        done: Number of steps that are done when training begins.
    """

    def __init__(self, done: int = 0) -> None:
        super().__init__()
        self._done = done
        self._bar: tqdm[None] = tqdm(disable=True)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        interval = 0.1 if sys.stderr.isatty() else 30  # a log file gets a line every half minute
        epochs, steps = self.params["epochs"], self.params["steps"]
        intervals = {"mininterval": interval, "maxinterval": interval}
        total = steps and epochs * steps
        self._bar = tqdm(total=total, initial=self._done, unit="step", dynamic_ncols=True, **intervals)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = f"{epoch + 1}/{self.params['epochs']}"

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._bar.update()
        if logs and (batch + 1) % STEPS_BETWEEN_READINGS == 0:
            self._bar.set_postfix(self._readings(logs), refresh=False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._bar.write("  ".join(f"{name} {value}" for name, value in self._readings(logs or {}).items()))

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._bar.close()

    def _readings(self, logs: Mapping[str, Any]) -> dict[str, str]:
        rate = as_number(self.model.optimizer.learning_rate)
        values = {name: f"{value:.4f}" for name, value in logs.items()}
        return {"epoch": self._epoch, "lr": f"{rate:g}"} | values


class _RunLog(keras.callbacks.Callback):
    """Write ``metrics.jsonl`` and TensorBoard's scalars after every epoch."""

    def __init__(
        self,
        run: RunDirectory,
        epochs_done: int,
        rates: Rates,
        diagnostics: GradientDiagnostics,
        probe: RobustnessProbe | None,
    ) -> None:
        super().__init__()
        self._run, self._history, self._rates = run, run.read_history(epochs_done), rates
        self._diagnostics, self._probe = diagnostics, probe
        self._writer = tf.summary.create_file_writer(str(run.tensorboard))

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._started, self._steps, self._seconds = time.perf_counter(), 0, 0.0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._steps += 1
        self._seconds = time.perf_counter() - self._started

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        last_step = as_number(self.model.optimizer.iterations) - 1
        rate = self._rates if isinstance(self._rates, float) else self._rates(last_step)
        figures = self._diagnostics.latest | (self._probe.latest if self._probe else {})
        record = EpochRecord(
            epoch=epoch + 1,
            learning_rate=float(f"{float(rate):.6g}"),
            train={name: value for name, value in (logs or {}).items() if not name.startswith("test_")},
            test=TestMetrics(**figures),
            seconds_per_step=self._seconds
            / max(self._steps, 1),  # no step if it was interrupted after the last
        )
        self._history.append(record)
        self._run.write_history(self._history)
        with self._writer.as_default(step=record.epoch):  # flushes at the end
            tf.summary.scalar("learning_rate", record.learning_rate)
            for part, figures in (("train", record.train), ("test", record.test.model_dump())):
                for name, value in figures.items():
                    if isinstance(value, tuple):
                        for member, one in enumerate(value):
                            tf.summary.scalar(f"{part}/{name}/member_{member}", one)
                    elif value is not None:
                        tf.summary.scalar(f"{part}/{name}", value)
