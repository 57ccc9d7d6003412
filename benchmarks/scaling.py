"""Measure training at growing batches, on one device and on two virtual ones.

python -m benchmarks.scaling --out=docs/benchmarks/scaling.json
"""

import functools
from typing import Annotated

import keras
import tensorflow as tf
from pydantic import Field

from benchmarks.ceiling import ceiling
from benchmarks.results import BenchmarkFlags, Table, publish, timing_rows
from benchmarks.timing import Candidate, Run, interleaved
from ncen_tf import program
from ncen_tf.data.dataset import Split
from ncen_tf.data.loading import load_data
from ncen_tf.ensembles.ensemble import build_ensemble
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.train.devices import make_strategy, share_cores, split_device

STRATEGIES = {"one device": "one_device", "two virtual devices": "mirrored"}
ABOUT = """A training step of `Ensemble` with NCE, float32, at each global batch: on one device, and by
MirroredStrategy on two, into which the CPU (or the first GPU) is split. Virtual devices share the cores of
one machine: the table shows their cost, not what a second machine would bring."""


class ScalingFlags(BenchmarkFlags):
    """Flags of the program."""

    architecture: tuple[str, ...] = Field(("resnet20",) * 3, description="Architecture of each member")
    batches: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (64, 128, 256, 512, 1024), description="Numbers of images per step, over all devices"
    )


def main(flags: ScalingFlags) -> None:
    split_device(len(STRATEGIES))
    share_cores(len(flags.architecture))
    split = load_data("fashion_mnist_sample").train
    tables = []
    for batch in flags.batches:
        candidates: dict[str, Candidate] = {
            name: functools.partial(step, flags, strategy, split[:batch])
            for name, strategy in STRATEGIES.items()
        }
        rows = timing_rows(interleaved(candidates, flags.rounds), batch, relative_to="one device")
        tables.append(Table(f"Batch {batch}", rows))
    about = f"{ABOUT} The members are {', '.join(flags.architecture)}."
    publish("scaling", "Scaling", about, [*tables, ceiling(flags)], flags)


def step(flags: ScalingFlags, strategy_name: str, batch: Split) -> Run:
    """Make a training step under a strategy, whose replicas share the batch."""
    strategy = make_strategy(strategy_name)
    with strategy.scope():
        ensemble = build_ensemble(flags.architecture, (28, 28, 1), 10, seed=0)
        ensemble.compile(keras.optimizers.Adam(1e-3), NCE())
        ensemble.optimizer.build(ensemble.trainable_variables)
    replicas = strategy.num_replicas_in_sync
    images, labels = tf.constant(batch.float_images()), tf.constant(batch.labels)

    @tf.function
    def take() -> None:
        def replica_step() -> None:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            share = slice(replica * len(batch) // replicas, (replica + 1) * len(batch) // replicas)
            ensemble.train_step((images[share], labels[share]))

        strategy.run(replica_step)

    return take


if __name__ == "__main__":
    program.run(ScalingFlags, main)
