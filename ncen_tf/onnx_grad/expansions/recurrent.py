"""LSTM, GRU and RNN, unrolled over a sequence of known length."""

from collections.abc import Callable, Sequence

import numpy as np

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansion import expansion
from ncen_tf.onnx_grad.registry import Node

# (row of x W plus its bias, state, R transposed, bias of R or "") -> the next state
Step = Callable[[str, list[str], str, str], list[str]]
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_LONGEST = 512  # steps


@expansion("LSTM", "GRU", "RNN")
def recurrent(g: GraphBuilder, node: Node) -> Sequence[str]:
    """One copy of the cell a step and direction: the gradient is backpropagation through time."""
    a, x = node.attributes, node.inputs[0]
    if a.get("layout", 0):
        x = g.op("Transpose", x, perm=[1, 0, 2])
    length = g.shape(node.inputs[0])[1 if a.get("layout", 0) else 0]
    _check(g, node, length)
    steps = range(length or 0)
    hidden, kind = a["hidden_size"], node.op_type
    directions = ["forward", "reverse"]
    direction = a.get("direction", b"forward").decode()
    if direction != "bidirectional":
        directions = [direction]
    outputs, last = [], []
    for number, way in enumerate(directions):
        w, r = (_of_direction(g, name, number) for name in node.inputs[1:3])
        rows = g.op("MatMul", x, g.op("Transpose", w, perm=[1, 0]))
        bias_of_r = ""
        if node.input(3):
            width = _GATES[kind] * hidden
            bias = _of_direction(g, node.inputs[3], number)
            bias_of_w, bias_of_r = (
                g.slice(bias, g.integers([i * width]), g.integers([(i + 1) * width]), 0) for i in range(2)
            )
            rows = g.op("Add", rows, bias_of_w)
        state = [_initial(g, node, x, hidden, number, position) for position in _states(node)]
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
    if a.get("layout", 0):
        y = g.op("Transpose", y, perm=[2, 0, 1, 3])
        ends = [g.op("Transpose", value, perm=[1, 0, 2]) for value in ends]
    return [y, *ends]


def _check(g: GraphBuilder, node: Node, length: int | None) -> None:
    """Refuse what is not unrolled."""
    a, kind = node.attributes, node.op_type
    if length is None or length > _LONGEST:
        raise node.unsupported(f"reads a sequence of free length, or of more than {_LONGEST} steps")
    names = [name.decode() for name in a.get("activations", ())]
    count = 2 if a.get("direction") == b"bidirectional" else 1
    if (names and names != _DEFAULTS[kind] * count) or a.get("clip") or a.get("input_forget", 0):
        raise node.unsupported("has other activations than the default, `clip` or `input_forget`")
    if node.input(7):
        raise node.unsupported("has peepholes")
    if node.input(4):
        lengths = g.facts.values(node.inputs[4])
        if lengths is None or any((value != length).any() for value in lengths):
            raise node.unsupported("reads sequences of different lengths")


def _states(node: Node) -> list[int]:
    """Return the positions of the inputs with the initial states."""
    return [5, 6] if node.op_type == "LSTM" else [5]


def _of_direction(g: GraphBuilder, tensor: str, number: int) -> str:
    return g.op("Gather", tensor, g.constant(np.array(number, np.int64)), axis=0)


def _initial(g: GraphBuilder, node: Node, x: str, hidden: int, number: int, position: int) -> str:
    """Return the initial state [batch, hidden] of a direction, zeros if there is none."""
    state = node.input(position)
    if not state:
        start = int(not node.attributes.get("layout", 0))
        sizes = g.op("Shape", node.inputs[0])
        batch = g.slice(sizes, g.integers([start]), g.integers([start + 1]), 0)
        shape = g.op("Concat", batch, g.integers([hidden]), axis=0)
        return g.op("Expand", g.like(np.zeros((1, 1)), node.inputs[0]), shape)
    if node.attributes.get("layout", 0):
        state = g.op("Transpose", state, perm=[1, 0, 2])
    return _of_direction(g, state, number)


def _parts(g: GraphBuilder, tensor: str, count: int) -> list[str]:
    """Split the last axis in equal parts."""
    equal = {"num_outputs": count} if g.opset >= 18 else {}
    return g.ops("Split", count, tensor, axis=-1, **equal)


def _product(g: GraphBuilder, state: str, r: str, bias: str) -> str:
    product = g.op("MatMul", state, r)
    return g.op("Add", product, bias) if bias else product


def _lstm(g: GraphBuilder, node: Node) -> Step:
    def step(row: str, state: list[str], r: str, bias: str) -> list[str]:
        gates = _parts(g, g.op("Add", row, _product(g, state[0], r, bias)), 4)
        entry, exit_, forget = (g.op("Sigmoid", gate) for gate in gates[:3])
        cell = g.op("Add", g.op("Mul", forget, state[1]), g.op("Mul", entry, g.op("Tanh", gates[3])))
        return [g.op("Mul", exit_, g.op("Tanh", cell)), cell]

    return step


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


_CELLS: dict[str, Callable[[GraphBuilder, Node], Step]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
