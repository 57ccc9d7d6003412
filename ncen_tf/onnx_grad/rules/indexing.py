"""Operators that move, join, cut, pad and pick entries without changing them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule


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
    element_type = g.facts.element_type(node.inputs[0])
    # The gradient of an image of integers is that of the floats they are cast to.
    return [g.op("Cast", dy, to=element_type) if g.facts.is_float(node.inputs[0]) else dy]


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
    x, y = node.inputs[0], node.outputs[0]
    shape = list(g.shape(x))
    given = [g.facts.integers(name) if name else None for name in node.inputs[1:]]
    if any(name and value is None for name, value in zip(node.inputs[1:], given, strict=True)):
        raise node.unsupported("has bounds that are only known when the model runs")
    starts, ends, axes, steps = ([] if value is None else value for value in [*given, None, None][:4])
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    sizes, spread = list(g.shape(y)), [1] * len(shape)
    before, after = [0] * len(shape), [0] * len(shape)
    cut = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = (axis or 0) % len(shape)
        size = shape[axis]
        if all(a[axis] == b[axis] for a, b in zip(g.facts.shapes(x), g.facts.shapes(y), strict=True)):
            if step != 1 and step != -1:
                raise node.unsupported("has bounds that vary with the batch")
            dy = g.reverse(dy, axis) if step == -1 else dy
            continue
        if size is None and start is not None and start >= 0 and step == 1:
            before[axis] = start
            cut.append(axis)
            continue
        if size is None or start is None or end is None or step is None:
            raise node.unsupported("has bounds that vary with the batch")
        taken = range(size)[slice(start, end, step)]
        if step < 0:
            dy, taken = g.reverse(dy, axis), taken[::-1]
        spread[axis] = taken.step
        before[axis] = taken.start
        after[axis] = size - taken.start - len(taken) * taken.step
    spaced = g.interleave_zeros(dy, tuple(sizes), spread, g.dtype(x))
    if not cut:
        return [g.pad(spaced, before, after)]
    # Part of the batch: the rest is as large as what the output lacks.
    lacking = g.op("Sub", g.op("Sub", g.op("Shape", x), g.op("Shape", y)), g.integers(before))
    mask = g.integers([int(axis in cut) for axis in range(len(shape))])
    behind = g.op("Add", g.op("Mul", lacking, mask), g.integers(after))
    return [g.op("Pad", spaced, g.op("Concat", g.integers(before), behind, axis=0))]


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
            dy = g.scatter_along(dy, source, axis, len(shape), size, x)
    return [dy]


@rule("ScatterElements", "ScatterND", inputs=(0, 2))
def scatter(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Entries of the data that are replaced get no gradient; where entries tie, they share it equally."""
    data, indices, updates = node.inputs
    axis = {"axis": node.attributes.get("axis", 0)} if node.op_type == "ScatterElements" else {}

    def at_indices(tensor: str) -> str:
        return g.op("GatherElements" if axis else "GatherND", tensor, indices, **axis)

    def scattered(base: str, values: str, reduction: str) -> str:
        return g.op(node.op_type, base, indices, values, reduction=reduction, **axis)

    reduction = node.attributes.get("reduction", b"none")
    if reduction == b"none":
        ddata = g.op(node.op_type, dy, indices, g.zeros(updates), **axis) if node.active[0] else None
        return [ddata, None, at_indices(dy) if node.active[2] else None]
    if reduction == b"add":
        return [dy, None, at_indices(dy) if node.active[2] else None]
    if reduction == b"mul":
        return _scatter_product(g, node, dy, at_indices, scattered)
    here, there = (
        g.op("Cast", g.op("Equal", part, y), to=g.facts.element_type(data))
        for part, y in ((data, node.outputs[0]), (updates, at_indices(node.outputs[0])))
    )
    share = g.op("Div", dy, scattered(here, there, "add"))
    return [g.op("Mul", share, here), None, g.op("Mul", at_indices(share), there)]


def _scatter_product(
    g: GraphBuilder,
    node: Node,
    dy: str,
    at_indices: Callable[[str], str],
    scattered: Callable[[str, str, str], str],
) -> Sequence[str | None]:
    """The product of the other entries that meet in one place, which is 0 if one of them is 0."""
    data, _, updates = node.inputs
    zero, one = g.like(0.0, data), g.like(1.0, data)
    are_zero = [g.op("Equal", part, zero) for part in (data, updates)]
    counted = [g.op("Where", condition, one, zero) for condition in are_zero]
    safe = [
        g.op("Where", condition, one, part) for condition, part in zip(are_zero, (data, updates), strict=True)
    ]
    zeros = scattered(counted[0], counted[1], "add")
    product = g.op("Mul", dy, scattered(safe[0], safe[1], "mul"))

    def gradient(number: int, zeros: str, product: str) -> str:
        others = g.op("Equal", zeros, counted[number])  # all zeros are this entry's
        return g.op("Where", others, g.op("Div", product, safe[number]), zero)

    return [gradient(0, zeros, product), None, gradient(1, at_indices(zeros), at_indices(product))]


@rule("TopK")
def top_k(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The gradient goes to the entries that the runtime chose."""
    if len(node.proto.output) == 1 or not node.proto.output[1]:
        node.proto.output[1:] = [g.fresh(f"{node.outputs[0]}_indices")]
    x, indices = node.inputs[0], node.proto.output[1]
    return [g.op("ScatterElements", g.zeros(x), indices, dy, axis=node.attributes.get("axis", -1))]


@rule("Tile")
def tile(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x = node.inputs[0]
    repeats = g.facts.integers(node.inputs[1])
    if repeats is None:
        raise node.unsupported("has repeats that are only known when the model runs")
    shape: list[int | None] = []
    summed = []
    for size, count in zip(g.shape(x), repeats, strict=True):
        if count != 1:
            summed.append(len(shape))
            shape.append(count)
        shape.append(size)
    return [g.reshape_like(g.reduce_sum(g.reshape(dy, tuple(shape)), summed), x)] if summed else [dy]


@rule("DepthToSpace")
def depth_to_space(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, block = node.inputs[0], node.attributes["blocksize"]
    if node.attributes.get("mode", b"DCR") == b"DCR":
        return [g.op("SpaceToDepth", dy, blocksize=block)]
    _, channels, rows, columns = g.shape(x)
    if channels is None:
        raise node.unsupported("has an unknown number of channels")
    split = g.reshape(dy, (None, channels // block**2, rows, block, columns, block))
    return [g.reshape_like(g.op("Transpose", split, perm=[0, 1, 3, 5, 2, 4]), x)]


@rule("SpaceToDepth")
def space_to_depth(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("DepthToSpace", dy, blocksize=node.attributes["blocksize"])]


@rule("Trilu")
def trilu(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Trilu", dy, *node.inputs[1:], upper=node.attributes.get("upper", 1))]


@rule("CumSum")
def cum_sum(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    a = node.attributes
    reverse = 1 - a.get("reverse", 0)
    return [g.op("CumSum", dy, node.inputs[1], exclusive=a.get("exclusive", 0), reverse=reverse)]
