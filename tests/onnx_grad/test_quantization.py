"""Straight-through gradients of quantized models: by hand in NumPy, and of what onnxruntime's tools write."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from ncen_tf.onnx_grad import UnsupportedOpError, gradient_model

Array = NDArray[Any]
RNG = np.random.default_rng(0)


def model_of(
    nodes: list[onnx.NodeProto], weights: dict[str, Array], image: list[Any], classes: int, opset: int = 17
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *image])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def gradient(model: onnx.ModelProto, x: Array, v: Array) -> tuple[Array, Array]:
    result = gradient_model(model, quantization="straight_through")
    session = onnxruntime.InferenceSession(result.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    y, found = session.run(None, dict(zip(names, (x, v), strict=True)))
    return y, found


def relative_error(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_pairs_of_quantization_pass_the_gradient_within_their_bounds() -> None:
    """y = W dq(q(relu(V dq(q(x))))), where zero points and scales cut off some of the values."""
    v1, w2 = RNG.normal(size=(6, 8)).astype(np.float32), RNG.normal(size=(8, 3)).astype(np.float32)
    s1, z1, s2, z2 = np.float32(0.01), np.int8(-20), np.float32(0.015), np.uint8(30)
    wq = np.clip(np.round(w2 / 0.02), -128, 127).astype(np.int8)
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "s1", "z1"], ["q1"]),
        node("DequantizeLinear", ["q1", "s1", "z1"], ["d1"]),
        node("MatMul", ["d1", "v1"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("QuantizeLinear", ["r", "s2", "z2"], ["q2"]),
        node("DequantizeLinear", ["q2", "s2", "z2"], ["d2"]),
        node("DequantizeLinear", ["wq", "sw", "zw"], ["w"], axis=1),
        node("MatMul", ["d2", "w"], ["y"]),
    ]
    sw = np.array([0.02, 0.03, 0.01], np.float32)
    weights = {
        "s1": s1,
        "z1": z1,
        "s2": s2,
        "z2": z2,
        "wq": wq,
        "sw": sw,
        "zw": np.zeros(3, np.int8),
        "v1": v1,
    }
    x, v = RNG.normal(size=(5, 6)).astype(np.float32), RNG.normal(size=(5, 3)).astype(np.float32)
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    y, found = gradient(model_of(nodes, arrays, [6], 3), x, v)

    q1 = np.round(x / s1) + z1
    inside1 = (q1 >= -128) & (q1 <= 127)
    hidden = (np.clip(q1, -128, 127) - z1) * s1 @ v1
    q2 = np.round(np.maximum(hidden, 0) / s2) + z2
    inside2 = (q2 >= 0) & (q2 <= 255)
    assert 0.1 < inside1.mean() < 0.98
    assert 0.1 < inside2.mean() < 0.98
    np.testing.assert_allclose(y, (np.clip(q2, 0, 255) - z2) * s2 @ (wq * sw), rtol=1e-4, atol=1e-4)
    expected = (v @ (wq * sw).T * inside2 * (hidden > 0)) @ v1.T * inside1
    assert relative_error(found, expected) < 1e-5


@pytest.fixture(scope="module")
def convolutional() -> onnx.ModelProto:
    """Two convolutions, a shortcut, a pool and a dense layer."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "k1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "k2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["a"]),
        node("Relu", ["a"], ["r2"]),
        node("MaxPool", ["r2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "w"], ["m"]),
        node("Add", ["m", "b"], ["y"]),
    ]
    shapes: dict[str, tuple[int, ...]] = {
        "k1": (8, 3, 3, 3), "b1": (8,), "k2": (8, 8, 3, 3), "b2": (8,), "w": (128, 5), "b": (5,)
    }  # fmt: skip
    weights = {
        name: (RNG.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    return model_of(nodes, weights, [3, 8, 8], 5)


class Images(CalibrationDataReader):
    def __init__(self, x: Array) -> None:
        self.left = [x]

    def get_next(self) -> dict[str, Array] | None:
        return {"x": self.left.pop()} if self.left else None


def quantized(model: onnx.ModelProto, folder: Path, how: str, images: Array) -> onnx.ModelProto:
    source, target = os.fspath(folder / "float.onnx"), os.fspath(folder / f"{how}.onnx")
    onnx.save(model, source)
    if how == "dynamic":
        quantize_dynamic(source, target)
    else:
        per_channel = how == "per channel"
        quantize_static(source, target, Images(images), quant_format=QuantFormat.QDQ, per_channel=per_channel)
    return onnx.load(target)


@pytest.mark.parametrize("how", ["per tensor", "per channel", "dynamic"])
def test_what_onnxruntime_quantizes(how: str, convolutional: onnx.ModelProto, tmp_path: Path) -> None:
    """The gradient is near that of the float model, and the output is that of the quantized one."""
    x, v = RNG.random((6, 3, 8, 8), np.float32), RNG.normal(size=(6, 5)).astype(np.float32)
    model = quantized(convolutional, tmp_path, how, x)
    with pytest.raises(UnsupportedOpError, match="`quantization`=straight_through"):
        gradient_model(model)
    y, found = gradient(model, x, v)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    # Fusing of integer operators differs between the two graphs: by a step of quantization at most.
    np.testing.assert_allclose(y, session.run(None, {"x": x})[0], atol=0.02)
    _, exact = gradient(convolutional, x, v)
    # Where the pool's largest entries tie after rounding, single entries of the gradient move.
    assert relative_error(found, exact) < 0.35
    assert float(np.sum(found * exact)) > 0.94 * float(np.linalg.norm(found) * np.linalg.norm(exact))


@pytest.mark.parametrize("op", ["MatMulInteger", "ConvInteger"])
def test_integer_products(op: str) -> None:
    """Cast(op(DynamicQuantizeLinear(x), W)) * scales, with W's own zero point."""
    kernel = RNG.integers(0, 255, (4, 2, 3, 3) if op == "ConvInteger" else (12, 4), np.uint8)
    image = [2, 5, 4] if op == "ConvInteger" else [12]
    node = helper.make_node
    attributes: dict[str, Any] = {"pads": [1, 1, 1, 1], "strides": [2, 2]} if op == "ConvInteger" else {}
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node(op, ["q", "w", "z", "zw"], ["i"], **attributes),
        node("Cast", ["i"], ["c"], to=TensorProto.FLOAT),
        node("Mul", ["c", "s"], ["scaled"]),
        node("Flatten", ["scaled"], ["y"]),
    ]
    zero = np.array(120, np.uint8)
    model = model_of(nodes, {"w": kernel, "zw": zero}, image, 24 if op == "ConvInteger" else 4)
    x = RNG.normal(size=(3, *image)).astype(np.float32)
    v = RNG.normal(size=(3, 24 if op == "ConvInteger" else 4)).astype(np.float32)
    _, found = gradient(model, x, v)

    floats = kernel.astype(np.float32) - 120  # the model without rounding is linear
    node_op, inputs = ("Conv", ["x", "w"]) if op == "ConvInteger" else ("MatMul", ["x", "w"])
    linear = model_of(
        [node(node_op, inputs, ["c"], **attributes), node("Flatten", ["c"], ["y"])],
        {"w": floats},
        image,
        v.shape[1],
    )
    assert relative_error(found, gradient(linear, x, v)[1]) < 1e-5


def test_rounding_is_refused_or_passed() -> None:
    """round(255 x) / 255 by the operator Round: a step function, whose gradient would be zero everywhere."""
    node = helper.make_node
    nodes = [node("Mul", ["x", "s"], ["m"]), node("Round", ["m"], ["r"]), node("Div", ["r", "s"], ["y"])]
    model = model_of(nodes, {"s": np.array(255, np.float32)}, [4], 4)
    with pytest.raises(UnsupportedOpError, match=r"Round .* quantizes"):
        gradient_model(model)
    v = RNG.normal(size=(2, 4)).astype(np.float32)
    _, found = gradient(model, RNG.random((2, 4), np.float32), v)
    np.testing.assert_allclose(found, v, rtol=1e-6)


def test_shape_of_a_quantized_tensor() -> None:
    """Shapes that are read from integers are no path of the gradient."""
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("Shape", ["q"], ["shape"], end=1),
        node("Concat", ["shape", "minus"], ["target"], axis=0),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("Reshape", ["d", "target"], ["y"]),
    ]
    weights: dict[str, Array] = {
        "s": np.array(0.1, np.float32), "z": np.array(0, np.int8), "minus": np.array([-1])
    }  # fmt: skip
    v = RNG.normal(size=(2, 6)).astype(np.float32)
    _, found = gradient(model_of(nodes, weights, [2, 3], 6), RNG.random((2, 2, 3), np.float32), v)
    np.testing.assert_allclose(found, v.reshape(2, 2, 3), rtol=1e-6)


def test_unknown_word_is_refused(convolutional: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="`quantization` must be 'straight_through' or None, got 'ste'"):
        gradient_model(convolutional, quantization="ste")
