"""What gradient_model returns and refuses, on small hand-written graphs."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ncen_tf.onnx_grad import UnsupportedOpError, gradient_model, split_gradient_model
from ncen_tf.onnx_grad.registry import rule

Array = NDArray[Any]
RNG = np.random.default_rng(0)


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
    "normalized by its own norm": [
        node("ReduceL2", "x", "norm", axes=[1, 2, 3]),
        node("Div", "x norm", "y"),
    ],
}


@pytest.mark.parametrize("name", TWO_PATHS)
def test_sums_over_all_paths(name: str) -> None:
    model = build(TWO_PATHS[name], {"a_half": np.array(0.5)})
    assert directional_error(model, RNG.normal(size=(3, 2, 4, 4))) < 1e-7


KERNEL = RNG.normal(size=(3, 2, 3, 3))


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


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_shape_arithmetic_stops_the_gradient(opset: int) -> None:
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "batch", axis=0),
        node("Concat", "batch rest", "target", axis=0),
        node("Reshape", "x target", "flat"),
        node("Tanh", "flat", "y"),
    ]
    constants = {"zero": np.array([0]), "rest": np.array([-1])}
    model = build(nodes, constants, outputs={"y": 2}, opset=opset)
    assert directional_error(model, RNG.normal(size=(3, 2, 4, 4))) < 1e-7


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


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Ceil", "x", "y")], r"Ceil \(node 'Ceil of x'\) has no .* rule.*`suite`=blackbox"),
        ([helper.make_node("Sign", ["x"], ["y"])], r"Sign \(node 'y'\)"),
        ([node("Floor", "x", "a"), node("Sign", "a", "y")], r"Floor \(node 'Floor of x'\), Sign"),
        ([node("Relu", "x", "y", domain="com.example")], r"com\.example\.Relu"),
        ([node("Clip", "x low", "y"), node("ReduceMin", "x", "low", keepdims=0)][::-1], "input 1"),
        ([node("Compress", "x k", "y", axis=0)], "Compress"),
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


@pytest.mark.parametrize("condition", [True, False])
def test_if_with_a_constant_condition(condition: bool) -> None:
    model = build([branches("c")], {"c": np.array(condition)})
    assert directional_error(model, RNG.normal(size=(3, 2, 4, 4))) < 1e-7
    assert "If" not in {n.op_type for n in gradient_model(model).graph.node}


def test_if_whose_condition_depends_on_the_batch_or_image_is_unsupported() -> None:
    for nodes in (
        [node("ReduceMax", "x", "m", keepdims=0), node("Greater", "m zero", "c")],
        [node("Shape", "x", "s", end=1), node("Equal", "s one", "e"), node("Squeeze", "e", "c")],
    ):
        with pytest.raises(UnsupportedOpError, match="operator If"):
            gradient_model(build([*nodes, branches("c")], {"zero": np.array(0.0), "one": np.array([1])}))


@pytest.mark.parametrize("pool", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(5, 2, 2), (4, 2, 3), (3, 2, 4), (19, 3, 5), (7, 3, 2)]
)
def test_ceil_mode_whose_last_window_starts_in_the_padding(
    pool: str, size: int, kernel: int, stride: int
) -> None:
    """Runtimes drop such a window, which ONNX's shape inference counts before opset 22."""
    torch = pytest.importorskip("torch")
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [1] * 4, "ceil_mode": 1}
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, size, size)).astype(np.float32)
    images = torch.tensor(x, requires_grad=True)
    if pool == "MaxPool":
        expected = torch.nn.functional.max_pool2d(images, kernel, stride, 1, ceil_mode=True)
    else:
        expected = torch.nn.functional.avg_pool2d(images, kernel, stride, 1, True, False)
    v = rng.normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.tensor(v))
    for opset in (11, 17, 22):
        nodes = [node(pool, "x", "a", **attributes), node("Identity", "a", "y")]
        model = build(nodes, image=("N", 2, size, size), opset=opset, element=TensorProto.FLOAT)
        _, gradient = run_checked(gradient_model(model), x, v)
        np.testing.assert_allclose(gradient, images.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_shape_arithmetic_in_floats_and_booleans() -> None:
    """A chunk bound as exporters compute it: through floats, comparisons and a Where."""
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape two", "rows", axis=0),
        node("Cast", "rows", "f", to=TensorProto.FLOAT),
        node("Div", "f half", "quotient"),
        node("Ceil", "quotient", "up"),
        node("Cast", "up", "bound", to=TensorProto.INT64),
        node("Less", "bound zero", "negative"),
        node("Where", "negative zero bound", "end"),
        node("Slice", "x zero end two", "y"),
    ]
    constants = {"two": np.array([2]), "half": np.array([1.5], np.float32), "zero": np.array([0])}
    model = build(nodes, constants)
    assert directional_error(model, RNG.normal(size=(3, 2, 4, 4))) < 1e-7


