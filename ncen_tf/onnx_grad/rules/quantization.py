"""Straight-through gradients: those of the model without rounding. They are used only when asked for.

An integer tensor has a cotangent of floats, by its integer value. What a quantization cut off at the bounds
of the integers gets no gradient, as the runtime may have put a Relu there.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule
from ncen_tf.onnx_grad.rules.windows import transposed, window


def _along(g: GraphBuilder, node: Node, tensor: str) -> str:
    """Reshape a scale or zero point, one for each entry of an axis, to broadcast against the input."""
    if node.attributes.get("block_size", 0):
        raise node.unsupported("quantizes block by block")
    shape, rank = g.shape(tensor), len(g.shape(node.inputs[0]))
    if len(shape) != 1 or shape[0] == 1:
        return tensor
    axis = node.attributes.get("axis", 1) % rank
    return g.reshape(tensor, tuple(shape[0] if i == axis else 1 for i in range(rank)))


@rule("QuantizeLinear", straight_through=True)
def quantize_linear(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """1 / scale where the rounded value is within the bounds of the integers."""
    x, y = node.inputs[0], node.outputs[0]
    integer = g.dtype(y)
    if not np.issubdtype(integer, np.integer):
        raise node.unsupported(f"quantizes to {integer}")
    scale = _along(g, node, node.inputs[1])
    value = g.op("Div", x, scale)
    if node.input(2):
        zero = g.op("Cast", _along(g, node, node.inputs[2]), to=g.facts.element_type(x))
        value = g.op("Add", value, zero)
    bounds = np.iinfo(integer)
    inside = g.op("Not", g.op("Less", value, g.like(float(bounds.min), x)))
    inside = g.op("And", inside, g.op("Not", g.op("Greater", value, g.like(float(bounds.max), x))))
    return [g.op("Mul", g.op("Div", dy, scale), g.op("Cast", inside, to=g.facts.element_type(x)))]


@rule("DequantizeLinear", straight_through=True)
def dequantize_linear(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Mul", dy, _along(g, node, node.inputs[1]))]


@rule("DynamicQuantizeLinear", straight_through=True)
def dynamic_quantize_linear(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """1 / scale; the scale, which follows the range of the input, counts as constant."""
    return [g.op("Div", dy, node.outputs[1])]


@rule("Round", straight_through=True)
def round_(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [dy]


@rule("MatMulInteger", straight_through=True)
def matmul_integer(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The right operand, which must be a matrix that does not depend on the image, is a float matrix here."""
    b = node.inputs[1]
    if len(g.shape(b)) != 2:
        raise node.unsupported("multiplies by a stack of matrices")
    matrix = g.op("Cast", b, to=onnx.TensorProto.FLOAT)
    if node.input(3):
        matrix = g.op("Sub", matrix, g.op("Cast", node.inputs[3], to=onnx.TensorProto.FLOAT))
    return [g.op("MatMul", dy, g.op("Transpose", matrix, perm=[1, 0]))]


@rule("ConvInteger", straight_through=True)
def conv_integer(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, name = node.inputs[:2]
    kernel, zero = g.facts.constant(name), np.zeros(1, np.float32)
    if node.input(3):
        given = g.facts.constant(node.inputs[3])
        if given is None:
            raise node.unsupported("has a zero point that is only known when the model runs")
        zero = given.astype(np.float32).reshape(-1)
    if kernel is None:
        raise node.unsupported("has a kernel that is only known when the model runs")
    floats = kernel.astype(np.float32) - zero.reshape(-1, *[1] * (kernel.ndim - 1))
    w = window(g, node, kernel.shape[2:], x, node.outputs[0])
    return [transposed(g, dy, floats, w, node.attributes.get("group", 1))]
