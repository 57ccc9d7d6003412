"""A whole training run: ensemble, fit, and what is left in the run directory."""

import statistics
from typing import Any

import keras
import tensorflow as tf

from ncen_tf.base.environment import describe_environment
from ncen_tf.base.files import replacing
from ncen_tf.data.dataset import Dataset
from ncen_tf.ensembles.ensemble import build_ensemble
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.diagnostics import write_diagnostics
from ncen_tf.train.fit import fit_run
from ncen_tf.train.objective import make_adversarial_training, make_regularizer
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.workers.connection import has_several_workers, refuse_different_data


def train_ensemble(
    config: TrainingConfig,
    dataset: Dataset,
    run: RunDirectory,
    strategy: tf.distribute.Strategy,
    checkpoint_every: int,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Train, or go on training, and leave model, diagnostics and ``summary.json`` in the run directory.

    Args:
        config: settings of the run.
        dataset: what to train and measure on.
        run: an opened run directory.
        strategy: what :func:`ncen_tf.train.strategy.set_up_tensorflow` made of the settings.
        checkpoint_every: steps between two checkpoints.
        show_progress: whether to show a bar and a line an epoch.

    Returns:
        The content of ``summary.json``.

    Raises:
        InterruptedRunError: Ctrl-C, after saving.
        InputError: settings that this machine or dataset cannot serve, a folder that cannot be written, or a
            training that diverged.
    """
    if has_several_workers(strategy):
        refuse_different_data(strategy, dataset)
    with strategy.scope():
        ensemble = build_ensemble(
            config.architecture,
            dataset.image_shape,
            len(dataset.class_names),
            sync_batch_norm=config.sync_batch_norm,
            seed=config.seed,
        )
        ensemble.compile(
            keras.optimizers.Adam(config.learning_rate, epsilon=1e-8),
            make_regularizer(config),
            ce_on=config.ce_on,
            adversarial_training=make_adversarial_training(config),
            seed=config.seed,
            jit_compile=config.jit_compile,
        )
        ensemble.optimizer.build(ensemble.trainable_variables)
    history = fit_run(ensemble, config, dataset, run, strategy, checkpoint_every, show_progress)
    with replacing(run.model_file) as temporary:
        ensemble.save(temporary)
    write_diagnostics(run.plot_file, {run.path.name: history})
    summary = {
        "test": history[-1]["test"],
        "train": history[-1]["train"],
        "parameters": sum(v.shape.num_elements() for v in ensemble.trainable_variables),
        "median_seconds_per_step": statistics.median(line["seconds_per_step"] for line in history),
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "train_examples": len(dataset.train),
            "test_examples": len(dataset.test),
        },
        "replicas": strategy.num_replicas_in_sync,
        "flags": config.to_flags(),
        "environment": describe_environment(),
    }
    run.write_summary(summary)
    return summary
