"""Convolutions: the geometry of sliding windows, its transpose, and the rules."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule

_LARGEST_WINDOW = 2**20
_LARGEST_MATRIX = 2**22  # entries; beyond, what a matrix product saves is not worth the matrix


@dataclass(frozen=True)
class Window:
    """Sizes along each spatial axis; output o reads inputs o * stride + k * dilation - before."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """Number of positions that a window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def disjoint(self) -> bool:
        """Whether windows neither overlap nor reach into padding."""
        return not any(self.before) and all(
            s >= extent and (o - 1) * s + extent <= i
            for i, o, s, extent in zip(self.inputs, self.outputs, self.strides, self.extents, strict=True)
        )

    def reads(self, axis: int) -> NDArray[np.int64]:
        """Return the input position that each output reads at each kernel position, [outputs, kernel]."""
        o = np.arange(self.outputs[axis]) * self.strides[axis] - self.before[axis]
        return o[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]


def window(g: GraphBuilder, node: Node, kernel: tuple[int, ...], big: str, small: str) -> Window:
    """Return the window of a node that slides over `big` to compute `small`, automatic padding resolved.

    Raises:
        UnsupportedOpError: a spatial size is dynamic, or the window is larger than any image.
    """
    if math.prod(kernel) > _LARGEST_WINDOW:
        raise node.unsupported(f"slides a window of {math.prod(kernel):,} entries")
    inputs, outputs = (tuple(size for size in g.shape(name)[2:] if size is not None) for name in (big, small))
    if not len(inputs) == len(outputs) == len(kernel):
        raise node.unsupported("slides over an image of dynamic height or width")
    rank = len(kernel)
    strides = tuple(node.attributes.get("strides", [1] * rank))
    dilations = tuple(node.attributes.get("dilations", [1] * rank))
    pads = node.attributes.get("pads", [0] * 2 * rank)
    before, after = pads[:rank], pads[rank:]
    mode = node.attributes.get("auto_pad", b"NOTSET")
    if mode != b"NOTSET":
        sizes = zip(inputs, outputs, kernel, strides, dilations, strict=True)
        totals = [
            0 if mode == b"VALID" else max(0, (o - 1) * s + (k - 1) * d + 1 - i) for i, o, k, s, d in sizes
        ]
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        before, after = (more, less) if mode == b"SAME_LOWER" else (less, more)
    return Window(
        kernel,
        strides,
        dilations,
        tuple(before),
        tuple(after),
        inputs,
        outputs,
    )


def transposed(g: GraphBuilder, dy: str, kernel: NDArray[Any] | str, w: Window, group: int = 1) -> str:
    """Apply the transpose of the convolution y = kernel * x to dy [N, M, outputs], giving dx [N, C, inputs].

    Args:
        g: builder.
        dy: cotangent of y.
        kernel: [M, C / group, *w.kernel]: its value, or a tensor's name if only known at run time.
        w: geometry of the forward convolution.
        group: number of groups.

    For stride 1 this is a convolution with the flipped, transposed kernel. For stride s it is s * s such
    convolutions, one for each residue of the position modulo s, which run as one with s * s times the
    channels and are then interleaved (Shi et al., arXiv:1609.05158). ConvTranspose is slow in
    onnxruntime and serves only the other cases.
    """
    if not isinstance(kernel, str):
        strides = set(w.strides)
        if strides == {1}:
            dx = _flipped(g, dy, kernel, w, group)
        elif set(w.kernel) == {1} and not any(w.before):
            dx = _points(g, dy, kernel, w, group)
        elif len(strides) == 1 and len(w.kernel) == 2 and set(w.dilations) == {1}:
            dx = _sub_pixel(g, dy, kernel, w, group)
        else:
            dx = None
        if dx is not None:
            return dx
        kernel = g.constant(kernel)
    covered = [
        (o - 1) * s + extent - b
        for o, s, extent, b in zip(w.outputs, w.strides, w.extents, w.before, strict=True)
    ]
    after = [max(0, c - i) for c, i in zip(covered, w.inputs, strict=True)]
    return g.op(
        "ConvTranspose",
        dy,
        kernel,
        group=group,
        strides=w.strides,
        dilations=w.dilations,
        pads=[*w.before, *after],
        output_padding=[max(0, i - c) for c, i in zip(covered, w.inputs, strict=True)],
    )


