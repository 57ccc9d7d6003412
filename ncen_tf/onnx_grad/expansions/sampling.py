"""GridSample: pixels at given places of an image."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from onnx import TensorProto

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import expansion
from ncen_tf.onnx_grad.registry import Node

_CUBIC = -0.75  # the coefficient that the ONNX standard fixes for GridSample


@expansion("GridSample")
def grid_sample(g: GraphBuilder, node: Node) -> Sequence[str]:
    """Sum over the pixels around each place: weight times pixel, 2 x 2 (linear) or 4 x 4 (cubic) of them.

    The place moves the weights, so that the gradient also reaches a grid that depends on the image.
    """
    x, grid = node.inputs
    shape = g.shape(x)
    if len(shape) != 4 or None in shape[1:] or None in g.shape(grid)[1:]:
        raise node.unsupported("samples volumes, or images of free height or width")
    mode = node.attributes.get("mode", b"linear").decode()
    align = bool(node.attributes.get("align_corners", 0))
    padding = node.attributes.get("padding_mode", b"zeros").decode()
    columns, rows = (_Axis(g, grid, i, shape[3 - i] or 0, mode, align, padding) for i in range(2))
    pixels = g.op("Reshape", x, g.integers([0, 0, -1]))
    total = ""
    for row, column in product(rows.taps, columns.taps):
        number = g.op("Add", g.op("Mul", row[0], g.integers([shape[3] or 0])), column[0])
        index = g.op("Expand", g.unsqueeze(number, 1), g.integers([1, shape[1] or 0, 1]))
        weight = g.unsqueeze(g.op("Mul", row[1], column[1]), 1)
        part = g.op("Mul", g.op("GatherElements", pixels, index, axis=2), weight)
        total = g.op("Add", total, part) if total else part
    height, width = g.shape(grid)[1:3]
    return [g.op("Reshape", total, g.integers([0, 0, height or 0, width or 0]))]


class _Axis:
    """Indices (int64) and weights, both [N, places], of the pixels along one axis of the image."""

    def __init__(
        self, g: GraphBuilder, grid: str, index: int, size: int, mode: str, align: bool, padding: str
    ) -> None:
        self._g, self._grid, self._size, self._align, self._padding = g, grid, size, align, padding
        places = g.op("Gather", grid, g.constant(np.array(index, np.int64)), axis=3)
        places = g.op("Reshape", places, g.integers([0, -1]))
        scale, shift = ((size - 1) / 2, (size - 1) / 2) if align else (size / 2, (size - 1) / 2)
        place = g.op("Add", g.op("Mul", places, self._number(scale)), self._number(shift))
        if mode == "nearest":
            self.taps = [self._tap(g.op("Round", place), 0, g.like(np.ones((1, 1)), grid))]
            return
        start = g.op("Floor", place)
        # Integers stop the gradient: the pixels do not move with the place, the weights do.
        fixed = g.op("Cast", g.op("Cast", start, to=TensorProto.INT64), to=g.facts.element_type(grid))
        after = g.op("Sub", place, fixed)
        before = g.op("Sub", self._number(1.0), after)
        if mode in ("bilinear", "linear"):
            weights = [before, after]
        else:
            far = [g.op("Add", t, self._number(1.0)) for t in (after, before)]
            weights = [self._far(far[0]), self._near(after), self._near(before), self._far(far[1])]
        low = -(len(weights) // 2 - 1)
        self.taps = [self._tap(start, low + i, weight) for i, weight in enumerate(weights)]

    def _number(self, value: float) -> str:
        return self._g.like(value, self._grid)

    def _polynomial(self, t: str, *coefficients: float) -> str:
        """Evaluate a polynomial, highest power first."""
        total = self._number(coefficients[0])
        for coefficient in coefficients[1:]:
            total = self._g.op("Add", self._g.op("Mul", total, t), self._number(coefficient))
        return total

    def _near(self, t: str) -> str:
        return self._polynomial(t, _CUBIC + 2, -(_CUBIC + 3), 0.0, 1.0)

    def _far(self, t: str) -> str:
        return self._polynomial(t, _CUBIC, -5 * _CUBIC, 8 * _CUBIC, -4 * _CUBIC)

    def _tap(self, start: str, offset: int, weight: str) -> tuple[str, str]:
        """Return the index within the image, and the weight, 0 where zeros lie outside."""
        g, last = self._g, self._size - 1
        index = g.op("Add", g.op("Cast", start, to=TensorProto.INT64), g.integers([offset]))
        if self._padding == "reflection":
            period = max(1, 2 * last if self._align else 2 * self._size)
            index = g.op("Mod", index, g.integers([period]))
            mirrored = g.op("Sub", g.integers([period if self._align else period - 1]), index)
            return g.op("Min", index, mirrored), weight
        inside = g.op("Min", g.op("Max", index, g.integers([0])), g.integers([last]))
        if self._padding == "zeros":
            is_inside = g.op("Cast", g.op("Equal", inside, index), to=g.facts.element_type(self._grid))
            weight = g.op("Mul", weight, is_inside)
        return inside, weight
