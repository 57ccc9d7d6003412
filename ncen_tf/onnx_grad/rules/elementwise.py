"""Arithmetic, entry by entry, with broadcasting: the cotangent is summed back to each operand."""

import math
from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule


def _to_operands(g: GraphBuilder, node: Node, full: Sequence[str | None]) -> list[str | None]:
    """Sums each operand's cotangent, given in the output's shape, to the operand's shape."""
    return [
        None if value is None else g.sum_to_input(value, node.outputs[0], operand)
        for operand, value in zip(node.inputs, full, strict=True)
    ]


@rule("Add", "Sum", inputs=None)
def add(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return _to_operands(g, node, [dy if active else None for active in node.active])


@rule("Mean", inputs=None)
def mean(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    share = g.op("Mul", dy, g.like(1 / len(node.inputs), node.outputs[0]))
    return _to_operands(g, node, [share if active else None for active in node.active])


@rule("Sub", inputs=None)
def sub(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    da = dy if node.active[0] else None
    db = g.op("Neg", dy) if node.active[1] else None
    return _to_operands(g, node, [da, db])


@rule("Mul", inputs=None)
def mul(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    a, b = node.inputs
    da = g.op("Mul", dy, b) if node.active[0] else None
    db = g.op("Mul", dy, a) if node.active[1] else None
    return _to_operands(g, node, [da, db])


@rule("Div", inputs=None)
def div(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    quotient = g.op("Div", dy, node.inputs[1])
    da = quotient if node.active[0] else None
    db = g.op("Neg", g.op("Mul", quotient, node.outputs[0])) if node.active[1] else None
    return _to_operands(g, node, [da, db])


@rule("Pow", inputs=None)
def power(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """d(a^b)/da = b a^(b-1), 0 where b = 0; d(a^b)/db = a^b log a, 0 where a <= 0."""
    a, b = node.inputs
    da = db = None
    if node.active[0]:
        exponent = _cast_like(g, b, a)
        slope = g.op("Mul", exponent, g.op("Pow", a, g.op("Sub", exponent, g.like(1.0, a))))
        constant = g.facts.constant(b)
        if constant is None or (constant == 0).any():  # 0 * 0^(-1) is not a number
            zero = g.like(0.0, a)
            slope = g.op("Where", g.op("Equal", exponent, zero), zero, slope)
        da = g.op("Mul", dy, slope)
    if node.active[1]:
        one = g.like(1.0, a)
        log = g.op("Log", g.op("Where", g.op("Greater", a, g.like(0.0, a)), a, one))
        db = g.op("Mul", dy, g.op("Mul", node.outputs[0], log))
    return _to_operands(g, node, [da, db])


def _cast_like(g: GraphBuilder, tensor: str, like: str) -> str:
    target = g.facts.element_type(like)
    return tensor if g.facts.element_type(tensor) == target else g.op("Cast", tensor, to=target)


@rule("Max", "Min", inputs=None)
def extremum(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The gradient goes to the first operand that attains the extremum, as in TensorFlow."""
    if len(node.inputs) == 1:
        return [dy]
    zero = g.like(0.0, node.outputs[0])
    taken: str | None = None
    full: list[str | None] = []
    for operand, active in zip(node.inputs, node.active, strict=True):
        attains = g.op("Equal", operand, node.outputs[0])
        first = attains if taken is None else g.op("And", attains, g.op("Not", taken))
        taken = attains if taken is None else g.op("Or", taken, attains)
        full.append(g.op("Where", first, dy, zero) if active else None)
    return _to_operands(g, node, full)


@rule("Where", inputs=(1, 2))
def where(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    condition, zero = node.inputs[0], g.like(0.0, node.outputs[0])
    a = g.op("Where", condition, dy, zero) if node.active[1] else None
    b = g.op("Where", condition, zero, dy) if node.active[2] else None
    return _to_operands(g, node, [None, a, b])


@rule("Neg")
def neg(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Neg", dy)]


@rule("Abs")
def absolute(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The gradient at 0 is 0."""
    return [g.op("Mul", dy, g.op("Sign", node.inputs[0]))]


@rule("Exp")
def exp(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Mul", dy, node.outputs[0])]


@rule("Log")
def log(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Div", dy, node.inputs[0])]


@rule("Sqrt")
def sqrt(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """The gradient at 0 is infinite, as in every framework."""
    half = g.op("Mul", dy, g.like(0.5, node.outputs[0]))
    return [g.op("Div", half, node.outputs[0])]


@rule("Reciprocal")
def reciprocal(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    square = g.op("Mul", node.outputs[0], node.outputs[0])
    return [g.op("Neg", g.op("Mul", dy, square))]


@rule("Erf")
def erf(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x = node.inputs[0]
    bell = g.op("Exp", g.op("Neg", g.op("Mul", x, x)))
    return [g.op("Mul", dy, g.op("Mul", bell, g.like(2 / math.sqrt(math.pi), x)))]
