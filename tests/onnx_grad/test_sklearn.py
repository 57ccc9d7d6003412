"""Pipelines of the operators that scikit-learn's converter writes, in onnxruntime."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from ncen_tf.onnx_grad import UnsupportedOpError, gradient_model
from tests.onnx_grad.graphs import RNG, Array

DOMAIN = "ai.onnx.ml"
FEATURES, CLASSES = 5, 3


def ml(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), domain=DOMAIN, **attributes)


def pipeline(norm: str = "L2", transform: str = "SOFTMAX", **labels: Any) -> onnx.ModelProto:
    """Scale, pick, normalize and classify; divide the scores by their sum."""
    labels = labels or {"classlabels_ints": [4, 2, 7]}
    kind = TensorProto.INT64 if "classlabels_ints" in labels else TensorProto.STRING
    nodes = [
        ml("Scaler", "x", "a", offset=RNG.normal(size=FEATURES), scale=RNG.uniform(1, 2, FEATURES)),
        ml("ArrayFeatureExtractor", "a picked", "b"),
        ml("Normalizer", "b", "c", norm=norm),
        ml(
            "LinearClassifier",
            "c",
            "label scores",
            coefficients=RNG.normal(size=CLASSES * 4),
            intercepts=RNG.normal(size=CLASSES),
            post_transform=transform,
            **labels,
        ),
        ml("Normalizer", "scores", "y", norm="L1"),
    ]
    graph = helper.make_graph(
        nodes,
        "pipeline",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", FEATURES])],
        [
            helper.make_tensor_value_info("label", kind, ["N"]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES]),
        ],
        [onnx.numpy_helper.from_array(np.array([3, 0, 0, 4]), "picked")],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def run(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@pytest.mark.parametrize("norm", ["L1", "L2"])
@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC"])
def test_gradient_is_that_of_finite_differences(norm: str, transform: str) -> None:
    model = pipeline(norm, transform)
    differentiated = gradient_model(model, "y")
    x, v = RNG.normal(size=(4, FEATURES)), RNG.normal(size=(4, CLASSES)).astype(np.float32)
    step = 1e-2
    expected = np.zeros_like(x)
    for at in np.ndindex(*x.shape):
        change = np.zeros_like(x)
        change[at] = step
        high, low = (run(model, {"x": (x + s * change).astype(np.float32)})[1] for s in (1, -1))
        expected[at] = np.sum(v * (high - low)) / (2 * step)
    label, y, gradient = run(differentiated, {"x": x.astype(np.float32), "y_cotangent": v})
    np.testing.assert_allclose(gradient, expected, atol=2e-3 * np.abs(expected).max())
    expected_label, expected_y = run(model, {"x": x.astype(np.float32)})
    np.testing.assert_array_equal(label, expected_label)
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-6)


def test_labels_of_text() -> None:
    model = pipeline(classlabels_strings=["cat", "dog", "cow"])
    x = RNG.normal(size=(8, FEATURES)).astype(np.float32)
    v = np.ones((8, CLASSES), np.float32)
    label, *_ = run(gradient_model(model, "y"), {"x": x, "y_cotangent": v})
    np.testing.assert_array_equal(label, run(model, {"x": x})[0])


def test_what_is_refused() -> None:
    with pytest.raises(UnsupportedOpError, match=r"Normalizer .* largest entry"):
        gradient_model(pipeline("MAX"), "y")
    with pytest.raises(UnsupportedOpError, match=r"LinearClassifier .* as PROBIT"):
        gradient_model(pipeline(transform="PROBIT"), "y")
    with pytest.raises(UnsupportedOpError, match="3 scores for 2 classes"):
        gradient_model(pipeline(classlabels_ints=[0, 1]), "y")