def _flipped(g: GraphBuilder, dy: str, kernel: NDArray[Any], w: Window, group: int) -> str | None:
    """Stride 1; None if the padding exceeds the kernel."""
    before = [extent - 1 - b for extent, b in zip(w.extents, w.before, strict=True)]
    after = [
        i - o - b + extent - 1 for i, o, b, extent in zip(w.inputs, w.outputs, before, w.extents, strict=True)
    ]
    if min((*before, *after)) < 0:
        return None
    spatial = tuple(range(2, kernel.ndim))
    weights = g.constant(np.flip(_swap_channels(kernel, group), spatial))
    return g.op("Conv", dy, weights, group=group, dilations=w.dilations, pads=[*before, *after])


def _points(g: GraphBuilder, dy: str, kernel: NDArray[Any], w: Window, group: int) -> str | None:
    """A 1 x 1 kernel: between the positions it reads, the gradient is zero."""
    ones = (1,) * len(w.kernel)
    read = _flipped(g, dy, kernel, replace(w, strides=ones, inputs=w.outputs, dilations=ones), group)
    if read is None:
        return None
    channels = kernel.shape[1] * group
    spaced = g.interleave_zeros(read, (None, channels, *w.outputs), (1, 1, *w.strides), kernel.dtype)
    excess = [i - o * s for i, o, s in zip(w.inputs, w.outputs, w.strides, strict=True)]
    return g.pad(spaced, [0] * (2 + len(ones)), [0, 0, *excess])


