"""Pools, and Col2Im, which adds up windows."""

import math
from collections.abc import Sequence
from functools import reduce
from itertools import product

import numpy as np

from ncen_tf.onnx_grad.builder import LARGEST_TABLE, GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule
from ncen_tf.onnx_grad.rules.windows import Window, transposed, window


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
    """The gradient goes to the entry that the runtime chose: at ties the first in row-major order.

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
    """Handle overlapping windows: one channel per position in the window, then a transposed convolution."""
    count = math.prod(w.kernel)
    if count * max(count, math.prod(w.outputs)) > LARGEST_TABLE:
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
    """Return the row-major index of every combination of positions along the axes, -1 outside."""
    grid = np.meshgrid(*positions, indexing="ij")
    inside = np.logical_and.reduce([(p >= 0) & (p < n) for p, n in zip(grid, sizes, strict=True)])
    clipped = [np.clip(p, 0, n - 1) for p, n in zip(grid, sizes, strict=True)]
    return np.where(inside, np.ravel_multi_index(clipped, sizes), -1)


@rule("Col2Im")
def col_to_im(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Each entry of a column receives the cotangent of the pixel that it was added to."""
    sizes, kernel = (g.facts.integers(name) for name in node.inputs[1:3])
    if sizes is None or kernel is None or None in sizes or None in kernel:
        raise node.unsupported("has a size of image or block that is only known when the model runs")
    block = [size or 0 for size in kernel]
    rank = len(block)
    same = {k: node.attributes[k] for k in ("dilations", "pads", "strides") if k in node.attributes}
    count = math.prod(block)
    taps = np.eye(count, dtype=g.dtype(node.inputs[0])).reshape(count, 1, *block)
    image = g.reshape(dy, (None, 1, *sizes))
    if rank > 3:
        raise node.unsupported(f"joins blocks of {rank} axes")
    return [g.reshape_like(g.op("Conv", image, g.constant(taps), **same), node.inputs[0])]
