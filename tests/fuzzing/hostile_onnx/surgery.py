"""What is put into the seed model, so that its answer depends on it."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

Change = Callable[[onnx.ModelProto], None]


def constant(
    model: onnx.ModelProto, name: str, value: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"
) -> str:
    """Add a weight and give its name."""
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def prepend(model: onnx.ModelProto, node: onnx.NodeProto, name: str) -> None:
    """Put a node first and have the answer depend on what it makes."""
    model.graph.node.insert(0, node)
    use(model, name)


def use(model: onnx.ModelProto, name: str) -> None:
    """Add the sum of a tensor to the answer."""
    total = helper.make_node("ReduceSum", [name], [f"{name}_sum"], keepdims=0)
    last = next(node for node in model.graph.node if "member_logits" in node.output)
    last.output[0] = "before"
    for node in model.graph.node:
        for number, used in enumerate(node.input):
            if used == "member_logits":
                node.input[number] = "before"
    model.graph.node.append(total)
    model.graph.node.append(helper.make_node("Add", ["before", f"{name}_sum"], ["member_logits"]))