def _sub_pixel(g: GraphBuilder, dy: str, kernel: NDArray[Any], w: Window, group: int) -> str | None:
    """One stride in both directions; None if the padding exceeds the kernel, or the stride by far.

    Input position s q + r receives dy[q + t] kernel[r + before - s t] for every t that exists.
    """
    s = w.strides[0]
    low = [-((k - 1 - b) // s) for k, b in zip(w.kernel, w.before, strict=True)]
    taps = [(s - 1 + b) // s - t + 1 for b, t in zip(w.before, low, strict=True)]
    sizes = [-(-i // s) for i in w.inputs]
    after = [q - o + n - 1 + t for q, o, n, t in zip(sizes, w.outputs, taps, low, strict=True)]
    if max(low) > 0 or min(after) < 0:
        return None
    swapped = _swap_channels(kernel, group)
    if s * s * math.prod(taps) > 16 * math.prod(w.kernel):
        return None
    weights = np.zeros((swapped.shape[0], s, s, swapped.shape[1], *taps), kernel.dtype)
    for r, t in product(product(range(s), repeat=2), product(*map(range, taps))):
        at = [r[i] + w.before[i] - s * (t[i] + low[i]) for i in range(2)]
        if all(0 <= at[i] < w.kernel[i] for i in range(2)):
            weights[:, r[0], r[1], :, t[0], t[1]] = swapped[:, :, at[0], at[1]]
    phases = g.op(
        "Conv",
        dy,
        g.constant(weights.reshape(-1, swapped.shape[1], *taps)),
        group=group,
        pads=[*(-t for t in low), *after],
    )
    dx = _interleave(g, phases, swapped.shape[0], s, sizes[0], sizes[1], kernel.dtype)
    excess = [i - q * s for i, q in zip(w.inputs, sizes, strict=True)]
    return g.pad(dx, [0] * 4, [0, 0, *excess])


def _interleave(
    g: GraphBuilder, phases: str, channels: int, s: int, rows: int, columns: int, dtype: np.dtype[Any]
) -> str:
    """[N, channels * s * s, rows, columns] to [N, channels, rows * s, columns * s].

    Equal to DepthToSpace in mode CRD, in half the time in onnxruntime: a transpose moves whole rows, and
    a permutation matrix moves the entries of a row.
    """
    if (s * columns) ** 2 > _LARGEST_MATRIX:
        return g.op("DepthToSpace", phases, blocksize=s, mode="CRD")
    moved = g.op("Transpose", g.reshape(phases, (None, s * s, rows, columns)), perm=[0, 2, 1, 3])
    r, q = np.divmod(np.arange(s * columns), columns)
    permutation = np.zeros((s * columns, s * columns), dtype)
    permutation[np.arange(s * columns), q * s + r] = 1
    lines = g.op("MatMul", g.reshape(moved, (None, s * columns)), g.constant(permutation))
    return g.reshape(lines, (None, channels, rows * s, columns * s))


def _swap_channels(kernel: NDArray[Any], group: int) -> NDArray[Any]:
    """[group * m, c, ...] to [group * c, m, ...]."""
    grouped = kernel.reshape(group, -1, *kernel.shape[1:])
    swapped = grouped.swapaxes(1, 2)
    return swapped.reshape(-1, swapped.shape[2], *kernel.shape[2:])


@rule("Conv", inputs=None)
def conv(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, name = node.inputs[:2]
    kernel = g.facts.constant(name)
    sizes = tuple(node.attributes.get("kernel_shape", ())) or g.shape(name)[2:]
    w = window(g, node, sizes, x, node.outputs[0])  # type: ignore[arg-type]
    group = node.attributes.get("group", 1)
    by_image, by_kernel, by_bias = (*node.active, False)[:3]
    spatial = range(2, 2 + len(w.kernel))
    return [
        transposed(g, dy, name if kernel is None else kernel, w, group) if by_image else None,
        _by_kernel(g, node, dy, w, group) if by_kernel else None,
        g.reduce_sum(dy, (0, *spatial), keepdims=False) if by_bias else None,
    ]


def _by_kernel(g: GraphBuilder, node: Node, dy: str, w: Window, group: int) -> str:
    """The convolution of the images with dy as kernels: images and channels change places."""
    x, axes = node.inputs[0], range(2, 2 + len(w.kernel))
    channels = g.shape(x)[1]
    if channels is None:
        raise node.unsupported("has an unknown number of channels")
    each = channels // group
    images = g.op("Transpose", x, perm=[1, 0, *axes])
    if group > 1:  # [N, C] to [C / group, group * N]
        apart = g.reshape(x, (None, group, each, *w.inputs))
        moved = g.op("Transpose", apart, perm=[2, 1, 0, *(axis + 1 for axis in axes)])
        images = g.reshape(moved, (each, None, *w.inputs))
    found = g.op(
        "Conv",
        images,
        g.op("Transpose", dy, perm=[1, 0, *axes]),
        group=group,
        strides=w.dilations,
        dilations=w.strides,
        pads=[*w.before, *w.after],
    )
    # Rows that no window reads would be further entries of the kernel.
    exact = g.op("Slice", found, g.integers([0] * len(axes)), g.integers(w.kernel), g.integers(axes))
    return g.op("Transpose", exact, perm=[1, 0, *axes])


@rule("ConvTranspose")
def conv_transpose(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The transpose of a transposed convolution is the convolution with the same kernel."""
    x, name = node.inputs[:2]
    sizes = tuple(node.attributes.get("kernel_shape", ())) or g.shape(name)[2:]
    w = window(g, node, sizes, node.outputs[0], x)  # type: ignore[arg-type]
    before = w.before
    if "output_shape" in node.attributes and node.attributes.get("auto_pad", b"NOTSET") == b"NOTSET":
        # The padding is what makes the shape fit, the odd one before.
        extra = node.attributes.get("output_padding", [0] * len(sizes))
        totals = [
            max(0, (i - 1) * s + p + extent - o)
            for i, s, p, extent, o in zip(w.outputs, w.strides, extra, w.extents, w.inputs, strict=True)
        ]
        before = tuple(total - total // 2 for total in totals)
    # As many rows after as the last window reads beyond the output, fewer than a stride are unread.
    after = [
        max(0, (i - 1) * s + extent - b - o)
        for i, s, extent, b, o in zip(w.outputs, w.strides, w.extents, before, w.inputs, strict=True)
    ]
    return [
        g.op(
            "Conv",
            dy,
            name,
            group=node.attributes.get("group", 1),
            strides=w.strides,
            dilations=w.dilations,
            pads=[*before, *after],
        )
    ]
