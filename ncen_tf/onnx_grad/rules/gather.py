"""Operators that pick entries by indices: the gradient adds up what repeated indices received.

From opset 16 on, ScatterElements and ScatterND add. Before, and where the indices are constant, the sum is a
product with a matrix of 0 and 1.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx

from ncen_tf.onnx_grad.builder import LARGEST_TABLE, GraphBuilder
from ncen_tf.onnx_grad.facts import Shape
from ncen_tf.onnx_grad.registry import Node, rule


@rule("Gather")
def gather(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, indices = node.inputs[0], g.facts.constant(node.inputs[1])
    shape = g.shape(x)
    axis = node.attributes.get("axis", 0) % len(shape)
    size = shape[axis]
    if indices is None or size is None or size * max(size, indices.size) > LARGEST_TABLE:
        return [_gather_at_run_time(g, node, dy, axis)]
    flat = indices.reshape(-1)
    if indices.ndim != 1:
        dy = g.reshape(dy, (*shape[:axis], flat.size, *shape[axis + 1 :]))
    if flat.size == 1:
        before, after = [0] * len(shape), [0] * len(shape)
        before[axis] = int(flat[0]) % size
        after[axis] = size - 1 - before[axis]
        return [g.pad(dy, before, after)]
    return [g.scatter_along(dy, flat, axis, len(shape), size, x)]


def _gather_at_run_time(g: GraphBuilder, node: Node, dy: str, axis: int) -> str:
    """Add the rows of the cotangent to the rows of x that the indices name when the model runs."""
    x, picked = node.inputs[0], len(g.shape(node.inputs[1]))
    rank = len(g.shape(x))
    indices = g.op("Cast", g.op("Reshape", node.inputs[1], g.integers([-1])), to=onnx.TensorProto.INT64)
    # The axes of the indices go first, and become one.
    order = [*range(axis, axis + picked), *range(axis), *range(axis + picked, rank - 1 + picked)]
    rows = g.op("Transpose", dy, perm=order) if axis else dy
    moved = [axis, *range(axis), *range(axis + 1, rank)]
    shape = g.op("Gather", g.op("Shape", x), g.integers(moved))
    if g.opset < 16:
        _refuse_large(g, node, g.facts.shapes(x)[0][axis] * math.prod(g.facts.shapes(node.inputs[1])[0]))
        flat = g.op("Reshape", rows, g.op("Concat", g.op("Shape", indices), g.integers([-1]), axis=0))
        total = g.op("MatMul", _one_hot(g, indices, _size(g, x, axis), x, axis=0), flat)
        total = g.op("Reshape", total, shape)
    else:
        rest = g.op("Slice", shape, g.integers([1]), g.integers([rank]))
        rows = g.op("Reshape", rows, g.op("Concat", g.op("Shape", indices), rest, axis=0))
        base = g.op("Transpose", g.zeros(x), perm=moved) if axis else g.zeros(x)
        total = g.scatter_add(base, g.unsqueeze(indices, 1), rows)
    return g.op("Transpose", total, perm=[moved.index(i) for i in range(rank)]) if axis else total


@rule("GatherElements")
def gather_elements(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, indices = node.inputs
    rank = len(g.shape(x))
    axis = node.attributes.get("axis", 0) % rank
    if g.opset >= 16:
        return [g.op("ScatterElements", g.zeros(x), indices, dy, axis=axis, reduction="add")]
    _refuse_large(g, node, math.prod(g.facts.shapes(indices)[0]) * g.facts.shapes(x)[0][axis])
    chosen = _one_hot(g, indices, _size(g, x, axis), x, axis=-1)
    spread = g.op("Mul", g.unsqueeze(dy, -1), chosen)
    total = g.reduce_sum(spread, [axis], keepdims=False)
    if axis < rank - 1:
        total = g.op("Transpose", total, perm=[*range(axis), rank - 1, *range(axis, rank - 1)])
    # The indices may leave out the last entries of the other axes.
    lacking = g.op("Sub", g.op("Shape", x), g.op("Shape", total))
    return [g.op("Pad", total, g.op("Concat", g.integers([0] * rank), lacking, axis=0))]


@rule("GatherND")
def gather_nd(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, indices = node.inputs
    batch = node.attributes.get("batch_dims", 0)
    if not batch and g.opset >= 16:
        return [g.scatter_add(g.zeros(x), indices, dy)]
    shape = g.shape(x)
    depth = g.shape(indices)[-1] or 0
    inner, rest = shape[batch : batch + depth], shape[batch + depth :]
    picked = math.prod(g.facts.shapes(indices)[0][batch:-1])
    _refuse_large(g, node, math.prod(g.facts.shapes(x)[0][batch : batch + depth]) * picked)
    count, row = _static(node, inner[1:]), _static(node, rest)
    if batch:
        _static(node, inner[:1])
    # One number for each tuple of indices, and one axis for the axes that they pick from.
    sizes = g.op("Slice", g.op("Shape", x), g.integers([batch]), g.integers([batch + depth]))
    strides = [count // math.prod([s or 1 for s in inner[1 : i + 1]]) for i in range(depth)]
    zero = g.integers([0])
    wrapped = g.op("Where", g.op("Less", indices, zero), g.op("Add", indices, sizes), indices)
    number = g.reduce_sum(g.op("Mul", wrapped, g.integers(strides)), [len(g.shape(indices)) - 1], False)
    entries = g.op("Reshape", g.reduce("ReduceProd", sizes, [0]), g.integers([]))
    if not batch:
        flat = g.op("Reshape", dy, g.integers([-1, row]))
        chosen = _one_hot(g, g.op("Reshape", number, g.integers([-1])), entries, x, axis=0)
    else:
        flat = g.op("Reshape", dy, g.integers([-1, picked, row]))
        chosen = _one_hot(g, g.op("Reshape", number, g.integers([-1, picked])), entries, x, axis=1)
    return [g.op("Reshape", g.op("MatMul", chosen, flat), g.op("Shape", x))]


def _static(node: Node, sizes: Shape) -> int:
    if None in sizes:
        raise node.unsupported("picks from axes that vary with the batch")
    return math.prod(size or 0 for size in sizes)


def _size(g: GraphBuilder, tensor: str, axis: int) -> str:
    """Return the size of an axis of a forward tensor when the model runs, a scalar."""
    return g.op("Gather", g.op("Shape", tensor), g.constant(np.array(axis, np.int64)))


def _one_hot(g: GraphBuilder, indices: str, depth: str, like: str, axis: int) -> str:
    """Insert an axis of size `depth` that is 1 at the index, else 0."""
    chosen = g.op("OneHot", indices, depth, g.constant(np.array([0, 1], np.float32)), axis=axis)
    target = g.facts.element_type(like)
    return chosen if target == onnx.TensorProto.FLOAT else g.op("Cast", chosen, to=target)


def _refuse_large(g: GraphBuilder, node: Node, entries: int) -> None:
    if entries > LARGEST_TABLE:
        raise node.unsupported(f"picks by a table of {entries:,} entries, where opset 16 needs none")