def test_class_token_is_expanded_by_the_batch() -> None:
    nodes = [
        node("Shape", "x", "shape"),
        node("Gather", "shape zero", "n", axis=0),
        node("Concat", "n minus", "target", axis=0),
        node("ConstantOfShape", "two", "ones", value=numpy_helper.from_array(np.array([1]))),
        node("Equal", "target minus_one", "open"),
        node("Where", "open ones target", "sizes"),
        node("Expand", "token sizes", "tokens"),
        node("Concat", "tokens x", "y", axis=1),
    ]
    constants = {
        "zero": np.array([0]),
        "minus": np.array([-1, -1, -1]),
        "two": np.array([4]),
        "minus_one": np.array([-1]),
        "token": RNG.normal(size=(1, 1, 4, 4)),
    }
    assert directional_error(build(nodes, constants), RNG.normal(size=(3, 2, 4, 4))) < 1e-7


@pytest.mark.parametrize("threshold", [1, 6, 64])
def test_value_that_depends_on_the_batch_size_is_not_taken_for_a_constant(threshold: int) -> None:
    """min(batch, threshold) rows: equal for large batches, not for all."""
    nodes = [
        node("Shape", "x", "shape", end=1),
        node("Min", "shape most", "rows"),
        node("Slice", "x zero rows zero", "y"),
    ]
    model = build(nodes, {"most": np.array([threshold]), "zero": np.array([0])})
    for batch in (1, 3, 20, 70):
        assert directional_error(model, RNG.normal(size=(batch, 2, 4, 4))) < 1e-7


def test_image_of_integers_is_differentiated_through_its_cast() -> None:
    nodes = [node("Cast", "x", "f", to=TensorProto.FLOAT), node("Mul", "f f", "y")]
    model = build(nodes, image=("N", 3), outputs={"y": 2}, element=TensorProto.FLOAT)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    x, v = np.array([[1, 2, 250]], np.uint8), np.ones((1, 3), np.float32)
    _, gradient = run_checked(gradient_model(model), x, v)
    np.testing.assert_array_equal(gradient, [[2, 4, 500]])
    nodes[0:0] = [node("Add", "x x", "sum"), node("Cast", "sum", "f", to=TensorProto.FLOAT)]
    del nodes[2]
    model = build(nodes, image=("N", 3), outputs={"y": 2}, element=TensorProto.FLOAT)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(UnsupportedOpError, match=r"Add .*integers"):
        gradient_model(model)


def test_image_shape_binds_free_sizes() -> None:
    nodes = [node("Conv", "x w", "a", strides=[2, 2]), node("GlobalAveragePool", "a", "y")]
    model = build(nodes, {"w": KERNEL}, image=("N", 2, "H", "W"))
    x, v = RNG.normal(size=(3, 2, 9, 8)), RNG.normal(size=(3, 3, 1, 1))
    found = run(gradient_model(model, image_shape=(2, 9, 8)), {"x": x, "y_cotangent": v})[-1]
    fixed = build(nodes, {"w": KERNEL}, image=("N", 2, 9, 8))
    np.testing.assert_array_equal(found, run(gradient_model(fixed), {"x": x, "y_cotangent": v})[-1])


def test_old_file_lists_its_weights_as_inputs_and_its_domain_twice() -> None:
    nodes = [node("Conv", "x w", "a"), node("Clip", "a", "y", min=0.0, max=1.0)]
    kernel = KERNEL.astype(np.float32)
    model = build(nodes, {"w": kernel}, opset=9, element=TensorProto.FLOAT)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, kernel.shape))
    model.opset_import.append(helper.make_opsetid("ai.onnx", 9))
    x = RNG.normal(size=(3, 2, 4, 4)).astype(np.float32)
    v = RNG.normal(size=(3, 3, 2, 2)).astype(np.float32)
    y, gradient = run_checked(gradient_model(model), x, v)
    modern = build(
        [nodes[0], node("Clip", "a low high", "y")],
        {"w": kernel, "low": np.array(0, np.float32), "high": np.array(1, np.float32)},
        element=TensorProto.FLOAT,
    )
    expected_y, expected = run_checked(gradient_model(modern), x, v)
    np.testing.assert_allclose(y, expected_y, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("opset", [8, 25])
def test_opset_outside_the_range(opset: int) -> None:
    with pytest.raises(ValueError, match=f"opset 9 to 24, the model has .*{opset}"):
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


def test_dynamic_image_size() -> None:
    nodes = [node("Conv", "x w", "y")]
    with pytest.raises(ValueError, match="give `image_shape`"):
        gradient_model(build(nodes, {"w": KERNEL}, image=("N", 2, "H", "W")))


def test_registry_refuses_duplicates() -> None:
    with pytest.raises(ValueError, match="Relu already has a rule"):
        rule("Relu")(lambda g, node, dy: [dy])


WEIGHTS = {"w": RNG.normal(size=(3, 2, 3, 3)).astype(np.float32)}
CONVOLUTIONS = [
    node("Conv", "x w", "a", pads=[1, 1, 1, 1]),
    node("LeakyRelu", "a", "b", alpha=0.1),
    node("Sigmoid", "b", "c"),
    node("Mul", "b c", "y"),
]


def run_checked(model: onnx.ModelProto, *feeds: Array) -> list[Array]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, feeds, strict=True))))


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
