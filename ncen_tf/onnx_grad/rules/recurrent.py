"""LSTM: backpropagation through time, as two Scans over the sequence."""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from ncen_tf.onnx_grad.builder import GraphBuilder
from ncen_tf.onnx_grad.expansions.recurrent import check, directions, initial_state, of_direction
from ncen_tf.onnx_grad.registry import Node, rule


@rule("LSTM", every_output=True)
def lstm(g: GraphBuilder, node: Node, _: str) -> Sequence[str | None]:
    """The first Scan computes the gates again, the second walks back; dx is the gates' cotangent times W."""
    check(g, node)
    x = node.inputs[0]
    cotangents = [*node.cotangents, None, None][:3]
    parts = []
    for number, way in enumerate(directions(node)):
        w, r = (of_direction(g, name, number) for name in node.inputs[1:3])
        rows = g.op("MatMul", x, g.op("Transpose", w, perm=[1, 0]))
        if node.input(3):
            halves = g.op("Reshape", of_direction(g, node.inputs[3], number), g.integers([2, -1]))
            rows = g.op("Add", rows, g.reduce_sum(halves, [0], keepdims=False))
        states = [initial_state(g, node, number, position) for position in (5, 6)]
        reverse = way == "reverse"
        transposed = g.op("Transpose", r, perm=[1, 0])
        kept = _scan(g, node, _step(g, transposed), states, [rows], reverse)
        dy = cotangents[0]
        dy = _zeros(g, node, kept[2]) if dy is None else g.op("Gather", dy, _index(g, number), axis=1)
        ends = [
            _zeros(g, node, kept[0]) if value is None else of_direction(g, value, number)
            for value in cotangents[1:]
        ]
        found = _scan(g, node, _step_back(g, node, r), ends, [*kept[2:], dy], not reverse)
        parts.append(g.op("MatMul", found[2], w))
    return [g.add(parts)]


# (states, entries of the sequences) -> next states, entries of the results
Body = Callable[[Sequence[str], Sequence[str]], tuple[list[str], list[str]]]


def _step(g: GraphBuilder, r: str) -> Body:
    def body(states: Sequence[str], entries: Sequence[str]) -> tuple[list[str], list[str]]:
        gates = _parts(g, g.op("Add", entries[0], g.op("MatMul", states[0], r)))
        i, o, f = (g.op("Sigmoid", gate) for gate in gates[:3])
        new = g.op("Tanh", gates[3])
        cell = g.op("Add", g.op("Mul", f, states[1]), g.op("Mul", i, new))
        # An output of a body must not be one of its inputs.
        return [g.op("Mul", o, g.op("Tanh", cell)), cell], [i, o, f, new, g.op("Identity", states[1]), cell]

    return body


def _step_back(g: GraphBuilder, node: Node, r: str) -> Body:
    one = g.like(1.0, node.inputs[0])

    def slope(y: str) -> str:  # of Sigmoid
        return g.op("Mul", y, g.op("Sub", one, y))

    def tanh_slope(y: str) -> str:
        return g.op("Sub", one, g.op("Mul", y, y))

    def body(states: Sequence[str], entries: Sequence[str]) -> tuple[list[str], list[str]]:
        i, o, f, new, before, cell, dy = entries
        dh = g.op("Add", states[0], dy)
        tanh = g.op("Tanh", cell)
        dc = g.op("Add", states[1], g.op("Mul", g.op("Mul", dh, o), tanh_slope(tanh)))
        gates = g.op(
            "Concat",
            g.op("Mul", g.op("Mul", dc, new), slope(i)),
            g.op("Mul", g.op("Mul", dh, tanh), slope(o)),
            g.op("Mul", g.op("Mul", dc, before), slope(f)),
            g.op("Mul", g.op("Mul", dc, i), tanh_slope(new)),
            axis=-1,
        )
        return [g.op("MatMul", gates, r), g.op("Mul", dc, f)], [gates]

    return body


def _scan(
    g: GraphBuilder, node: Node, body: Body, states: Sequence[str], sequences: Sequence[str], reverse: bool
) -> list[str]:
    """Append a Scan over the first axis; return the last states and the results of all steps."""
    element_type = g.facts.element_type(node.inputs[0])

    def described(names: Sequence[str]) -> list[onnx.ValueInfoProto]:
        return [onnx.helper.make_tensor_value_info(name, element_type, [None, None]) for name in names]

    entries = [g.fresh("grad/scanned") for _ in (*states, *sequences)]
    outer, g.nodes = g.nodes, []
    try:
        after, results = body(entries[: len(states)], entries[len(states) :])
        # A tensor may be an output only once.
        results = [g.op("Identity", name) if name in after else name for name in results]
        inner = g.nodes
    finally:
        g.nodes = outer
    graph = onnx.helper.make_graph(inner, "step", described(entries), described([*after, *results]))
    return g.ops(
        "Scan",
        len(after) + len(results),
        *states,
        *sequences,
        body=graph,
        num_scan_inputs=len(sequences),
        scan_input_directions=[int(reverse)] * len(sequences),
        scan_output_directions=[int(reverse)] * len(results),
    )


def _parts(g: GraphBuilder, gates: str) -> list[str]:
    equal = {"num_outputs": 4} if g.opset >= 18 else {}
    return g.ops("Split", 4, gates, axis=-1, **equal)


def _index(g: GraphBuilder, number: int) -> str:
    return g.constant(np.array(number, np.int64))


def _zeros(g: GraphBuilder, node: Node, like: str) -> str:
    """Create zeros in the shape of a tensor of the gradient."""
    value = numpy_helper.from_array(np.zeros(1, g.dtype(node.inputs[0])))
    return g.op("ConstantOfShape", g.op("Shape", like), value=value)
