"""GRU and RNN, unrolled over a sequence of known length, and what they share with LSTM."""

from collections.abc import Callable, Sequence

import numpy as np

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import expansion
from ncen_tf.onnx_grad.registry import Node

# (row of x W plus its bias, state, R transposed, bias of R or "") -> the next state
Step = Callable[[str, list[str], str, str], list[str]]
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_GATES = {"GRU": 3, "RNN": 1}
_LONGEST = 128  # steps


@expansion("GRU", "RNN")
def recurrent(g: GraphBuilder, node: Node) -> Sequence[str]:
    """One copy of the cell a step and direction: the gradient is backpropagation through time."""
    a, x = node.attributes, node.inputs[0]
    length = check(g, node)
    if length is None or length > _LONGEST:
        raise node.unsupported(f"reads a sequence of free length, or of more than {_LONGEST} steps")
    steps = range(length)
    hidden, kind = a["hidden_size"], node.op_type
    outputs, last = [], []
    for number, way in enumerate(directions(node)):
        w, r = (of_direction(g, name, number) for name in node.inputs[1:3])
        rows = g.op("MatMul", x, g.op("Transpose", w, perm=[1, 0]))
        bias_of_r = ""
        if node.input(3):
            width = _GATES[kind] * hidden
            bias = of_direction(g, node.inputs[3], number)
            bias_of_w, bias_of_r = (
                g.slice(bias, g.integers([i * width]), g.integers([(i + 1) * width]), 0) for i in range(2)
            )
            rows = g.op("Add", rows, bias_of_w)
        state = [initial_state(g, node, number, 5)]
        cell = _CELLS[kind](g, node)
        transposed = g.op("Transpose", r, perm=[1, 0])
        made: dict[int, str] = {}
        for step in steps if way == "forward" else reversed(steps):
            row = g.op("Gather", rows, g.constant(np.array(step, np.int64)), axis=0)
            state = cell(row, state, transposed, bias_of_r)
            made[step] = g.unsqueeze(g.unsqueeze(state[0], 0), 0)
        outputs.append(g.op("Concat", *(made[step] for step in steps), axis=0))
        last.append([g.unsqueeze(value, 0) for value in state])
    y = g.op("Concat", *outputs, axis=1)
    ends = [g.op("Concat", *values, axis=0) for values in zip(*last, strict=True)]
    return [y, *ends]


def directions(node: Node) -> list[str]:
    """Return "forward", "reverse" or both."""
    direction = node.attributes.get("direction", b"forward").decode()
    return ["forward", "reverse"] if direction == "bidirectional" else [direction]


def check(g: GraphBuilder, node: Node) -> int | None:
    """Return the length of the sequences, None if it varies with the batch.

    Raises:
        UnsupportedOpError: the operator is used in a way that has no gradient here.
    """
    a, kind = node.attributes, node.op_type
    length = g.shape(node.inputs[0])[0]
    names = [name.decode() for name in a.get("activations", ())]
    default = _DEFAULTS[kind] * len(directions(node))
    if (names and names != default) or a.get("clip") or a.get("input_forget", 0):
        raise node.unsupported("has other activations than the default, `clip` or `input_forget`")
    if a.get("layout", 0):
        raise node.unsupported("has the batch as first axis, which runtimes do not take")
    if node.input(7):
        raise node.unsupported("has peepholes")
    if node.input(4):
        lengths = g.facts.values(node.inputs[4])
        if lengths is None or any((value != length).any() for value in lengths):
            raise node.unsupported("reads sequences of different lengths")
    return length


def of_direction(g: GraphBuilder, tensor: str, number: int) -> str:
    """Return the entry of a direction of a tensor whose first axis has one entry a direction."""
    return g.op("Gather", tensor, g.constant(np.array(number, np.int64)), axis=0)


def initial_state(g: GraphBuilder, node: Node, number: int, position: int) -> str:
    """Return an initial state [batch, hidden] of a direction, zeros if there is none.

    Args:
        g: builder.
        node: the recurrent operator.
        number: the direction.
        position: of the state among the inputs.
    """
    state = node.input(position)
    if not state:
        batch = g.slice(g.op("Shape", node.inputs[0]), g.integers([1]), g.integers([2]), 0)
        shape = g.op("Concat", batch, g.integers([node.attributes["hidden_size"]]), axis=0)
        return g.op("Expand", g.like(np.zeros((1, 1)), node.inputs[0]), shape)
    return of_direction(g, state, number)


def _parts(g: GraphBuilder, tensor: str, count: int) -> list[str]:
    """Split the last axis in equal parts."""
    equal = {"num_outputs": count} if g.opset >= 18 else {}
    return g.ops("Split", count, tensor, axis=-1, **equal)


def _product(g: GraphBuilder, state: str, r: str, bias: str) -> str:
    product = g.op("MatMul", state, r)
    return g.op("Add", product, bias) if bias else product


def _gru(g: GraphBuilder, node: Node) -> Step:
    def step(row: str, state: list[str], r: str, bias: str) -> list[str]:
        h = state[0]
        rows = _parts(g, row, 3)
        if node.attributes.get("linear_before_reset", 0):
            z, reset, product = _parts(g, _product(g, h, r, bias), 3)
        else:
            weights, biases = _parts(g, r, 3), _parts(g, bias, 3) if bias else [""] * 3
            z, reset = (_product(g, h, weights[i], biases[i]) for i in range(2))
        update, reset = (
            g.op("Sigmoid", g.op("Add", a, b)) for a, b in zip(rows[:2], (z, reset), strict=True)
        )
        if node.attributes.get("linear_before_reset", 0):
            product = g.op("Mul", reset, product)
        else:
            product = _product(g, g.op("Mul", reset, h), weights[2], biases[2])
        new = g.op("Tanh", g.op("Add", rows[2], product))
        kept = g.op("Mul", update, g.op("Sub", h, new))
        return [g.op("Add", new, kept)]

    return step


def _rnn(g: GraphBuilder, node: Node) -> Step:
    def step(row: str, state: list[str], r: str, bias: str) -> list[str]:
        return [g.op("Tanh", g.op("Add", row, _product(g, state[0], r, bias)))]

    return step


_CELLS: dict[str, Callable[[GraphBuilder, Node], Step]] = {"GRU": _gru, "RNN": _rnn}
