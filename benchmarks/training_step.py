"""A training step with and without NCE, beside the same step in PyTorch.

python -m benchmarks.training_step --out=docs/benchmarks/training_step.json
"""

import functools
from collections.abc import Mapping

import keras
import tensorflow as tf
from absl import flags

from benchmarks.ceiling import ceiling
from benchmarks.report import ROUNDS, publish, whole_numbers
from benchmarks.table import Row, Table, timing_rows
from benchmarks.timing import Candidate, Outcome, Run, Timing, interleaved, ratio
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import load_data
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.ensembles.resnet import build_resnet
from ncen_tf.train.strategy import share_cores

MEMBERS = flags.DEFINE_list("members", ["1", "3", "5"], "numbers of members")
DEPTH = flags.DEFINE_integer("depth", 20, "of each member's ResNet")
BATCH = flags.DEFINE_integer("batch_size", 64, "images a step", lower_bound=2)
PRECISIONS = flags.DEFINE_multi_enum(
    "precision", ["float32", "mixed_bfloat16"], ["float32", "mixed_bfloat16"], "of the forward passes"
)

LOSSES = {"CE": None, "NCE": NCE()}
PASSES = {"CE": 3, "NCE": 6}
"""Work of a step in forward passes, by operation count: the second differentiation doubles it."""
ABOUT = """Ours is `Ensemble.train_step` in a `tf.function`, as `fit` and `ncen_tf.train` call it.
PyTorch's is eager and organised as the paper's released code is: a forward pass for each member,
`autograd.grad` of its cross-entropy with `create_graph=True`, one backward pass, one Adam for each member;
bfloat16 is autocast. Both have the same architecture and number of parameters, and were checked before the
timing to give the same cross-entropy and NCE terms with the same weights. GFLOP/s counts the convolutions:
3 forward passes' worth for a step on CE, 6 for NCE. NCE of a single member is zero; its row is there for
its cost. Cores are shared out as `ncen_tf.train` does it for the smallest number of members k."""

Batch = tuple[tf.Tensor, tf.Tensor]
Key = tuple[str, int, str, str]
"""Precision, number of members, side, loss."""


def main() -> None:
    members = whole_numbers(MEMBERS)
    share_cores(min(members))
    batch = _batch()
    _check(members, batch)
    candidates: dict[Key, Candidate] = {
        (precision, count, side, loss): functools.partial(make, precision, count, loss, batch)
        for precision in PRECISIONS.value
        for count in members
        for loss in LOSSES
        for side, make in (("ncen_tf", tensorflow_step), ("PyTorch", torch_step))
    }
    outcomes = interleaved(candidates, ROUNDS.value)
    tables = [step_table(outcomes, p, count) for p in PRECISIONS.value for count in members]
    tables += [ratio_table(outcomes, members), ceiling(ROUNDS.value)]
    title = f"Training step, k = {', '.join(map(str, members))}, cores shared out for k = {min(members)}"
    publish("training_step", title, ABOUT, tables)


def _batch() -> Batch:
    """Images and labels of the embedded sample."""
    train = load_data("fashion_mnist_sample").train
    images = tf.constant(train.images[: BATCH.value] / 255, tf.float32)
    return images, tf.constant(train.labels[: BATCH.value])


def _check(members: list[int], batch: Batch) -> None:
    try:
        from benchmarks.peers.agreement import check_agreement
    except ImportError as error:
        raise InputError(f"One side is missing ({error}): pip install ncen-tf[bench].") from error
    for count in members:
        check_agreement(build_members(count), *(tensor.numpy() for tensor in batch))


def build_members(count: int) -> list[keras.Model]:
    """Fresh members, which differ."""
    return [build_resnet(DEPTH.value, (28, 28, 1), seed=seed) for seed in range(count)]


def tensorflow_step(precision: str, count: int, loss: str, batch: Batch) -> Run:
    """Our step."""
    keras.config.set_dtype_policy(precision)
    ensemble = Ensemble(build_members(count))
    ensemble.compile(keras.optimizers.Adam(1e-3), LOSSES[loss])
    keras.config.set_dtype_policy("float32")
    return functools.partial(tf.function(ensemble.train_step), batch)


def torch_step(precision: str, count: int, loss: str, batch: Batch) -> Run:
    """PyTorch's."""
    from benchmarks.peers.devices import nchw, to_torch, torch_device
    from benchmarks.peers.torch_resnet import copy_member
    from benchmarks.peers.torch_training import TorchTraining

    copies = [copy_member(member).to(torch_device()) for member in build_members(count)]
    training = TorchTraining(copies, LOSSES[loss], bfloat16=precision == "mixed_bfloat16")
    images, labels = (tensor.numpy() for tensor in batch)
    return functools.partial(training.step, nchw(images), to_torch(labels))


def forward_gflop() -> float:
    """Of one image through one member's convolutions."""
    (member,) = build_members(1)
    layers = [layer for layer in member.layers if isinstance(layer, keras.layers.Conv2D)]
    return sum(
        2e-9 * layer.kernel.shape.num_elements() * layer.output.shape[1] * layer.output.shape[2]
        for layer in layers
    )


def step_table(outcomes: Mapping[Key, Outcome], precision: str, count: int) -> Table:
    """All sides at one precision and number of members."""
    chosen = {key[2:]: outcome for key, outcome in outcomes.items() if key[:2] == (precision, count)}
    rows = timing_rows({", ".join(key): outcome for key, outcome in chosen.items()}, BATCH.value)
    gflop = forward_gflop() * count * BATCH.value
    for row, ((_, loss), outcome) in zip(rows, chosen.items(), strict=True):
        row["GFLOP/s"] = PASSES[loss] * gflop / outcome.median if isinstance(outcome, Timing) else None
    return Table(f"{count} x ResNet{DEPTH.value}, batch {BATCH.value}, {precision}", rows)


def ratio_table(outcomes: Mapping[Key, Outcome], members: list[int]) -> Table:
    """What NCE costs, how the sides compare, and whether cost is linear in the members."""
    rows: list[Row] = []
    for precision in PRECISIONS.value:
        for k in members:
            of = {key[2:]: outcome for key, outcome in outcomes.items() if key[:2] == (precision, k)}
            row: Row = {"": f"{precision}, k = {k}"}
            for side in ("ncen_tf", "PyTorch"):
                row[f"NCE / CE, {side}"] = ratio(of[side, "NCE"], of[side, "CE"])
            for loss in LOSSES:
                row[f"PyTorch / ncen_tf, {loss}"] = ratio(of["PyTorch", loss], of["ncen_tf", loss])
            growth = ratio(of["ncen_tf", "NCE"], outcomes[precision, members[0], "ncen_tf", "NCE"])
            row[f"ncen_tf NCE, a member's cost / k = {members[0]}"] = growth and growth * members[0] / k
            rows.append(row)
    return Table("Ratios of medians", rows)


if __name__ == "__main__":
    program.run(main)
