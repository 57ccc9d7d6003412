"""Measure a training step with and without NCE, beside the same step in PyTorch.

python -m benchmarks.training_step --out=docs/benchmarks/training_step.json

On processors without AVX-512, set TF_ENABLE_ONEDNN_OPTS=1, as ncen_tf.train does by itself.
"""

import functools
from collections.abc import Mapping
from typing import Annotated, Literal

import keras
import tensorflow as tf
from pydantic import Field

from benchmarks.ceiling import ceiling
from benchmarks.results import BenchmarkFlags, Row, Table, publish, timing_rows
from benchmarks.timing import Candidate, Outcome, Run, Timing, interleaved, ratio
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data.loading import load_data
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.ensembles.resnet import build_resnet
from ncen_tf.train.devices import share_cores

LOSSES = {"CE": None, "NCE": NCE()}
PASSES = {"CE": 3, "NCE": 6}
"""Operations of a step, in forward passes: the second differentiation doubles them."""
ABOUT = """The step of ncen_tf is `Ensemble.train_step` in a `tf.function`, as `fit` and `ncen_tf.train`
call it. The step of PyTorch is eager and organised as the paper's released code is: a forward pass for each
member, `autograd.grad` of its cross-entropy with `create_graph=True`, one backward pass, one Adam for each
member; bfloat16 is autocast. Both have the same architecture and number of parameters, and were checked
before the timing to give the same cross-entropy and NCE terms with the same weights. GFLOP/s counts the
convolutions: those of 3 forward passes for a step on CE, of 6 for NCE. Cores are shared out as
`ncen_tf.train` does it for the smallest number of members k."""

Batch = tuple[tf.Tensor, tf.Tensor]
Key = tuple[str, int, str, str]
"""Precision, number of members, side, loss."""


class TrainingStepFlags(BenchmarkFlags):
    """Flags of the program."""

    members: tuple[Annotated[int, Field(ge=2)], ...] = Field((3, 5), description="Numbers of members")
    depth: int = Field(20, ge=8, description="Depth of the ResNet of each member")
    batch_size: int = Field(64, ge=2, description="Number of images in a step")
    precisions: tuple[Literal["float32", "mixed_bfloat16"], ...] = Field(
        ("float32", "mixed_bfloat16"), description="Precisions of the forward passes"
    )


def main(flags: TrainingStepFlags) -> None:
    members = flags.members
    share_cores(min(members))
    train = load_data("fashion_mnist_sample").train[: flags.batch_size]
    batch = tf.constant(train.float_images()), tf.constant(train.labels)
    _check(flags, batch)
    candidates: dict[Key, Candidate] = {
        (precision, count, side, loss): functools.partial(make, flags, precision, count, loss, batch)
        for precision in flags.precisions
        for count in members
        for loss in LOSSES
        for side, make in (("ncen_tf", tensorflow_step), ("PyTorch", torch_step))
    }
    outcomes = interleaved(candidates, flags.rounds)
    tables = [step_table(flags, outcomes, p, count) for p in flags.precisions for count in members]
    tables += [ratio_table(flags, outcomes), ceiling(flags)]
    title = f"Training step, ResNet{flags.depth}, k = {', '.join(map(str, members))}"
    publish("training_step", title, ABOUT, tables, flags)


def _check(flags: TrainingStepFlags, batch: Batch) -> None:
    try:
        from benchmarks.peers.torch_training import check_agreement
    except ImportError as error:
        raise InputError(f"One side is missing ({error}): pip install ncen-tf[bench].") from error
    for count in flags.members:
        check_agreement(build_members(flags, count), *(tensor.numpy() for tensor in batch))


def build_members(flags: TrainingStepFlags, count: int) -> list[keras.Model]:
    """Build new members with different weights."""
    return [build_resnet(flags.depth, (28, 28, 1), seed=seed) for seed in range(count)]


def tensorflow_step(flags: TrainingStepFlags, precision: str, count: int, loss: str, batch: Batch) -> Run:
    """Make the step of this package."""
    keras.config.set_dtype_policy(precision)
    ensemble = Ensemble(build_members(flags, count))
    ensemble.compile(keras.optimizers.Adam(1e-3), LOSSES[loss])
    keras.config.set_dtype_policy("float32")
    return functools.partial(tf.function(ensemble.train_step), batch)


def torch_step(flags: TrainingStepFlags, precision: str, count: int, loss: str, batch: Batch) -> Run:
    """Make the step of PyTorch."""
    from benchmarks.peers.torch_resnet import copy_member, nchw, to_torch, torch_device
    from benchmarks.peers.torch_training import TorchTraining

    copies = [copy_member(member).to(torch_device()) for member in build_members(flags, count)]
    training = TorchTraining(copies, LOSSES[loss], bfloat16=precision == "mixed_bfloat16")
    images, labels = (tensor.numpy() for tensor in batch)
    return functools.partial(training.step, nchw(images), to_torch(labels))


def forward_gflop(flags: TrainingStepFlags) -> float:
    """Count the operations of the convolutions of one member for one image."""
    (member,) = build_members(flags, 1)
    layers = [layer for layer in member.layers if isinstance(layer, keras.layers.Conv2D)]
    return sum(
        2e-9 * layer.kernel.shape.num_elements() * layer.output.shape[1] * layer.output.shape[2]
        for layer in layers
    )


def step_table(
    flags: TrainingStepFlags, outcomes: Mapping[Key, Outcome], precision: str, count: int
) -> Table:
    """Make the table of all sides at one precision and number of members."""
    chosen = {key[2:]: outcome for key, outcome in outcomes.items() if key[:2] == (precision, count)}
    rows = timing_rows({", ".join(key): outcome for key, outcome in chosen.items()}, flags.batch_size)
    gflop = forward_gflop(flags) * count * flags.batch_size
    for row, ((_, loss), outcome) in zip(rows, chosen.items(), strict=True):
        row["GFLOP/s"] = PASSES[loss] * gflop / outcome.median if isinstance(outcome, Timing) else None
    return Table(f"{count} x ResNet{flags.depth}, batch {flags.batch_size}, {precision}", rows)


def ratio_table(flags: TrainingStepFlags, outcomes: Mapping[Key, Outcome]) -> Table:
    """Make the table of the cost of NCE, of the sides, and of the growth with the members."""
    rows: list[Row] = []
    members = flags.members
    for precision in flags.precisions:
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
    program.run(TrainingStepFlags, main)
