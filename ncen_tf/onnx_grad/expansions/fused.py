"""Operators that onnxruntime's optimizer writes (most in the domain com.microsoft)."""

import math
from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import expansion, upgrade
from ncen_tf.onnx_grad.registry import Node

_MICROSOFT = "com.microsoft"


def _activation(g: GraphBuilder, node: Node, x: str, kind: bytes, parameters: Sequence[float]) -> str:
    op = kind.decode()
    if op in ("", "Relu", "Sigmoid", "Tanh"):
        return g.op(op, x) if op else x
    if op == "LeakyRelu":
        return g.op(op, x, alpha=parameters[0])
    if op == "HardSigmoid":
        return g.op(op, x, alpha=parameters[0], beta=parameters[1])
    if op == "Clip":
        return g.op(op, x, *(g.like(value, node.inputs[0]) for value in parameters))
    raise node.unsupported(f"applies {op}")


@expansion("FusedConv", domain=_MICROSOFT)
def fused_conv(g: GraphBuilder, node: Node) -> Sequence[str]:
    own = ("activation", "activation_params")
    y = g.op("Conv", *node.inputs[:3], **{k: v for k, v in node.attributes.items() if k not in own})
    if node.input(3):
        y = g.op("Add", y, node.input(3))
    a = node.attributes
    return [_activation(g, node, y, a.get("activation", b""), a.get("activation_params", ()))]


@expansion("FusedGemm", domain=_MICROSOFT)
def fused_gemm(g: GraphBuilder, node: Node) -> Sequence[str]:
    own = [k for k in node.attributes if k.startswith("activation")]
    y = g.op("Gemm", *node.inputs, **{k: v for k, v in node.attributes.items() if k not in own})
    names = ("activation_alpha", "activation_beta")
    parameters = [node.attributes[name] for name in names if name in node.attributes]
    return [_activation(g, node, y, node.attributes.get("activation", b""), parameters)]


@expansion("FusedMatMul", domain=_MICROSOFT)
def fused_matmul(g: GraphBuilder, node: Node) -> Sequence[str]:
    if node.attributes.get("transBatchA", 0) or node.attributes.get("transBatchB", 0):
        raise node.unsupported("transposes the batch")
    operands = []
    for name, flag in zip(node.inputs, ("transA", "transB"), strict=True):
        rank = len(g.shape(name))
        swap = node.attributes.get(flag, 0) and rank > 1
        perm = [*range(rank - 2), rank - 1, rank - 2]
        operands.append(g.op("Transpose", name, perm=perm) if swap else name)
    product = g.op("MatMul", *operands)
    return [g.op("Mul", product, g.like(node.attributes.get("alpha", 1.0), node.inputs[0]))]


@expansion("Gelu", "BiasGelu", domain=_MICROSOFT)
def gelu(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = g.add(node.inputs)
    like = node.inputs[0]
    error = g.op("Erf", g.op("Mul", x, g.like(math.sqrt(0.5), like)))
    return [g.op("Mul", g.op("Mul", x, g.like(0.5, like)), g.op("Add", error, g.like(1.0, like)))]


@expansion("FastGelu", domain=_MICROSOFT)
def fast_gelu(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = g.add([name for name in node.inputs if name])
    like = node.inputs[0]
    cubic = g.op("Add", g.op("Mul", g.op("Mul", x, x), g.like(0.044715, like)), g.like(1.0, like))
    inner = g.op("Mul", g.op("Mul", x, cubic), g.like(math.sqrt(2 / math.pi), like))
    factor = g.op("Add", g.op("Tanh", inner), g.like(1.0, like))
    return [g.op("Mul", g.op("Mul", x, g.like(0.5, like)), factor)]


@expansion("QuickGelu", domain=_MICROSOFT)
def quick_gelu(g: GraphBuilder, node: Node) -> Sequence[str]:
    x = node.inputs[0]
    gate = g.op("Sigmoid", g.op("Mul", x, g.like(node.attributes.get("alpha", 1.702), x)))
    return [g.op("Mul", x, gate)]


@expansion("SkipLayerNormalization", domain=_MICROSOFT)
def skip_layer_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    if any(node.outputs[1:3]):
        raise node.unsupported("has statistics as outputs")
    total = g.op("Add", *node.inputs[:2])
    if node.input(4):
        total = g.op("Add", total, node.input(4))
    y = _normalized(g, node, total, node.inputs[2], node.input(3), len(g.shape(node.inputs[0])) - 1)
    return [y, "", "", total]


@expansion("SimplifiedLayerNormalization")
def simplified_layer_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    """x / root mean square of x, times the scale; the runtime writes it in the default domain."""
    axis = node.attributes.get("axis", -1) % len(g.shape(node.inputs[0]))
    return [_scaled(g, node, node.inputs[0], node.inputs[1], axis)]


@expansion("SkipSimplifiedLayerNormalization", domain=_MICROSOFT)
def skip_simplified_layer_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    total = g.op("Add", *node.inputs[:2])
    if node.input(3):
        total = g.op("Add", total, node.input(3))
    y = _scaled(g, node, total, node.inputs[2], len(g.shape(node.inputs[0])) - 1)
    return [y, "", "", total]


def _scaled(g: GraphBuilder, node: Node, x: str, scale: str, axis: int) -> str:
    if any(node.outputs[1:3]):
        raise node.unsupported("has statistics as outputs")
    like = node.inputs[0]
    square = g.reduce_mean(g.op("Mul", x, x), range(axis, len(g.shape(like))))
    epsilon = g.like(node.attributes.get("epsilon", 1e-5), like)
    return g.op("Mul", g.op("Div", x, g.op("Sqrt", g.op("Add", square, epsilon))), scale)


@upgrade("LayerNormalization", before=17)
def layer_normalization(g: GraphBuilder, node: Node) -> Sequence[str]:
    """Models of opsets that have no such operator; the runtime's own is in the default domain."""
    axis = node.attributes.get("axis", -1) % len(g.shape(node.inputs[0]))
    return [_normalized(g, node, node.inputs[0], node.inputs[1], node.input(2), axis)]


def _normalized(g: GraphBuilder, node: Node, x: str, scale: str, bias: str, axis: int) -> str:
    like = node.inputs[0]
    axes = range(axis, len(g.shape(like)))
    centred = g.op("Sub", x, g.reduce_mean(x, axes))
    variance = g.reduce_mean(g.op("Mul", centred, centred), axes)
    epsilon = g.like(node.attributes.get("epsilon", 1e-5), like)
    y = g.op("Mul", g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, epsilon))), scale)
    return g.op("Add", y, bias) if bias else y
