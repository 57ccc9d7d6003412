"""Graphs of a few nodes, and how tests run them."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ncen_tf.onnx_grad import gradient_model

Array = NDArray[Any]
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 2, 3, 3))


def build(
    nodes: list[onnx.NodeProto],
    constants: dict[str, Array] | None = None,
    image: tuple[str | int, ...] = ("N", 2, 4, 4),
    outputs: dict[str, int] | None = None,
    opset: int = 17,
    element: int = TensorProto.DOUBLE,
) -> onnx.ModelProto:
    """A model from input x to `outputs`, given as name -> rank."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", element, image)],
        [
            helper.make_tensor_value_info(name, element, [None] * rank)
            for name, rank in (outputs or {"y": 4}).items()
        ],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Any]:
    return list(ReferenceEvaluator(model).run(None, feeds))


def directional_error(model: onnx.ModelProto, x: Array) -> float:
    """|<vjp, d> - <v, df(d)>| relative to the latter, for random d and v, in float64."""
    d = RNG.normal(size=x.shape)
    high, low = (run(model, {"x": x + s * d})[0] for s in (1e-6, -1e-6))
    v = RNG.normal(size=high.shape)
    expected = np.sum(v * (high - low)) / 2e-6
    found = np.sum(run(gradient_model(model), {"x": x, "y_cotangent": v})[-1] * d)
    return float(abs(found - expected) / abs(expected))


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=f"{op} of {inputs}", **attributes)


RELU = [node("Relu", "x", "y")]


def branches(condition: str) -> onnx.NodeProto:
    """An If that takes Tanh or Exp of the image, by way of a tensor that both branches call `inner`."""
    graphs = [
        helper.make_graph(
            [node(op, "x", "inner"), node("Mul", "inner two", "result")],
            op,
            [],
            [helper.make_tensor_value_info("result", TensorProto.DOUBLE, ["N", 2, 4, 4])],
            [numpy_helper.from_array(np.array(2.0), "two")],
        )
        for op in ("Tanh", "Exp")
    ]
    return helper.make_node("If", [condition], ["y"], then_branch=graphs[0], else_branch=graphs[1])


def run_checked(model: onnx.ModelProto, *feeds: Array) -> list[Array]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, feeds, strict=True))))
