"""Normalization with given or computed statistics, in inference mode."""

from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule


@rule("BatchNormalization")
def batch_normalization(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Given statistics: dx = dy * scale / sqrt(variance + epsilon), channel by channel."""
    if node.attributes.get("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
        raise node.unsupported("is in training mode")
    x, scale, _, _, variance = node.inputs
    epsilon = g.like(node.attributes.get("epsilon", 1e-5), variance)
    deviation = g.op("Sqrt", g.op("Add", variance, epsilon))
    slope = g.op("Div", scale, deviation)  # of constants: a runtime folds it when it loads
    rank = len(g.shape(x))
    if rank > 2:
        slope = g.reshape(slope, (g.shape(scale)[0], *[1] * (rank - 2)))
    return [g.op("Mul", dy, slope)]


@rule("LayerNormalization")
def layer_normalization(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, scale = node.inputs[:2]
    rank = len(g.shape(x))
    axis = node.attributes.get("axis", -1) % rank
    dz = g.op("Mul", dy, scale)
    return [_standardize(g, x, dz, range(axis, rank), node.attributes.get("epsilon", 1e-5))]


@rule("InstanceNormalization")
def instance_normalization(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, scale = node.inputs[:2]
    rank = len(g.shape(x))
    channels = g.reshape(scale, (g.shape(scale)[0], *[1] * (rank - 2)))
    dz = g.op("Mul", dy, channels)
    return [_standardize(g, x, dz, range(2, rank), node.attributes.get("epsilon", 1e-5))]


def _standardize(g: GraphBuilder, x: str, dz: str, axes: Sequence[int], epsilon: float) -> str:
    """dx for z = (x - mean x) / s, s = sqrt(var x + epsilon), both over `axes`.

    dx = (dz - mean dz - z mean(z dz)) / s (Ba, Kiros and Hinton, arXiv:1607.06450).
    """
    centred = g.op("Sub", x, g.reduce_mean(x, axes))
    variance = g.reduce_mean(g.op("Mul", centred, centred), axes)
    deviation = g.op("Sqrt", g.op("Add", variance, g.like(epsilon, x)))
    z = g.op("Div", centred, deviation)
    along = g.op("Mul", z, g.reduce_mean(g.op("Mul", z, dz), axes))
    rest = g.op("Sub", g.op("Sub", dz, g.reduce_mean(dz, axes)), along)
    return g.op("Div", rest, deviation)
