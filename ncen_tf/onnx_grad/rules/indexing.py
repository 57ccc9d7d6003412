"""Operators that move, join, cut, pad and pick entries without changing them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule

_LARGEST_TABLE = 2**24  # entries
_UNBOUNDED = 10**9  # tf2onnx writes this as the end of an axis; other exporters write larger numbers


@rule("Identity")
def identity(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [dy]


@rule("Dropout")
def dropout(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The identity, in inference mode."""
    if node.input(2):
        training = g.facts.constant(node.input(2))
        if training is None or training.any():
            raise node.unsupported("is, or may be, in training mode")
    return [dy]


@rule("Cast")
def cast(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Cast", dy, to=g.facts.element_type(node.inputs[0]))]


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.reshape_like(dy, node.inputs[0])]


@rule("Transpose")
def transpose(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """A reshape where only axes of size 1 move, as from NHWC to NCHW with one channel."""
    shape = g.shape(node.inputs[0])
    order = list(node.attributes.get("perm", reversed(range(len(shape)))))
    moved = [axis for axis in order if shape[axis] != 1]
    if moved == sorted(moved):
        return [g.reshape_like(dy, node.inputs[0])]
    return [g.op("Transpose", dy, perm=[order.index(axis) for axis in range(len(order))])]


@rule("Expand")
def expand(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.sum_to_input(dy, node.outputs[0], node.inputs[0])]


def _size(g: GraphBuilder, tensor: str, axis: int) -> str:
    """Return the size of one axis of a forward tensor, an int64 vector of length 1."""
    size = g.shape(tensor)[axis]
    if size is not None:
        return g.integers([size])
    return g.slice(g.op("Shape", tensor), g.integers([axis]), g.integers([axis + 1]), 0)


@rule("Concat", inputs=None)
def concat(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    rank = len(g.shape(node.inputs[0]))
    axis = node.attributes["axis"] % rank
    sizes = [g.shape(name)[axis] for name in node.inputs]
    parts: list[str | None] = []
    start, offset = g.integers([0]), 0
    for name, size, active in zip(node.inputs, sizes, node.active, strict=True):
        if None in sizes:
            end = g.op("Add", start, _size(g, name, axis))
        else:
            offset += size or 0
            end = g.integers([offset])
        parts.append(g.slice(dy, start, end, axis) if active else None)
        start = end
    return parts


@rule("Split", every_output=True)
def split(g: GraphBuilder, node: Node, _: str) -> Sequence[str | None]:
    axis = node.attributes.get("axis", 0)
    parts = [
        g.zeros(output) if cotangent is None else cotangent
        for output, cotangent in zip(node.outputs, node.cotangents, strict=True)
    ]
    return [g.op("Concat", *parts, axis=axis)]


@rule("Slice")
def slice_(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Zeros go between (steps) and around (starts, ends) the entries that were taken."""
    shape = list(g.shape(node.inputs[0]))
    given = [g.facts.constant(name) if name else None for name in node.inputs[1:]]
    if any(name and value is None for name, value in zip(node.inputs[1:], given, strict=True)):
        raise node.unsupported("has bounds that are only known when the model runs")
    starts, ends, axes, steps = (
        [] if value is None else value.tolist() for value in [*given, None, None][:4]
    )
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    sizes, spread = list(g.shape(node.outputs[0])), [1] * len(shape)
    before, after = [0] * len(shape), [0] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = shape[axis]
        if size is None:
            if step != 1 or start != 0 or end < _UNBOUNDED:
                raise node.unsupported("cuts the batch")
            continue
        taken = range(size)[slice(start, end, step)]
        if step < 0:
            dy, taken = g.reverse(dy, axis), taken[::-1]
        spread[axis] = taken.step
        before[axis] = taken.start
        after[axis] = size - taken.start - len(taken) * taken.step
    spaced = g.interleave_zeros(dy, tuple(sizes), spread, g.dtype(node.inputs[0]))
    return [g.pad(spaced, before, after)]


@rule("Pad")
def pad(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Constant mode crops; the other modes sum what copies of an entry received."""
    x = node.inputs[0]
    shape = g.shape(x)
    amounts = g.facts.constant(node.inputs[1])
    axes = g.facts.constant(node.input(3)) if node.input(3) else np.arange(len(shape))
    if amounts is None or axes is None:
        raise node.unsupported("has amounts that are only known when the model runs")
    before, after = [0] * len(shape), [0] * len(shape)
    for axis, low, high in zip(axes.tolist(), *amounts.reshape(2, -1).tolist(), strict=True):
        before[axis], after[axis] = low, high
    mode = node.attributes.get("mode", b"constant").decode()
    if mode == "constant":
        return [g.pad(dy, [-low for low in before], [-high for high in after])]
    for axis, (size, low, high) in enumerate(zip(shape, before, after, strict=True)):
        if low or high:
            if size is None or min(low, high) < 0:
                raise node.unsupported(f"crops, or pads the batch, in {mode} mode")
            source: NDArray[Any] = np.pad(np.arange(size), (low, high), mode=mode)
            dy = _scatter(g, dy, source, axis, len(shape), size, x)
    return [dy]


@rule("Gather")
def gather(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, indices = node.inputs[0], g.facts.constant(node.inputs[1])
    shape = g.shape(x)
    axis = node.attributes.get("axis", 0) % len(shape)
    size = shape[axis]
    if indices is None or size is None:
        raise node.unsupported("has indices that are only known when the model runs, or picks from the batch")
    flat = indices.reshape(-1)
    if indices.ndim != 1:
        dy = g.reshape(dy, (*shape[:axis], flat.size, *shape[axis + 1 :]))
    if flat.size == 1:
        before, after = [0] * len(shape), [0] * len(shape)
        before[axis] = int(flat[0]) % size
        after[axis] = size - 1 - before[axis]
        return [g.pad(dy, before, after)]
    return [_scatter(g, dy, flat, axis, len(shape), size, x)]


def _scatter(
    g: GraphBuilder, dy: str, source: NDArray[Any], axis: int, rank: int, size: int, like: str
) -> str:
    """Add entry i of `axis` to entry `source[i]` of an axis of `size`, by a product with a 0/1 matrix."""
    if size * max(size, source.size) > _LARGEST_TABLE:
        raise ValueError(f"picking {source.size} of {size} entries of an axis has too large a gradient")
    one_hot = g.like(np.eye(size)[source], like)
    order = [*range(axis), *range(axis + 1, rank), axis]
    last = g.op("MatMul", g.op("Transpose", dy, perm=order), one_hot)
    return g.op("Transpose", last, perm=[order.index(i) for i in range(rank)])
