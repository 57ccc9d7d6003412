"""What exporters write: constant conditions, shape arithmetic, free sizes, old files."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from ncen_tf.onnx_grad import UnsupportedOpError, gradient_model
from tests.onnx_grad.graphs import (
    KERNEL,
    RNG,
    Array,
    branches,
    build,
    directional_error,
    node,
    run,
    run_checked,
)


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


def test_shape_of_a_number() -> None:
    """An assignment to a slice, as in BEiT, is traced to Expand(value, Shape(number))."""
    nodes = [
        node("Shape", "two", "shape"),
        node("Expand", "two shape", "factor"),
        node("Mul", "x factor", "scaled"),
        node("Tanh", "scaled", "y"),
    ]
    model = build(nodes, {"two": np.array(2.0)})
    assert directional_error(model, RNG.normal(size=(3, 2, 4, 4))) < 1e-7


@pytest.mark.parametrize("condition", [True, False])
def test_if_with_a_constant_condition(condition: bool) -> None:
    model = build([branches("c")], {"c": np.array(condition)})
    assert directional_error(model, RNG.normal(size=(3, 2, 4, 4))) < 1e-7
    assert "If" not in {n.op_type for n in gradient_model(model).graph.node}


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


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_old_file_lists_its_weights_as_inputs_and_its_domain_twice(opset: int) -> None:
    spatial = {"spatial": 1} if opset < 9 else {}
    nodes = [
        node("Conv", "x w", "c"),
        node("BatchNormalization", "c m v m v", "a", **spatial),
        node("Clip", "a", "y", min=0.0, max=1.0),
    ]
    kernel = KERNEL.astype(np.float32)
    moments = {"m": RNG.normal(size=3).astype(np.float32), "v": RNG.uniform(1, 2, 3).astype(np.float32)}
    model = build(nodes, {"w": kernel} | moments, opset=opset, element=TensorProto.FLOAT)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, kernel.shape))
    model.opset_import.append(helper.make_opsetid("ai.onnx", opset))
    x = RNG.normal(size=(3, 2, 4, 4)).astype(np.float32)
    v = RNG.normal(size=(3, 3, 2, 2)).astype(np.float32)
    y, gradient = run_checked(gradient_model(model), x, v)
    modern = build(
        [nodes[0], node("BatchNormalization", "c m v m v", "a"), node("Clip", "a low high", "y")],
        {"w": kernel, "low": np.array(0, np.float32), "high": np.array(1, np.float32)} | moments,
        element=TensorProto.FLOAT,
    )
    expected_y, expected = run_checked(gradient_model(modern), x, v)
    np.testing.assert_allclose(y, expected_y, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_lstm_of_a_sequence_whose_shape_onnxruntime_cannot_infer() -> None:
    """The bodies of the Scans must tell the rank of their results themselves, as in files of tf2onnx."""
    constants = {
        "w": RNG.normal(size=(1, 12, 4)).astype(np.float32),
        "r": RNG.normal(size=(1, 12, 3)).astype(np.float32),
    }
    end = [
        node("Transpose", "same", "sequence", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["sequence", "w", "r"], ["y"], hidden_size=3),
    ]
    computed = [
        node("Shape", "x", "shape"),
        node("Max", "shape one", "sizes"),
        node("Reshape", "x sizes", "same"),
    ]
    x = RNG.normal(size=(2, 5, 4)).astype(np.float32)
    v = RNG.normal(size=(5, 1, 2, 3)).astype(np.float32)
    gradients = []
    for start, more in ((computed, {"one": np.array([1])}), ([node("Identity", "x", "same")], {})):
        model = build([*start, *end], constants | more, ("N", 5, 4), opset=13, element=TensorProto.FLOAT)
        gradients.append(run_checked(gradient_model(model), x, v)[-1])
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-6)


def test_last_states_of_an_lstm() -> None:
    """The last hidden state is the last entry of the sequence; the cell's is compared with differences."""
    w, r = RNG.normal(size=(1, 12, 4)).astype(np.float32), RNG.normal(size=(1, 12, 3)).astype(np.float32)
    names = ["y", "h", "c"]
    lstm = helper.make_node("LSTM", ["x", "w", "r"], names, hidden_size=3)
    constants = {"w": w, "r": r}
    outputs = {"y": 4, "h": 3, "c": 3}
    model = build([lstm], constants, (5, 2, 4), outputs, element=TensorProto.FLOAT)
    x = RNG.normal(size=(5, 2, 4)).astype(np.float32)
    v = RNG.normal(size=(1, 2, 3)).astype(np.float32)
    whole = np.concatenate([np.zeros((4, 1, 2, 3), np.float32), v[None]])
    by_sequence = run_checked(gradient_model(model, "y"), x, whole)[-1]
    np.testing.assert_allclose(
        run_checked(gradient_model(model, "h"), x, v)[-1], by_sequence, rtol=1e-4, atol=1e-6
    )

    def cell(images: Array) -> float:
        return float((run_checked(model, images.astype(np.float32))[2].astype(np.float64) * v).sum())

    found = run_checked(gradient_model(model, "c"), x, v)[-1]
    direction = RNG.normal(size=x.shape)
    slope = (cell(x + 1e-2 * direction) - cell(x - 1e-2 * direction)) / 2e-2
    np.testing.assert_allclose(np.sum(found * direction), slope, rtol=1e-2)
