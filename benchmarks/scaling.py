"""Images a second of training at growing batches, on one device and on two virtual ones.

python -m benchmarks.scaling --out=docs/benchmarks/scaling.json
"""

import functools

import keras
import tensorflow as tf
from absl import flags

from benchmarks.ceiling import ceiling
from benchmarks.report import ROUNDS, publish, whole_numbers
from benchmarks.table import Table, timing_rows
from benchmarks.timing import Candidate, Run, interleaved, ratio
from ncen_tf import program
from ncen_tf.data.dataset import Dataset, load_data
from ncen_tf.ensembles.ensemble import build_ensemble
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.steps import TrainingSteps
from ncen_tf.train.strategy import make_strategy, share_cores, split_device

ARCHITECTURE = flags.DEFINE_list("architecture", ["resnet20"] * 3, "the members")
BATCHES = flags.DEFINE_list("batches", ["64", "128", "256", "512", "1024"], "images a step, over all devices")
STRATEGIES = {"one device": "one_device", "two virtual devices": "mirrored"}

ABOUT = """A training step of `ncen_tf.train` with NCE, float32, at each global batch: on one device, and
by MirroredStrategy on two, into which the CPU (or the first GPU) is split. Virtual devices share the
cores of one machine: what they cost is shown here, not what a second machine would bring."""


def main() -> None:
    batches = whole_numbers(BATCHES)

    split_device(len(STRATEGIES))
    share_cores(len(ARCHITECTURE.value))
    dataset = load_data("fashion_mnist_sample")
    tables = []
    for batch in batches:
        candidates: dict[str, Candidate] = {
            name: functools.partial(step, strategy, batch, dataset) for name, strategy in STRATEGIES.items()
        }
        outcomes = interleaved(candidates, ROUNDS.value)
        rows = timing_rows(outcomes, batch)
        for row, outcome in zip(rows, outcomes.values(), strict=True):
            row["/ one device"] = ratio(outcome, outcomes["one device"])
        tables.append(Table(f"Batch {batch}", rows))
    about = f"{ABOUT} The members are {', '.join(ARCHITECTURE.value)}."
    publish("scaling", "Scaling", about, [*tables, ceiling(ROUNDS.value)])


def step(strategy_name: str, batch: int, dataset: Dataset) -> Run:
    """A step of a run under a strategy."""
    nce = NCE()
    config = TrainingConfig(
        dataset="fashion_mnist_sample",
        architecture=tuple(ARCHITECTURE.value),
        regularizer="nce",
        lambda_cos=nce.lambda_cos,
        lambda_norm=nce.lambda_norm,
        epochs=1,
        noise_eps=0.3,
        batch_size=batch,
    )
    strategy = make_strategy(strategy_name)
    with strategy.scope():
        ensemble = build_ensemble(config.architecture, (28, 28, 1), seed=0)
        ensemble.compile(keras.optimizers.Adam(config.learning_rate), nce)
        ensemble.optimizer.build(ensemble.trainable_variables)
    steps = TrainingSteps(ensemble, config, dataset, strategy)
    images = tf.constant(dataset.train.images[:batch] / 255, tf.float32)
    labels = tf.constant(dataset.train.labels[:batch])
    return functools.partial(steps.take, images, labels, config.learning_rate)


if __name__ == "__main__":
    program.run(main)
