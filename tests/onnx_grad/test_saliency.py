"""Gradients by tensors inside a model, and heat maps, against PyTorch and finite differences."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ncen_tf.onnx_grad import gradient_model
from ncen_tf.onnx_grad.saliency import saliency

Array = NDArray[Any]
RNG = np.random.default_rng(0)
K1, K2 = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32), RNG.normal(size=(5, 4, 3, 3)).astype(np.float32)
HEAD = RNG.normal(size=(5, 6)).astype(np.float32)
IMAGES = RNG.random((3, 3, 8, 8)).astype(np.float32)
LABELS = [5, 0, 2]


def network(batch: str | int = "N", softplus: bool = False) -> onnx.ModelProto:
    """Two strided convolutions with activations, a global average and a dense layer."""
    node = helper.make_node
    act = "Softplus" if softplus else "Relu"
    nodes = [
        node("Conv", ["x", "k1"], ["c1"], pads=[1, 1, 1, 1]),
        node(act, ["c1"], ["r1"]),
        node("Conv", ["r1", "k2"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node(act, ["c2"], ["features"]),
        node("GlobalAveragePool", ["features"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("MatMul", ["flat", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 6])],
        [numpy_helper.from_array(value, name) for name, value in (("k1", K1), ("k2", K2), ("head", HEAD))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def in_torch(images: Array) -> tuple[Any, Any, Any]:
    """The same network: image, features, logits, all part of one graph of autograd."""
    torch = pytest.importorskip("torch")
    x = torch.tensor(images, requires_grad=True)
    hidden = torch.nn.functional.conv2d(x, torch.tensor(K1), padding=1).relu()
    features = torch.nn.functional.conv2d(hidden, torch.tensor(K2), stride=2, padding=1).relu()
    return x, features, features.mean((2, 3)) @ torch.tensor(HEAD)


def test_gradient_by_an_inner_tensor_matches_autograd() -> None:
    torch = pytest.importorskip("torch")
    v = RNG.normal(size=(3, 6)).astype(np.float32)
    model = gradient_model(network(), tensor="features")
    assert [value.name for value in model.graph.output] == ["logits", "features", "features_gradient"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    _, features, found = session.run(None, {"x": IMAGES, "logits_cotangent": v})
    _, inner, logits = in_torch(IMAGES)
    (expected,) = torch.autograd.grad(logits, inner, torch.tensor(v))
    np.testing.assert_allclose(features, inner.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_inner_tensor_that_is_missing_or_follows_the_output_is_refused() -> None:
    with pytest.raises(ValueError, match="the model has no tensor of floats 'r9'"):
        gradient_model(network(), tensor="r9")
    model = network()
    model.graph.output.insert(0, helper.make_tensor_value_info("c1", TensorProto.FLOAT, ["N", 4, 8, 8]))
    with pytest.raises(ValueError, match="'c1' does not depend on 'features'"):
        gradient_model(model, output="c1", tensor="features")


@pytest.mark.parametrize("batch", ["N", 1, 2])
def test_plain_gradient_and_grad_cam_match_autograd(batch: str | int, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "network.onnx"
    onnx.save(network(batch), path)
    x, features, logits = in_torch(IMAGES)
    scores = logits[torch.arange(3), torch.tensor(LABELS)].sum()
    by_image, by_features = torch.autograd.grad(scores, (x, features))
    found = saliency(path, IMAGES, LABELS)
    np.testing.assert_allclose(found, by_image.abs().amax(1).numpy(), rtol=1e-4, atol=1e-6)

    heat = (by_features.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    expected = torch.nn.functional.interpolate(heat, (8, 8), mode="bilinear", align_corners=False)[:, 0]
    for layer in (None, "features"):
        found = saliency(path, IMAGES, LABELS, "grad_cam", layer=layer)
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_integrated_gradients_sum_to_the_difference_of_the_scores() -> None:
    """And each pixel's is what a brute-force sum of finite differences gives."""
    model = network(softplus=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def score(images: Array, label: int) -> Array:
        return np.asarray(session.run(None, {"x": images.astype(np.float32)})[0][:, label], np.float64)

    baseline = np.full((3, 8, 8), 0.5, np.float32)
    found = saliency(model, IMAGES, LABELS, "integrated_gradients", baseline=baseline, steps=20)
    for image, label, heat in zip(IMAGES, LABELS, found, strict=True):
        expected = score(image[None], label) - score(baseline[None], label)
        np.testing.assert_allclose(heat.sum(), expected[0], rtol=2e-3)
    row, column = 2, 5
    total = 0.0
    for share in (np.arange(20) + 0.5) / 20:
        place = baseline + share * (IMAGES[0] - baseline)
        for channel in range(3):
            step = np.zeros((3, 8, 8))
            step[channel, row, column] = 1e-2
            slope = (score((place + step)[None], 5) - score((place - step)[None], 5))[0] / 2e-2
            total += slope * (IMAGES[0] - baseline)[channel, row, column] / 20
    np.testing.assert_allclose(found[0, row, column], total, rtol=1e-2)


def test_members_and_images_of_channels_last() -> None:
    """Scores of an ensemble add up over its members; images [N, height, width, channels] give [N, h, w]."""
    node = helper.make_node
    weights = RNG.normal(size=(2, 12, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            node("Flatten", ["x"], ["f"]),
            node("Unsqueeze", ["f", "axes"], ["u"]),
            node("MatMul", ["u", "w"], ["m"]),
            node("Transpose", ["m"], ["y"], perm=[1, 0, 2]),
        ],
        "members",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2, 4])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([0]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    images = RNG.random((2, 2, 2, 3), np.float32)
    found = saliency(model, images, [1, 3], channel_axis=-1)
    expected = np.abs(weights.sum(0)[:, [1, 3]].T.reshape(2, 2, 2, 3)).max(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "lime"}, "`method` must be one of gradient, integrated_gradients, grad_cam, got 'lime'"),
        ({"labels": [0, 1, 6]}, "`labels` must be from 0 to 5"),
        ({"labels": [0]}, "`labels`"),
        ({"method": "integrated_gradients", "steps": 0}, "`steps` must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        saliency(network(), IMAGES, **{"labels": LABELS, **arguments})
