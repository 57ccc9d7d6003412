"""Trigonometric and hyperbolic functions and their inverses."""

from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule


@rule("Sin")
def sin(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Mul", dy, g.op("Cos", node.inputs[0]))]


@rule("Cos")
def cos(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Neg", g.op("Mul", dy, g.op("Sin", node.inputs[0])))]


@rule("Tan")
def tan(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """1 + tan^2 x."""
    y = node.outputs[0]
    return [g.op("Mul", dy, g.op("Add", g.op("Mul", y, y), g.like(1.0, y)))]


@rule("Sinh")
def sinh(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Mul", dy, g.op("Cosh", node.inputs[0]))]


@rule("Cosh")
def cosh(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Mul", dy, g.op("Sinh", node.inputs[0]))]


@rule("Asin", "Acos", "Asinh", "Acosh")
def inverse_with_root(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """1 / sqrt(1 - x^2), -1 / sqrt(1 - x^2), 1 / sqrt(x^2 + 1) and 1 / sqrt(x^2 - 1)."""
    x = node.inputs[0]
    one, square = g.like(1.0, x), g.op("Mul", x, x)
    if node.op_type in ("Asin", "Acos"):
        under = g.op("Sub", one, square)
    else:
        under = g.op("Add" if node.op_type == "Asinh" else "Sub", square, one)
    slope = g.op("Div", dy, g.op("Sqrt", under))
    return [g.op("Neg", slope) if node.op_type == "Acos" else slope]


@rule("Atan", "Atanh")
def inverse_without_root(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """1 / (1 + x^2) and 1 / (1 - x^2)."""
    x = node.inputs[0]
    square = g.op("Mul", x, x)
    return [g.op("Div", dy, g.op("Add" if node.op_type == "Atan" else "Sub", g.like(1.0, x), square))]
