"""Operators that move entries without changing them."""

from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule


@rule("Identity")
def identity(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [dy]


@rule("Dropout")
def dropout(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The identity, in inference mode."""
    if node.input(2):
        training = g.facts.constant(node.input(2))
        if training is None or training.any():
            raise node.unsupported("is, or may be, in training mode")
    return [dy]


@rule("Cast")
def cast(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Cast", dy, to=g.facts.element_type(node.inputs[0]))]


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.reshape_like(dy, node.inputs[0])]


@rule("Transpose")
def transpose(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """A reshape where only axes of size 1 move, as from NHWC to NCHW with one channel."""
    shape = g.shape(node.inputs[0])
    order = list(node.attributes.get("perm", reversed(range(len(shape)))))
    moved = [axis for axis in order if shape[axis] != 1]
    if moved == sorted(moved):
        return [g.reshape_like(dy, node.inputs[0])]
    return [g.op("Transpose", dy, perm=[order.index(axis) for axis in range(len(order))])]


@rule("Expand")
def expand(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.sum_to_input(dy, node.outputs[0], node.inputs[0])]
