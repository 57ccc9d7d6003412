"""Operators that work entry by entry: arithmetic with broadcasting, and activation functions.

Arithmetic rules compute each operand's cotangent in the shape of the output and sum it over the
broadcast axes. Activation rules read the slope from the output where possible, because the input can
then stay fused into the operator before it. At a kink the gradient is that of TensorFlow and PyTorch:
Relu 0, LeakyRelu alpha, PRelu slope, Clip 1 at both bounds (a model that clips its image to [0, 1]
must not hide the gradient of black and white pixels), HardSigmoid 0, HardSwish 0 at -3 and 1 at 3.
"""

import math
from collections.abc import Sequence

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.registry import Node, rule


def _to_operands(g: GraphBuilder, node: Node, full: Sequence[str | None]) -> list[str | None]:
    """Sum the cotangent of each operand, given in the shape of the output, to the operand's shape."""
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


def _above(g: GraphBuilder, tensor: str, bound: float) -> str:
    return g.op("Greater", tensor, g.like(bound, tensor))


def _step(g: GraphBuilder, tensor: str) -> str:
    """Return 1 above zero, else 0; in onnxruntime the product takes 0.4 of the time of Where."""
    return g.op("Cast", _above(g, tensor, 0.0), to=g.facts.element_type(tensor))


@rule("Relu")
def relu(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Mul", dy, _step(g, node.outputs[0]))]


@rule("LeakyRelu")
def leaky_relu(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, y = node.inputs[0], node.outputs[0]
    alpha = node.attributes.get("alpha", 0.01)
    if 0 <= alpha <= 1:
        return [g.op("Mul", dy, g.op("Clip", _step(g, y), g.like(alpha, y)))]
    return [g.op("Where", _above(g, x, 0.0), dy, g.op("Mul", dy, g.like(alpha, x)))]


@rule("PRelu", inputs=(0, 1))
def prelu(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, slope = node.inputs
    positive = _above(g, x, 0.0)
    dx = dslope = None
    if node.active[0]:
        dx = g.op("Where", positive, dy, g.op("Mul", dy, slope))
    if node.active[1]:
        full = g.op("Where", positive, g.like(0.0, x), g.op("Mul", dy, x))
        dslope = g.sum_to_input(full, node.outputs[0], slope)
    return [dx, dslope]


@rule("Elu")
def elu(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    """alpha e^x = y + alpha below zero."""
    x, y = node.inputs[0], node.outputs[0]
    below = g.op("Mul", dy, g.op("Add", y, g.like(node.attributes.get("alpha", 1.0), y)))
    return [g.op("Where", _above(g, x, 0.0), dy, below)]


@rule("Selu")
def selu(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, y = node.inputs[0], node.outputs[0]
    alpha = node.attributes.get("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get("gamma", 1.05070102214813232421875)
    above = g.op("Mul", dy, g.like(gamma, y))
    below = g.op("Mul", dy, g.op("Add", y, g.like(gamma * alpha, y)))
    return [g.op("Where", _above(g, x, 0.0), above, below)]


@rule("Clip")
def clip(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x, low, high = node.inputs[0], node.input(1), node.input(2)
    sides = [("Less", low)] * bool(low) + [("Greater", high)] * bool(high)
    for comparison, bound in sides:
        inside = g.op("Cast", g.op("Not", g.op(comparison, x, bound)), to=g.facts.element_type(x))
        dy = g.op("Mul", dy, inside)
    return [dy]


@rule("Sigmoid")
def sigmoid(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    y = node.outputs[0]
    slope = g.op("Mul", y, g.op("Sub", g.like(1.0, y), y))
    return [g.op("Mul", dy, slope)]


@rule("Tanh")
def tanh(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    y = node.outputs[0]
    return [g.op("Mul", dy, g.op("Sub", g.like(1.0, y), g.op("Mul", y, y)))]


@rule("HardSigmoid")
def hard_sigmoid(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    y = node.outputs[0]
    inside = g.op("And", _above(g, y, 0.0), g.op("Less", y, g.like(1.0, y)))
    slope = g.op("Mul", dy, g.like(node.attributes.get("alpha", 0.2), y))
    return [g.op("Where", inside, slope, g.like(0.0, y))]


@rule("HardSwish")
def hard_swish(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x = node.inputs[0]
    slope = g.op("Add", g.op("Mul", x, g.like(1 / 3, x)), g.like(0.5, x))
    below_three = g.op("Where", g.op("Less", x, g.like(3.0, x)), slope, g.like(1.0, x))
    return [g.op("Where", _above(g, x, -3.0), g.op("Mul", dy, below_three), g.like(0.0, x))]


@rule("Softplus")
def softplus(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    return [g.op("Mul", dy, g.op("Sigmoid", node.inputs[0]))]


@rule("Gelu")
def gelu(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    x = node.inputs[0]
    half, one = g.like(0.5, x), g.like(1.0, x)
    square = g.op("Mul", x, x)
    if node.attributes.get("approximate", b"none") == b"none":
        error = g.op("Erf", g.op("Mul", x, g.like(math.sqrt(0.5), x)))
        bell = g.op("Exp", g.op("Mul", square, g.like(-0.5, x)))
        inner = g.op("Mul", bell, g.like(math.sqrt(2 / math.pi), x))
    else:
        scale = math.sqrt(2 / math.pi)
        cubic = g.op("Add", one, g.op("Mul", square, g.like(0.044715, x)))
        error = g.op("Tanh", g.op("Mul", g.op("Mul", x, cubic), g.like(scale, x)))
        rate = g.op("Add", one, g.op("Mul", square, g.like(3 * 0.044715, x)))
        sech2 = g.op("Sub", one, g.op("Mul", error, error))
        inner = g.op("Mul", g.op("Mul", sech2, rate), g.like(scale, x))
    slope = g.op("Add", g.op("Add", one, error), g.op("Mul", x, inner))
    return [g.op("Mul", dy, g.op("Mul", slope, half))]


def _softmax_axes(g: GraphBuilder, node: Node) -> list[int]:
    """Return the axes that sum to one: before opset 13 all from `axis` on."""
    rank = len(g.shape(node.inputs[0]))
    axis = node.attributes.get("axis", -1 if g.opset >= 13 else 1) % rank
    return [axis] if g.opset >= 13 else list(range(axis, rank))


@rule("Softmax")
def softmax(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    y = node.outputs[0]
    mean = g.reduce_sum(g.op("Mul", dy, y), _softmax_axes(g, node))
    return [g.op("Mul", y, g.op("Sub", dy, mean))]


@rule("LogSoftmax")
def log_softmax(g: GraphBuilder, node: Node, dy: str) -> Sequence[str | None]:
    total = g.reduce_sum(dy, _softmax_axes(g, node))
    return [g.op("Sub", dy, g.op("Mul", g.op("Exp", node.outputs[0]), total))]
