"""A whole training run: devices, ensemble, fit, and what is left in the run directory."""

import dataclasses
import logging
from typing import Any

import keras
import tensorflow as tf

from ncen_tf.data.loading import Dataset
from ncen_tf.data.pipeline import evaluation_batches
from ncen_tf.environment import describe_environment
from ncen_tf.files import replacing
from ncen_tf.models.ensemble import build_ensemble
from ncen_tf.training.config import TrainingConfig
from ncen_tf.training.evaluation import Evaluator
from ncen_tf.training.fit import fit_run
from ncen_tf.training.nc_ensemble import NCEnsemble
from ncen_tf.training.objective import make_adversarial_training, make_regularizer
from ncen_tf.training.run_directory import RunDirectory
from ncen_tf.training.strategy import make_strategy, split_device

logger = logging.getLogger(__name__)


def train_ensemble(
    config: TrainingConfig, dataset: Dataset, run: RunDirectory, checkpoint_every: int
) -> dict[str, Any]:
    """Train, or go on training, and leave ``ensemble.keras`` and ``summary.json`` in the run directory.

    Call it once in a process, before TensorFlow is used: it sets devices, precision and seeds.

    Args:
        config: settings of the run.
        dataset: what to train and measure on.
        run: an opened run directory.
        checkpoint_every: steps between two checkpoints.

    Returns:
        The content of ``summary.json``.

    Raises:
        InterruptedRunError: Ctrl-C, after saving.
        InputError: settings that this machine or dataset cannot serve.
    """
    if config.virtual_devices > 1:
        split_device(config.virtual_devices)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    strategy = make_strategy(config.strategy)
    logger.info("%s, %d replica(s)", type(strategy).__name__, strategy.num_replicas_in_sync)
    with strategy.scope():
        ensemble = build_ensemble(
            config.architecture,
            dataset.spec.image_shape,
            len(dataset.spec.class_names),
            sync_batch_norm=config.sync_batch_norm,
            seed=config.seed,
            ensemble_class=NCEnsemble,
        )
        ensemble.compile(
            keras.optimizers.Adam(config.learning_rate, epsilon=1e-8),
            make_regularizer(config),
            config.ce_on,
            make_adversarial_training(config),
            config.seed,
            jit_compile=config.jit_compile,
        )
        ensemble.optimizer.build(ensemble.trainable_variables)
    history = fit_run(ensemble, config, dataset, run, strategy, checkpoint_every)
    with replacing(run.model_file) as temporary:
        ensemble.save(temporary)
    evaluation = Evaluator(ensemble).measure(evaluation_batches(dataset.test))
    seconds = sorted(line["seconds_per_step"] for line in history)
    summary = {
        "test": dataclasses.asdict(evaluation),
        "train": history[-1]["train"],
        "parameters": sum(v.shape.num_elements() for v in ensemble.trainable_variables),
        "median_seconds_per_step": seconds[len(seconds) // 2],
        "dataset": {
            "name": dataset.spec.name,
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
