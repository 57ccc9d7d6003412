"""Graphs without end: cycles, recursion, depth, length."""

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzzing.hostile_onnx.surgery import Change, constant, prepend, use


def _cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[1].input[0] = model.graph.node[-1].output[0]


def _reading_itself(model: onnx.ModelProto) -> None:
    model.graph.node[3].input[0] = model.graph.node[3].output[0]


def _calling_itself(model: onnx.ModelProto) -> None:
    body = [helper.make_node("F", ["x"], ["y"], domain="own")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "F", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    prepend(model, helper.make_node("F", ["image"], ["more"], domain="own"), "more")


def _doubling(model: onnx.ModelProto) -> None:
    """Thirty functions, each of which calls the next one twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(30):
        body = [helper.make_node("Relu", ["x"], ["y"])]
        if level < 29:
            body = [
                helper.make_node(f"F{level + 1}", ["x"], ["z"], domain="own"),
                helper.make_node(f"F{level + 1}", ["z"], ["y"], domain="own"),
            ]
        model.functions.append(helper.make_function("own", f"F{level}", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    prepend(model, helper.make_node("F0", ["image"], ["more"], domain="own"), "more")


def _nested(depth: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        true = constant(model, "true", np.array(True))
        output = [helper.make_tensor_value_info("branch", TensorProto.FLOAT, [1])]
        tensor = numpy_helper.from_array(np.ones(1, np.float32))
        plain = helper.make_graph(
            [helper.make_node("Constant", [], ["branch"], value=tensor)], "b", [], output
        )
        inner = plain
        for _ in range(depth):
            node = helper.make_node("If", [true], ["branch"], then_branch=inner, else_branch=plain)
            inner = helper.make_graph([node], "b", [], output)
        node = helper.make_node("If", [true], ["more"], then_branch=inner, else_branch=plain)
        prepend(model, node, "more")

    return change


def _long(model: onnx.ModelProto) -> None:
    """A chain of nodes that no recursion survives."""
    names = ["image", *(f"chain{i}" for i in range(5000))]
    for before, after in reversed(list(itertools.pairwise(names))):
        model.graph.node.insert(0, helper.make_node("Identity", [before], [after]))
    use(model, names[-1])


def _folded_chain(model: onnx.ModelProto) -> None:
    """The same of integers that do not depend on the image."""
    names = ["one", *(f"chain{i}" for i in range(3000))]
    for before, after in reversed(list(itertools.pairwise(names))):
        model.graph.node.insert(0, helper.make_node("Identity", [before], [after]))
    next(node for node in model.graph.node if node.op_type == "Unsqueeze").input[1] = names[-1]


CHANGES: dict[str, Change] = {
    "cyclic": _cyclic,
    "reading itself": _reading_itself,
    "calling itself": _calling_itself,
    "doubling": _doubling,
    "nested 10": _nested(10),
    "nested 28": _nested(28),
    "long": _long,
    "long and constant": _folded_chain,
}
