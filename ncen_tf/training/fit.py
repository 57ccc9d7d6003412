"""The training loop of a run: resumable at every step, interruptible, logged."""

import dataclasses
import sys
import time
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from ncen_tf.data.loading import Dataset
from ncen_tf.data.pipeline import evaluation_batches, steps_per_epoch, training_batches
from ncen_tf.errors import InputError
from ncen_tf.training.checkpoint import RunCheckpoint
from ncen_tf.training.config import TrainingConfig
from ncen_tf.training.epoch_log import epoch_line, readings, write_events
from ncen_tf.training.evaluation import Evaluator
from ncen_tf.training.interrupt import InterruptedRunError, deferred_interrupt
from ncen_tf.training.nc_ensemble import NCEnsemble
from ncen_tf.training.run_directory import RunDirectory
from ncen_tf.training.schedule import learning_rate

STEPS_BETWEEN_READINGS = 10


def fit_run(
    ensemble: NCEnsemble,
    config: TrainingConfig,
    dataset: Dataset,
    run: RunDirectory,
    strategy: tf.distribute.Strategy,
    checkpoint_every: int,
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

    Returns:
        The lines of ``metrics.jsonl``.

    Raises:
        InterruptedRunError: Ctrl-C, after saving.
        InputError: the last batch of an epoch has fewer images than there are replicas.
    """
    steps = steps_per_epoch(len(dataset.train), config.batch_size)
    last_batch = 2 * len(dataset.train) - (steps - 1) * config.batch_size
    if last_batch < strategy.num_replicas_in_sync:
        raise InputError(
            f"The last batch of an epoch has {last_batch} images for "
            f"{strategy.num_replicas_in_sync} replicas: choose another --batch_size."
        )
    checkpoint = RunCheckpoint(ensemble, run.checkpoints)
    checkpoint.restore()
    history = run.read_metrics(checkpoint.epoch)
    evaluator = Evaluator(ensemble)
    train_step = _distributed_step(ensemble, strategy)
    writer = tf.summary.create_file_writer(str(run.tensorboard))
    done = checkpoint.epoch * steps + checkpoint.step
    with (
        deferred_interrupt() as interrupt,
        progress_bar(config.epochs * steps, done) as bar,
    ):
        for epoch in range(checkpoint.epoch, config.epochs):
            rate = learning_rate(epoch, config.learning_rate, config.decay_every, config.min_learning_rate)
            ensemble.optimizer.learning_rate = rate
            batches = training_batches(
                dataset.train,
                dataset.spec,
                config.batch_size,
                epoch=epoch,
                seed=config.seed,
                noise_eps=config.noise_eps,
                skip_steps=checkpoint.step,
            )
            started, first_step = time.perf_counter(), checkpoint.step
            for batch in strategy.experimental_distribute_dataset(batches):
                train_step(batch)
                checkpoint.step += 1
                bar.update()
                if checkpoint.step % STEPS_BETWEEN_READINGS == 0:
                    bar.set_postfix(readings(ensemble, epoch, config.epochs, rate), refresh=False)
                if interrupt.requested:
                    checkpoint.save()
                    raise InterruptedRunError
                if checkpoint.step % checkpoint_every == 0 and checkpoint.step < steps:
                    checkpoint.save()
            seconds = time.perf_counter() - started
            evaluation = evaluator.measure(evaluation_batches(dataset.test))
            train = {metric.name: float(metric.result()) for metric in ensemble.metrics}
            line = {
                "epoch": epoch + 1,
                "learning_rate": rate,
                "train": train,
                "test": dataclasses.asdict(evaluation),
                "seconds_per_step": seconds / max(checkpoint.step - first_step, 1),
            }
            history.append(line)
            run.write_metrics(history)
            write_events(writer, line)
            bar.write(epoch_line(line, config.epochs))
            ensemble.reset_metrics()
            checkpoint.epoch, checkpoint.step = epoch + 1, 0
            checkpoint.save()
    return history


def progress_bar(total: int, initial: int) -> "tqdm[None]":
    """A bar with an estimate; a log file gets a line every half minute instead of every step."""
    interval = 0.1 if sys.stderr.isatty() else 30
    return tqdm(
        total=total,
        initial=initial,
        unit="step",
        mininterval=interval,
        maxinterval=interval,
        dynamic_ncols=True,
    )


def _distributed_step(ensemble: NCEnsemble, strategy: tf.distribute.Strategy) -> Any:
    @tf.function(reduce_retracing=True)
    def step(batch: Any) -> None:
        strategy.run(ensemble.train_step, args=(batch,))

    return step
