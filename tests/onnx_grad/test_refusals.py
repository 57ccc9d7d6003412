"""What has no gradient is refused in one sentence."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ncen_tf.onnx_grad import UnsupportedOpError, gradient_model
from ncen_tf.onnx_grad.registry import rule
from tests.onnx_grad.graphs import KERNEL, RELU, branches, build, node


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Ceil", "x", "y")], r"Ceil \(node 'Ceil of x'\) has no .* rule$"),
        ([helper.make_node("Sign", ["x"], ["y"])], r"Sign \(node 'y'\)"),
        ([node("Sign", "x", "a"), node("Sigmoid", "x", "b"), node("Mul", "a b", "y")], "Sign"),
        ([node("Floor", "x", "a"), node("Sign", "a", "y")], r"Floor \(node 'Floor of x'\), Sign"),
        ([node("Relu", "x", "y", domain="com.example")], r"com\.example\.Relu"),
        ([node("Clip", "x low", "y"), node("ReduceMin", "x", "low", keepdims=0)][::-1], "input 1"),
        ([node("Compress", "x k", "y", axis=0)], "Compress"),
        ([node("LpPool", "x", "y", kernel_shape=[2, 2], ceil_mode=1)], "LpPool .* ceil_mode"),
        ([node("LpPool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2])], "LpPool .* dilations"),
        (
            [
                node("QuantizeLinear", "x scale zero", "q"),
                node("DequantizeLinear", "q scale zero", "d"),
                node("Add", "x d", "y"),
            ],
            "QuantizeLinear .* quantizes",
        ),
    ],
)
def test_unsupported_operator(nodes: list[onnx.NodeProto], message: str) -> None:
    constants = {"k": np.array([0]), "scale": np.array(0.1), "zero": np.array(0, np.int8)}
    model = build(nodes, constants)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    with pytest.raises(UnsupportedOpError, match=message):
        gradient_model(model)


def test_if_whose_condition_depends_on_the_batch_or_image_is_unsupported() -> None:
    for nodes in (
        [node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m zero", "c")],
        [node("Shape", "x", "s", end=1), node("Equal", "s one", "e"), node("Squeeze", "e", "c")],
    ):
        with pytest.raises(UnsupportedOpError, match="operator If"):
            gradient_model(build([*nodes, branches("c")], {"zero": np.array(0.0), "one": np.array([1])}))


@pytest.mark.parametrize("opset", [6, 25])
def test_opset_outside_the_range(opset: int) -> None:
    with pytest.raises(ValueError, match=f"opset 7 to 24, the model has .*{opset}"):
        gradient_model(build(RELU, opset=opset))


def test_names_that_do_not_exist() -> None:
    model = build(RELU)
    with pytest.raises(ValueError, match=r"no output 'logits', only \['y'\]"):
        gradient_model(model, output="logits")
    with pytest.raises(ValueError, match=r"no input 'image', only \['x'\]"):
        gradient_model(model, image="image")
    both = build([*RELU, node("Tanh", "x", "z")], outputs={"y": 4, "z": 4})
    with pytest.raises(ValueError, match="2 outputs"):
        gradient_model(both)


def test_output_without_a_gradient() -> None:
    nodes = [
        node("Cast", "x", "whole", to=TensorProto.INT64),
        node("Cast", "whole", "y", to=TensorProto.DOUBLE),
    ]
    with pytest.raises(ValueError, match="no gradient to take"):
        gradient_model(build(nodes))


def test_graph_for_one_batch_size_whose_input_says_any() -> None:
    model = build([node("Concat", "k x", "y", axis=1)], {"k": np.zeros((2, 1, 4, 4))})
    with pytest.raises(
        ValueError, match=r"operator Concat \(node 'Concat of k x'\) fits some batch sizes only"
    ):
        gradient_model(model)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    gradient_model(model)


def test_dynamic_image_size() -> None:
    nodes = [node("Conv", "x w", "y")]
    with pytest.raises(ValueError, match="give `image_shape`"):
        gradient_model(build(nodes, {"w": KERNEL}, image=("N", 2, "H", "W")))


def test_registry_refuses_duplicates() -> None:
    with pytest.raises(ValueError, match="Relu already has a rule"):
        rule("Relu")(lambda g, node, dy: [dy])
