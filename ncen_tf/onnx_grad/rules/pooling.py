"""Average and maximum over sliding windows."""

import math
from collections.abc import Sequence
from functools import reduce
from itertools import product

import numpy as np

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule
from ncen_tf.onnx_grad.rules.window import Window, transposed, window

_LARGEST_TABLE = 2**24  # entries


@rule("AveragePool")
def average_pool(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Every entry of a window gets its cotangent divided by the number of entries averaged."""
    x = node.inputs[0]
    w = window(g, node, tuple(node.attributes["kernel_shape"]), x, node.outputs[0])
    with_padding = bool(node.attributes.get("count_include_pad", 0))
    counts = []
    for axis, size in enumerate(w.inputs):
        low = -w.before[axis] if with_padding else 0
        high = size + (w.after[axis] if with_padding else 0)
        reads = w.reads(axis)
        counts.append(((reads >= low) & (reads < high)).sum(axis=1))
    count = reduce(np.multiply.outer, counts)
    weight = 1 / (count.flat[0] if (count == count.flat[0]).all() else count)
    share = g.op("Mul", dy, g.like(weight, x))
    ones = np.ones((1, 1, *w.kernel), g.dtype(x))
    dx = transposed(g, g.reshape(share, (None, 1, *w.outputs)), ones, w)
    return [g.reshape_like(dx, x)]


@rule("MaxPool")
def max_pool(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The gradient goes to the entry the runtime picked, at ties the first in row-major order.

    The forward node is made to output its indices.
    """
    x = node.inputs[0]
    w = window(g, node, tuple(node.attributes["kernel_shape"]), x, node.outputs[0])
    if node.attributes.get("storage_order", 0):
        raise node.unsupported("numbers its indices by column")
    if len(node.outputs) == 1:
        node.proto.output.append(g.fresh(f"{node.outputs[0]}_indices"))
    indices = node.proto.output[1]
    if w.disjoint:
        shape = g.op("Shape", x)
        return [g.op("MaxUnpool", dy, indices, shape, kernel_shape=w.kernel, strides=w.strides)]
    return [g.reshape_like(_scatter_windows(g, dy, indices, w, x), x)]


def _scatter_windows(g: GraphBuilder, dy: str, indices: str, w: Window, x: str) -> str:
    """Overlapping windows: one channel per position in the window, then a transposed convolution."""
    count = math.prod(w.kernel)
    if count * max(count, math.prod(w.outputs)) > _LARGEST_TABLE:
        raise ValueError(
            f"the windows of {count} entries of a MaxPool overlap: its gradient would be too large"
        )
    taps = list(product(*map(range, w.kernel)))
    reads = [w.reads(axis) for axis in range(len(w.kernel))]
    positions = np.stack(
        [_flat([r[:, k] for r, k in zip(reads, tap, strict=True)], w.inputs) for tap in taps]
    )
    within = g.op("Mod", indices, g.integers([int(np.prod(w.inputs))]))
    hits = g.op("Equal", g.reshape(within, (None, 1, *w.outputs)), g.constant(positions[None]))
    spread = g.op("Where", hits, g.reshape(dy, (None, 1, *w.outputs)), g.like(0.0, x))
    one_hot = np.eye(len(taps), dtype=g.dtype(x)).reshape(len(taps), 1, *w.kernel)
    return transposed(g, spread, one_hot, w)


def _flat(positions: list[np.ndarray], sizes: tuple[int, ...]) -> np.ndarray:
    """Row-major index of every combination of positions along the axes, -1 outside."""
    grid = np.meshgrid(*positions, indexing="ij")
    inside = np.logical_and.reduce([(p >= 0) & (p < n) for p, n in zip(grid, sizes, strict=True)])
    clipped = [np.clip(p, 0, n - 1) for p, n in zip(grid, sizes, strict=True)]
    return np.where(inside, np.ravel_multi_index(clipped, sizes), -1)
