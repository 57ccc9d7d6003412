"""Reductions over axes, and the global pools, which are reductions over space."""

from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder, static_size
from ncen_tf.onnx_grad.registry import Node, rule


def _axes(g: GraphBuilder, node: Node) -> list[int]:
    """Axes from the attribute or, by opset, the input; all by default."""
    rank = len(g.shape(node.inputs[0]))
    if node.op_type.startswith("Global"):
        return list(range(2, rank))
    axes: Sequence[int] = node.attributes.get("axes", ())
    if node.input(1):
        value = g.facts.constant(node.input(1))
        if value is None:
            raise node.unsupported("has axes that are only known when the model runs")
        axes = value.tolist()
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        raise node.unsupported("reduces over no axes")
    return sorted(axis % rank for axis in axes) or list(range(rank))


def _keep(g: GraphBuilder, node: Node, tensor: str) -> str:
    """Puts reduced axes back, with size 1, into a tensor of the output's shape."""
    if node.attributes.get("keepdims", 1) or node.op_type.startswith("Global"):
        return tensor
    axes = _axes(g, node)
    shape = g.shape(node.inputs[0])
    return g.reshape(tensor, tuple(1 if i in axes else size for i, size in enumerate(shape)))


@rule("ReduceSum")
def reduce_sum(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.expand_like(_keep(g, node, dy), node.inputs[0])]


@rule("ReduceMean", "GlobalAveragePool")
def reduce_mean(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x = node.inputs[0]
    count = static_size(g.shape(x), _axes(g, node))
    if count is None:
        ratio = g.op("Div", g.op("Size", x), g.op("Size", node.outputs[0]))
        share = g.op("Div", dy, g.op("Cast", ratio, to=g.facts.element_type(x)))
    else:
        share = g.op("Mul", dy, g.like(1 / count, x))
    return [g.expand_like(_keep(g, node, share), x)]


@rule("ReduceMax", "ReduceMin", "GlobalMaxPool")
def reduce_extremum(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """Entries that tie share the gradient equally, as in TensorFlow."""
    x = node.inputs[0]
    attains = g.op("Equal", x, _keep(g, node, node.outputs[0]))
    ones = g.op("Cast", attains, to=g.facts.element_type(x))
    share = g.op("Div", _keep(g, node, dy), g.reduce_sum(ones, _axes(g, node)))
    return [g.op("Mul", ones, share)]


@rule("ReduceL1")
def reduce_l1(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The gradient at 0 is 0."""
    return [g.op("Mul", g.op("Sign", node.inputs[0]), _keep(g, node, dy))]


@rule("ReduceL2")
def reduce_l2(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """dx = dy x / |x|; 0 at x = 0."""
    x, y = node.inputs[0], node.outputs[0]
    zero, one = g.like(0.0, x), g.like(1.0, x)
    norm = g.op("Where", g.op("Greater", y, zero), y, one)
    return [g.op("Mul", x, _keep(g, node, g.op("Div", dy, norm)))]


@rule("ReduceSumSquare")
def reduce_sum_square(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x = node.inputs[0]
    return [g.op("Mul", x, _keep(g, node, g.op("Mul", dy, g.like(2.0, x))))]


@rule("ReduceLogSumExp")
def reduce_log_sum_exp(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    weights = g.op("Exp", g.op("Sub", node.inputs[0], _keep(g, node, node.outputs[0])))
    return [g.op("Mul", weights, _keep(g, node, dy))]
