"""Operators of the ONNX standard that have neither a rule nor a function body."""

import math
from collections.abc import Sequence

import numpy as np
import onnx

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import expansion
from ncen_tf.onnx_grad.registry import Node


@expansion("CastLike")
def cast_like(g: GraphBuilder, node: Node) -> Sequence[str]:
    return [g.op("Cast", node.inputs[0], to=g.facts.element_type(node.inputs[1]))]


# The standard defines the next three as functions only from opset 18 on.
@expansion("Shrink")
def shrink(g: GraphBuilder, node: Node) -> Sequence[str]:
    """x - bias above lambd, x + bias below -lambd, else 0."""
    x = node.inputs[0]
    bound, bias = node.attributes.get("lambd", 0.5), g.like(node.attributes.get("bias", 0.0), x)
    below = g.op("Where", g.op("Less", x, g.like(-bound, x)), g.op("Add", x, bias), g.like(0.0, x))
    return [g.op("Where", g.op("Greater", x, g.like(bound, x)), g.op("Sub", x, bias), below)]


@expansion("ThresholdedRelu")
def thresholded_relu(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    above = g.op("Greater", x, g.like(node.attributes.get("alpha", 1.0), x))
    return [g.op("Where", above, x, g.like(0.0, x))]


@expansion("Softsign")
def softsign(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    return [g.op("Div", x, g.op("Add", g.like(1.0, x), g.op("Abs", x)))]


@expansion("LpNormalization")
def lp_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    return [divide_by_norm(g, node.inputs[0], node.attributes.get("p", 2), node.attributes.get("axis", -1))]


def divide_by_norm(g: GraphBuilder, x: str, p: int, axis: int) -> str:
    """Divide vectors along an axis by their L1 or L2 norm; zero vectors stay."""
    element_type = g.facts.element_type(x)
    one, zero = (
        g.constant(np.array(value, onnx.helper.tensor_dtype_to_np_dtype(element_type))) for value in (1, 0)
    )
    norm = g.reduce(f"ReduceL{p}", x, [axis])
    return g.op("Div", x, g.op("Where", g.op("Equal", norm, zero), one, norm))


@expansion("LpPool")
def lp_pool(g: GraphBuilder, node: Node) -> Sequence[str]:
    """(sum of |x|^p over the window)^(1/p), the sum as an average times the size of the window."""
    x, p = node.inputs[0], node.attributes.get("p", 2)
    if node.attributes.get("ceil_mode", 0) or max(node.attributes.get("dilations", [1])) > 1:
        # An average over a window that is cut off divides by fewer entries.
        raise node.unsupported("has no gradient with ceil_mode or dilations")
    same = {k: v for k, v in node.attributes.items() if k != "p"}
    powers = g.op("Pow", g.op("Abs", x), g.like(p, x))
    mean = g.op("AveragePool", powers, count_include_pad=1, **same)
    total = g.op("Mul", mean, g.like(math.prod(node.attributes["kernel_shape"]), x))
    return [g.op("Pow", total, g.like(1 / p, x))]


@expansion("LRN")
def local_response_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    """x / (bias + alpha / size * sum of x^2 over `size` channels)^beta."""
    x, a = node.inputs[0], node.attributes
    size = a["size"]
    channels = g.shape(x)[1]
    if channels is None:
        raise node.unsupported("normalizes over an unknown number of channels")
    flat = g.op("Reshape", g.op("Mul", x, x), g.integers([0, 1, channels, -1]))
    pads = [(size - 1) // 2, 0, size // 2, 0]
    mean = g.op("AveragePool", flat, kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    scaled = g.op("Mul", g.op("Reshape", mean, g.op("Shape", x)), g.like(a.get("alpha", 1e-4), x))
    base = g.op("Add", scaled, g.like(a.get("bias", 1.0), x))
    return [g.op("Div", x, g.op("Pow", base, g.like(a.get("beta", 0.75), x)))]


@expansion("GlobalLpPool")
def global_lp_pool(g: GraphBuilder, node: Node) -> Sequence[str]:
    """(sum of |x|^p over the image)^(1/p)."""
    x, p = node.inputs[0], node.attributes.get("p", 2)
    powers = g.op("Pow", g.op("Abs", x), g.like(p, x))
    total = g.reduce_sum(powers, range(2, len(g.shape(x))))
    return [g.op("Pow", total, g.like(1 / p, x))]
