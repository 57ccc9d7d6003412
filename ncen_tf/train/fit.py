"""The training loop of a run: resumable at every step, interruptible, logged."""

import dataclasses
import logging
import sys
import time
from pathlib import Path
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Dataset
from ncen_tf.data.pipeline import evaluation_batches
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.checkpoint import NonFiniteStateError, RunCheckpoint
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.divergence import require_finite, trace_divergence
from ncen_tf.train.epoch_log import EventLog, epoch_line, readings, running_means
from ncen_tf.train.evaluation import Evaluator
from ncen_tf.train.interrupt import Interrupt, InterruptedRunError, deferred_interrupt
from ncen_tf.train.robustness_probe import RobustnessProbe, warn_of_collapse
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.train.steps import TrainingSteps
from ncen_tf.train.trained import take_weights
from ncen_tf.workers.connection import any_worker, has_several_workers

logger = logging.getLogger(__name__)

STEPS_BETWEEN_READINGS = 10


def fit_run(
    ensemble: Ensemble,
    config: TrainingConfig,
    dataset: Dataset,
    run: RunDirectory,
    strategy: tf.distribute.Strategy,
    checkpoint_every: int,
    show_progress: bool = True,
) -> list[dict[str, Any]]:
    """Train to the last epoch, from the newest checkpoint if there is one.

    An interrupted run takes up at the step of its checkpoint and ends with the weights of an
    uninterrupted one: the data depends on seed, epoch and step alone.

    Args:
        ensemble: compiled and created under ``strategy``.
        config: settings of the run.
        dataset: train and test split.
        run: where checkpoints and metrics go.
        strategy: what the steps run under.
        checkpoint_every: steps between two checkpoints, besides the one after each epoch.
        show_progress: whether to show a bar and a line an epoch.

    Returns:
        The lines of ``metrics.jsonl``.

    Raises:
        InterruptedRunError: Ctrl-C, after saving.
        InputError: the last batch of an epoch has fewer images than there are replicas, the folder cannot be
            written, the run to begin with cannot be used, or the training diverged.
    """
    steps = TrainingSteps(ensemble, config, dataset, strategy)
    checkpoint = RunCheckpoint(ensemble, run.checkpoints, steps.per_epoch)
    if run.goes_on and checkpoint.restore():
        logger.info("Going on after step %d of epoch %d", checkpoint.step, checkpoint.epoch + 1)
    else:
        if config.initial_run:
            take_weights(ensemble, config, RunDirectory(Path(config.initial_run)))
        run.begin(config)
        # Now, not after hours, it shows whether the folder can be written; a divergence is traced from here.
        checkpoint.save()
    history = run.read_metrics(checkpoint.epoch)
    evaluator, scheme = Evaluator(ensemble), ensemble.adversarial_training
    probe = RobustnessProbe(ensemble.members, scheme) if scheme else None
    events = EventLog(run.tensorboard)
    with (
        deferred_interrupt() as interrupt,
        _progress_bar(config.epochs * steps.per_epoch, checkpoint.number, show_progress) as bar,
    ):
        loop = _EpochLoop(ensemble, config, steps, checkpoint, checkpoint_every, strategy, interrupt, bar)
        try:
            while checkpoint.epoch < config.epochs:
                if loop.must_stop():  # asked for while the epoch before was measured, and saved
                    raise InterruptedRunError
                epoch = checkpoint.epoch
                seconds_per_step = loop.train()
                train = running_means(ensemble)
                test = dataclasses.asdict(evaluator.measure(evaluation_batches(dataset.test)))
                if probe:
                    robustness = probe.measure(dataset.test)
                    test |= robustness
                    if warning := warn_of_collapse(robustness):
                        logger.warning(warning)
                require_finite(train | test)
                line = {
                    "epoch": epoch + 1,
                    "learning_rate": steps.learning_rate(epoch, steps.per_epoch - 1),
                    "train": train,
                    "test": test,
                    "seconds_per_step": seconds_per_step,
                }
                history.append(line)
                run.write_metrics(history)
                events.write(line)
                if show_progress:
                    bar.write(epoch_line(line, config.epochs))
                ensemble.reset_metrics()
                checkpoint.epoch, checkpoint.step = epoch + 1, 0
                checkpoint.save()
        except NonFiniteStateError as symptom:
            raise InputError(
                trace_divergence(ensemble, steps, checkpoint, symptom, STEPS_BETWEEN_READINGS)
            ) from symptom
    return history


@dataclasses.dataclass(frozen=True)
class _EpochLoop:
    """The steps of one epoch after another, and what happens between two of them."""

    ensemble: Ensemble
    config: TrainingConfig
    steps: TrainingSteps
    checkpoint: RunCheckpoint
    checkpoint_every: int
    strategy: tf.distribute.Strategy
    interrupt: Interrupt
    bar: "tqdm[None]"

    def train(self) -> float:
        """Take the rest of the current epoch's steps; the mean seconds of a step."""
        checkpoint, first_step, started = self.checkpoint, self.checkpoint.step, time.perf_counter()
        for images, labels in self.steps.batches(checkpoint.epoch, first_step):
            rate = self.steps.learning_rate(checkpoint.epoch, checkpoint.step)
            self.steps.take(images, labels, rate)
            checkpoint.step += 1
            self.bar.update()
            if checkpoint.step % STEPS_BETWEEN_READINGS == 0:
                self._read(rate)
            if self.must_stop():
                checkpoint.save()
                raise InterruptedRunError
            if checkpoint.step % self.checkpoint_every == 0 and checkpoint.step < self.steps.per_epoch:
                checkpoint.save()
        return (time.perf_counter() - started) / max(checkpoint.step - first_step, 1)

    def _read(self, rate: float) -> None:
        means = running_means(self.ensemble)
        require_finite(means)
        shown = readings(means, self.checkpoint.epoch, self.config.epochs, rate)
        self.bar.set_postfix(shown, refresh=False)

    def must_stop(self) -> bool:
        if not has_several_workers(self.strategy):
            return self.interrupt.requested
        # Workers stop after the same step, and asking one another takes time.
        step = self.checkpoint.step
        asked = step % STEPS_BETWEEN_READINGS == 0 or step == self.steps.per_epoch
        return asked and any_worker(self.strategy, self.interrupt.requested)


def _progress_bar(total: int, initial: int, show: bool) -> "tqdm[None]":
    """A bar with an estimate; a log file gets a line every half minute instead of every step."""
    interval = 0.1 if sys.stderr.isatty() else 30
    return tqdm(
        total=total,
        initial=initial,
        unit="step",
        mininterval=interval,
        maxinterval=interval,
        dynamic_ncols=True,
        disable=not show,
    )
