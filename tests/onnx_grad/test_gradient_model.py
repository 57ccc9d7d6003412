"""Graphs of several nodes: paths, batch sizes, conventions at kinks, and the split."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ncen_tf.onnx_grad import gradient_model, split_gradient_model
from tests.onnx_grad.graphs import (
    KERNEL,
    RELU,
    RNG,
    Array,
    build,
    directional_error,
    node,
    run,
    run_checked,
)

TWO_PATHS = {
    "squeeze-excite": [
        node("GlobalAveragePool", "x", "squeezed"),
        node("Sigmoid", "squeezed", "gate"),
        node("Mul", "x gate", "y"),
    ],
    "residual": [node("Tanh", "x", "branch"), node("Add", "branch x", "y")],
    "dense": [
        node("Tanh", "x", "a"),
        node("Concat", "x a", "b", axis=1),
        node("Sigmoid", "b", "c"),
        node("Concat", "b c x", "y", axis=1),
    ],
    "where on data": [
        node("Exp", "x", "a"),
        node("Greater", "x a_half", "larger"),
        node("Mul", "x x", "square"),
        node("Where", "larger a square", "y"),
    ],
    "one tensor, three readers": [
        node("Tanh", "x", "a"),
        node("Exp", "x", "e"),
        node("Mul", "a x", "b"),
        node("Div", "b e", "c"),
        node("Sub", "c a", "y"),
    ],
    "attention": [
        node("Transpose", "x", "t", perm=[0, 1, 3, 2]),
        node("MatMul", "x t", "scores"),
        node("Softmax", "scores", "weights", axis=-1),
        node("MatMul", "weights x", "y"),
    ],
    "signed root": [
        node("Sign", "x", "sign"),
        node("Abs", "x", "size"),
        node("Add", "size a_half", "more"),
        node("Sqrt", "more", "root"),
        node("Mul", "root sign", "y"),
    ],
    "normalized by its own norm": [
        node("ReduceL2", "x", "norm", axes=[1, 2, 3]),
        node("Div", "x norm", "y"),
    ],
}


@pytest.mark.parametrize("name", TWO_PATHS)
def test_sums_over_all_paths(name: str) -> None:
    model = build(TWO_PATHS[name], {"a_half": np.array(0.5)})
    assert directional_error(model, RNG.normal(size=(3, 2, 4, 4))) < 1e-7


@pytest.mark.parametrize("where", ["initializer", "Constant", "expression"])
def test_kernel_may_be_any_constant(where: str) -> None:
    nodes = [node("Conv", "x w", "y", pads=[1, 1, 1, 1])]
    constants = {}
    if where == "initializer":
        constants["w"] = KERNEL
    elif where == "Constant":
        value = numpy_helper.from_array(KERNEL)
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=value))
    else:
        constants = {"stored": KERNEL.transpose(2, 3, 1, 0), "gain": np.array(2.0)}
        nodes[:0] = [
            node("Transpose", "stored", "turned", perm=[3, 2, 0, 1]),
            node("Mul", "turned gain", "w"),
        ]
    assert directional_error(build(nodes, constants), RNG.normal(size=(2, 2, 4, 4))) < 1e-7
    result = gradient_model(build(nodes, constants))
    assert "ConvTranspose" not in {n.op_type for n in result.graph.node}


def test_one_graph_serves_every_batch_size() -> None:
    kernel = KERNEL.astype(np.float32)
    nodes = [
        node("Conv", "x w", "a", strides=[2, 2], pads=[1, 1, 1, 1]),
        node("MaxPool", "a", "b", kernel_shape=[2, 2]),
        node("Flatten", "b", "y"),
    ]
    model = build(nodes, {"w": kernel}, outputs={"y": 2}, element=TensorProto.FLOAT)
    session = onnxruntime.InferenceSession(
        gradient_model(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = RNG.normal(size=(5, 2, 4, 4)).astype(np.float32)
    v = RNG.normal(size=(5, 3)).astype(np.float32)
    y, together = session.run(None, {"x": x, "y_cotangent": v})
    assert y.shape == v.shape
    assert together.any(axis=(1, 2, 3)).all()
    for i in range(5):
        alone = session.run(None, {"x": x[i : i + 1], "y_cotangent": v[i : i + 1]})[1]
        np.testing.assert_allclose(alone, together[i : i + 1], rtol=1e-5, atol=1e-6)


def test_result_is_named_valid_and_leaves_the_model_alone() -> None:
    nodes = [*RELU, node("Softmax", "y", "p")]
    model = build(nodes, outputs={"y": 4, "p": 4})
    before = model.SerializeToString()
    result = gradient_model(model, output="y", image="x")
    assert model.SerializeToString() == before
    assert [value.name for value in result.graph.input] == ["x", "y_cotangent"]
    assert [value.name for value in result.graph.output] == ["y", "p", "x_gradient"]
    assert [(o.domain, o.version) for o in result.opset_import] == [("", 17)]
    onnx.checker.check_model(result, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(result, strict_mode=True, check_type=True)
    dims = inferred.graph.output[-1].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["N", 2, 4, 4]


def test_gradient_model_can_be_differentiated_again() -> None:
    """d/dx <v, dy/dx * u>, by a Hessian-vector product known in closed form: y = x^3."""
    model = build([node("Pow", "x three", "y")], {"three": np.array(3.0)}, ("N", 4), {"y": 2})
    twice = gradient_model(gradient_model(model), output="x_gradient", image="x")
    x, u, v = (RNG.uniform(0.5, 1.5, (2, 4)) for _ in range(3))
    names = [value.name for value in twice.graph.input]
    found = run(twice, dict(zip(names, (x, u, v), strict=True)))[-1]
    np.testing.assert_allclose(found, 6 * x * u * v, rtol=1e-12)


def test_weights_are_stored_once() -> None:
    weights = RNG.normal(size=(16, 5))
    model = build([node("MatMul", "x w", "y")], {"w": weights}, ("N", 16), {"y": 2})
    assert sum(t.name != "w" for t in gradient_model(model).graph.initializer) == 0


@pytest.mark.parametrize(
    ("op", "x", "expected"),
    [
        ("Relu", [-1.0, 0.0, 1.0], [0, 0, 1]),
        ("LeakyRelu", [-1.0, 0.0, 1.0], [0.25, 0.25, 1]),
        ("Abs", [-1.0, 0.0, 1.0], [-1, 0, 1]),
        ("Clip", [-1.0, 0.0, 1.0], [0, 1, 1]),
        ("Max", [-1.0, 0.0, 1.0], [0, 1, 1]),
        ("Min", [-1.0, 0.0, 1.0], [1, 1, 0]),
        ("HardSwish", [-3.0, 3.0, 4.0], [0, 1, 1]),
        ("ReduceMax", [2.0, 2.0, 1.0], [0.5, 0.5, 0]),
        ("ReduceL2", [0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_conventions_at_kinks(op: str, x: list[float], expected: list[float]) -> None:
    inputs = {"Clip": "x low high", "Max": "x low", "Min": "x low"}.get(op, "x")
    attributes: dict[str, Any] = {"LeakyRelu": {"alpha": 0.25}}.get(op, {})
    if op.startswith("Reduce"):
        attributes = {"axes": [1]}
    constants = {"low": np.array(0.0), "high": np.array(1.0)}
    model = build([node(op, inputs, "y", **attributes)], constants, ("N", 3), {"y": 2})
    v = np.ones((1, 1 if op.startswith("Reduce") else 3))
    feeds = {"x": np.array([x]), "y_cotangent": v}
    found = run(gradient_model(model), feeds)[-1]
    np.testing.assert_array_equal(found, [expected])


@pytest.mark.parametrize(("reduction", "name"), [("mul", "prod"), ("max", "amax"), ("min", "amin")])
def test_scattered_ties_and_zeros_are_those_of_pytorch(reduction: str, name: str) -> None:
    torch = pytest.importorskip("torch")
    indices = np.array([[0, 0, 1, 1, 2, 2]])
    x, other = np.array([[2.0, 0.0, 2.0, 1.0, 0.0, 0.0]]), np.array([[2.0, 0.0, 3.0]])
    for image, constant, order in ((x, other, "other k x"), (other, x, "x k other")):
        scatter = node("ScatterElements", order, "y", axis=1, reduction=reduction)
        constants = {"k": indices, "other": constant}
        model = build([scatter], constants, ("N", image.size), {"y": 2}, opset=18)
        v = np.array([[1.0, 2.0, 3.0]])
        found = run(gradient_model(model), {"x": image, "y_cotangent": v})[-1]
        source, data = (torch.tensor(a, requires_grad=True) for a in (x, other))
        data.scatter_reduce(1, torch.tensor(indices), source, name).backward(torch.tensor(v))
        expected = source.grad if image is x else data.grad
        np.testing.assert_allclose(found, expected)


WEIGHTS = {"w": RNG.normal(size=(3, 2, 3, 3)).astype(np.float32)}
CONVOLUTIONS = [
    node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
    node("LeakyRelu", "a", "b", alpha=0.1),
    node("Sigmoid", "b", "c"),
    node("Mul", "b c", "y"),
]


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        (CONVOLUTIONS, WEIGHTS),
        ([node("Mul", "x x", "y")], {}),  # the image itself is kept
        ([node("Neg", "x", "y")], {}),  # nothing is kept
    ],
)
def test_both_halves_do_what_the_whole_does(nodes: list[onnx.NodeProto], constants: dict[str, Array]) -> None:
    model = build(nodes, constants, element=onnx.TensorProto.FLOAT)
    whole = gradient_model(model)
    forward, backward = split_gradient_model(whole, "y")
    x, v = (
        RNG.normal(size=(5, channels, 4, 4)).astype(np.float32) for channels in (2, 3 if constants else 2)
    )
    y, gradient = run_checked(whole, x, v)
    split_y, *kept = run_checked(forward, x)
    (split_gradient,) = run_checked(backward, *kept, v)
    np.testing.assert_array_equal(split_y, y)
    np.testing.assert_array_equal(split_gradient, gradient)


def test_no_operation_is_in_both_halves() -> None:
    whole = gradient_model(build(CONVOLUTIONS, WEIGHTS, element=onnx.TensorProto.FLOAT))
    forward, backward = split_gradient_model(whole, "y")
    assert len(forward.graph.node) + len(backward.graph.node) == len(whole.graph.node)
    original = [n.op_type for n in forward.graph.node if n.output[0] in "abcy"]
    assert original == ["Conv", "LeakyRelu", "Sigmoid", "Mul"]
    assert not {"a", "b", "c", "y"} & {name for n in backward.graph.node for name in n.output}
    assert [value.name for value in forward.graph.input] == ["x"]
    assert forward.graph.output[0].name == "y"
    assert "w" in {tensor.name for tensor in forward.graph.initializer}
