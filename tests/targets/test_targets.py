"""One ensemble behind every kind of file gives the same logits and the same image gradients."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto

from ncen_tf.attack.cleverhans_attacks import BasicIterative, ProjectedGradientDescent
from ncen_tf.attack.losses import log_softmax
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.loading import load_data
from ncen_tf.export.manifest import Manifest
from ncen_tf.targets.interface import ModelInterface
from ncen_tf.targets.onnx_target import OnnxTarget
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import RecordedAccuracy, Target
from ncen_tf.targets.tensorflow_targets import TensorFlowTarget

with contextlib.suppress(ImportError):  # the tests that need it ask for `torch_resnet`
    import torch

Array = npt.NDArray[Any]


def logits_and_gradients(target: Target, images: Array) -> tuple[Array, Array]:
    """Member logits, and the gradient of a fixed mix of them."""
    logits, pull_back = target.linearize(images)
    mix = np.broadcast_to(np.linspace(-1, 1, logits.shape[2], dtype=np.float32), logits.shape)
    np.testing.assert_array_equal(pull_back(mix.copy()), target.gradient(images, mix.copy()))
    np.testing.assert_allclose(target.logits(images), logits, atol=1e-4)
    return logits, pull_back(mix.copy())


@pytest.mark.parametrize("where", ["keras", "saved_model", "ensemble.onnx", "export"])
def test_every_file_is_the_run(where: str, tiny_run: Path, tiny_export: Path) -> None:
    path = {"keras": tiny_run / "ensemble.keras", "export": tiny_export}.get(where, tiny_export / where)
    images = load_data("fashion_mnist_sample").test.float_images()[:9]
    target = open_target(path)
    assert (target.members, target.classes, target.image_shape) == (2, 10, (28, 28, 1))
    logits, gradients = logits_and_gradients(target, images)
    expected_logits, expected_gradients = logits_and_gradients(open_target(tiny_run), images)
    assert np.abs(logits - expected_logits).max() < 1e-4
    error = np.linalg.norm(gradients - expected_gradients) / np.linalg.norm(expected_gradients)
    assert error < 1e-4


def test_attacks_find_the_same_on_every_file(tiny_run: Path, tiny_export: Path) -> None:
    test = load_data("fashion_mnist_sample", test_examples=200).test
    images = test.float_images()
    suite = Suite(
        name="pgd",
        attacks=(ProjectedGradientDescent(eps=0.03, steps=10, step_size=0.01),),
        objective="ensemble",
    )
    paths = (tiny_run, tiny_export / "saved_model", tiny_export / "ensemble.onnx")
    found = [
        run_suite(open_target(path), images, test.labels, suite).attacks[0].predictions for path in paths
    ]
    robust = [int((predictions == test.labels).sum()) for predictions in found]
    assert max(robust) - min(robust) <= 1  # rounding may turn one image
    assert 0 < robust[0] < 0.9 * len(images)


def test_a_file_that_is_not_the_exported_one_is_refused(tiny_export: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_export, copy)
    model = onnx.load(copy / "ensemble.onnx")
    model.doc_string = "changed"
    onnx.save(model, copy / "ensemble.onnx")
    with pytest.raises(InputError, match="sha256 differs"):
        open_target(copy / "ensemble.onnx")
    assert open_target(copy / "ensemble.onnx", allow_unverified=True).recorded is None
    assert open_target(copy / "members" / "member_0.onnx").members == 1


def test_what_is_recorded_is_that_of_the_file(tiny_export: Path) -> None:
    manifest = Manifest.read(tiny_export)
    accuracy = manifest.accuracy
    ensemble = RecordedAccuracy(
        value=accuracy.clean_accuracy, examples=300, predictions_sha256=accuracy.predictions_sha256
    )
    int8 = manifest.reduced_precision["ensemble.int8.onnx"].clean_accuracy
    for name, expected in (
        (".", ensemble),
        ("saved_model", ensemble),
        ("ensemble.onnx", ensemble),
        ("ensemble.int8.onnx", RecordedAccuracy(value=int8, examples=300)),
        ("members/member_0.onnx", None),
    ):
        assert open_target(tiny_export / name, differentiable=False).recorded == expected


def test_a_run_takes_images_as_they_are(tiny_run: Path) -> None:
    with pytest.raises(InputError, match=r"takes images in \[0, 1\] as they are"):
        open_target(tiny_run, interface=ModelInterface(mean=(0.5,)))


def small_onnx(
    file: Path, nodes: list[Any], kind: int, initializers: dict[str, Array], ir_version: int = 10
) -> Path:
    """A model x [N, 2, 2, 1] -> y of some nodes."""
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in initializers.items()]
    inputs = [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 2, 1])]
    if ir_version < 4:  # which lists weights among the inputs
        inputs += [
            onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
            for name, value in initializers.items()
        ]
    output = onnx.helper.make_tensor_value_info("y", kind, ["N", None])
    graph = onnx.helper.make_graph(nodes, "scores", inputs, [output], weights)
    opsets = [onnx.helper.make_opsetid("", 11 if ir_version < 4 else 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=ir_version), file)
    return file


def test_scores_of_other_types(tmp_path: Path) -> None:
    flatten, node = onnx.helper.make_node("Flatten", ["x"], ["flat"]), onnx.helper.make_node
    argmax = small_onnx(
        tmp_path / "a.onnx", [flatten, node("ArgMax", ["flat"], ["y"], axis=1)], TensorProto.INT64, {}
    )
    with pytest.raises(InputError, match="are floats"):
        OnnxTarget(argmax, differentiable=False)
    images = np.random.default_rng(0).random((3, 2, 2, 1), np.float32)
    for kind in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        cast = small_onnx(tmp_path / "c.onnx", [flatten, node("Cast", ["flat"], ["y"], to=kind)], kind, {})
        target = OnnxTarget(cast)
        assert target.logits(images).dtype == np.float32
        np.testing.assert_allclose(target.logits(images)[:, 0], images.reshape(3, 4), atol=1e-3)
        cotangent = np.random.default_rng(1).random((3, 1, 4), np.float32)
        gradient = target.gradient(images, cotangent)
        np.testing.assert_allclose(gradient.reshape(3, 4), cotangent[:, 0], atol=1e-3)


def test_weights_that_are_listed_as_inputs(tmp_path: Path) -> None:
    weights = {"w": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)}
    nodes = [
        onnx.helper.make_node("Flatten", ["x"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    images = np.random.default_rng(1).random((2, 2, 2, 1), np.float32)
    for ir_version in (3, 4):
        target = OnnxTarget(small_onnx(tmp_path / "m.onnx", nodes, TensorProto.FLOAT, weights, ir_version))
        gradient = target.gradient(images, np.ones((2, 1, 3), np.float32))
        np.testing.assert_allclose(gradient.reshape(2, 4), [weights["w"].sum(1)] * 2, rtol=1e-5)


@pytest.fixture(scope="module")
def torch_resnet() -> Any:
    pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")
    from benchmarks.peers.torch_resnet import TorchResNet

    torch.manual_seed(0)
    network = TorchResNet(8, 1).eval()
    with torch.no_grad():  # biases away from zero, so that predictions differ between images
        network.fc.weight.mul_(20)
    return network


def export_torch(network: Any, file: Path, batch: int | None = None) -> Path:
    example = torch.zeros(batch or 2, 1, 28, 28)
    axes = None if batch else {"x": {0: "N"}, "y": {0: "N"}}
    torch.onnx.export(
        network, example, file, input_names=["x"], output_names=["y"], dynamic_axes=axes, dynamo=False
    )
    return file


def torch_pgd(network: Any, images: Array, labels: Array, start: Array, eps: float) -> Array:
    """PGD as its paper writes it, in PyTorch."""
    clean = torch.tensor((images - 0.2) / 0.5)
    x = torch.tensor(start)
    for _ in range(10):
        x.requires_grad_()
        loss = torch.nn.functional.cross_entropy(network((x - 0.2) / 0.5), torch.tensor(labels).long())
        (gradient,) = torch.autograd.grad(loss, x)
        original = clean * 0.5 + 0.2
        x = (x + 0.01 * gradient.sign()).detach()
        x = torch.clamp(torch.minimum(torch.maximum(x, original - eps), original + eps), 0, 1)
    with torch.no_grad():
        return network((x - 0.2) / 0.5).argmax(1).numpy()


def test_logits_without_a_gradient_are_the_same(torch_resnet: Any, tmp_path: Path) -> None:
    """The file as it is, and its half that keeps what a gradient needs."""
    file = export_torch(torch_resnet, tmp_path / "x.onnx")
    target = open_target(file, interface=ModelInterface(input_layout="NCHW"))
    images = np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32)
    logits, pull_back = target.linearize(images)
    np.testing.assert_allclose(target.logits(images), logits, atol=1e-4)
    assert np.abs(pull_back(np.ones_like(logits))).max() > 0


def test_a_pytorch_classifier_is_attacked_white_box(torch_resnet: Any, tmp_path: Path) -> None:
    """NCHW input, mean and deviation: the same robust accuracy as the same PGD inside PyTorch."""
    file = export_torch(torch_resnet, tmp_path / "torch.onnx")
    interface = ModelInterface(input_layout="NCHW", mean=(0.2,), std=(0.5,))
    target = open_target(file, interface=interface)
    images = load_data("fashion_mnist_sample", test_examples=400).test.float_images()
    with torch.no_grad():  # an untrained network's own answers are the labels
        nchw = images.transpose(0, 3, 1, 2)
        labels = torch_resnet(torch.tensor((nchw - 0.2) / 0.5)).argmax(1).numpy().astype(np.int32)
    eps = 0.02
    suite = Suite(
        name="bim", attacks=(BasicIterative(eps=eps, steps=10, step_size=0.01),), objective="ensemble"
    )
    result = run_suite(target, images, labels, suite)
    assert (result.clean_predictions == labels).all()
    ours = float((result.attacks[0].predictions == labels).mean())
    theirs = float((torch_pgd(torch_resnet, nchw, labels, nchw, eps) == labels).mean())
    assert abs(ours - theirs) <= 0.005
    assert ours < 0.9


def test_probabilities_are_attacked_through_their_logarithm(torch_resnet: Any, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch_resnet, torch.nn.Softmax(1))
    file = export_torch(network, tmp_path / "probabilities.onnx")
    with pytest.raises(InputError, match="`output`=probabilities"):
        OnnxTarget(file, ModelInterface(output="logits"))
    model = onnx.load(file)
    for node in model.graph.node:  # a Softmax at the end would be left out
        node.output[:] = ["scaled" if name == "y" else name for name in node.output]
    one = onnx.numpy_helper.from_array(np.ones(1, np.float32), "one")
    model.graph.initializer.append(one)
    model.graph.node.append(onnx.helper.make_node("Mul", ["scaled", "one"], ["y"]))
    onnx.save(model, file)
    target = OnnxTarget(file)
    assert not target.gives_logits
    logits = OnnxTarget(
        export_torch(torch_resnet, tmp_path / "logits.onnx"), ModelInterface(input_layout="NCHW")
    )
    images = np.random.default_rng(0).uniform(size=(3, 28, 28, 1)).astype(np.float32)
    expected = log_softmax(logits.logits(images).astype(float))
    np.testing.assert_allclose(target.logits(images), expected, atol=1e-4)
    u = np.random.default_rng(1).normal(size=(3, 1, 10)).astype(np.float32)
    p = np.exp(log_softmax(logits.logits(images).astype(float)))
    through = (u - p * u.sum(axis=2, keepdims=True)).astype(np.float32)  # the derivative of log-softmax
    gradient = logits.gradient(images, through)
    np.testing.assert_allclose(
        target.gradient(images, u), gradient, rtol=1e-2, atol=1e-3 * np.abs(gradient).max()
    )
    with pytest.raises(InputError, match="`output`=logits"):
        OnnxTarget(tmp_path / "logits.onnx", ModelInterface(input_layout="NCHW", output="probabilities"))


def test_models_that_cannot_be_targets_are_refused(tiny_export: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes((tiny_export / "ensemble.onnx").read_bytes()[:100_000])
    unknown = tmp_path / "unknown.onnx"
    model = onnx.load(tiny_export / "ensemble.onnx")
    next(node for node in model.graph.node if node.op_type == "LeakyRelu").op_type = "Round"
    model.graph.node[2].ClearField("attribute")
    onnx.save(model, unknown)
    cases: list[tuple[Path, ModelInterface | None, str]] = [
        (tmp_path / "absent.onnx", None, "does not exist"),
        (text, None, "not an ONNX model"),
        (truncated, None, "not an ONNX model"),
        (unknown, None, "Round"),
        (tiny_export / "ensemble.onnx", ModelInterface(output_name="nothing"), "no output 'nothing'"),
        (tiny_export / "ensemble.onnx", ModelInterface(mean=(0.1, 0.2)), "2 values for 1 channels"),
        (tmp_path, None, "not a run directory"),
        (Path(__file__), None, "ends in .keras or .onnx"),
    ]
    for path, interface, says in cases:
        with pytest.raises(InputError, match=says):
            open_target(path, interface=interface)
    with pytest.raises(InputError, match="has no NoSuchProvider"):
        open_target(tiny_export / "ensemble.onnx", providers=("NoSuchProvider",))
    for settings in (
        {"input_layout": "HWCN"},
        {"output": "scores"},
        {"std": (0.0,)},
        {"input_range": (1, 0)},
        {"channel_order": "GBR"},
    ):
        with pytest.raises(InputError, match="`"):
            ModelInterface(**settings)


def test_a_model_that_fails_on_another_batch_size_is_refused() -> None:
    target = TensorFlowTarget(lambda images: tf.reshape(images, [2, 16])[:, :3], (4, 4, 1), "the model", "")
    images = np.zeros((3, 4, 4, 1), np.float32)
    with pytest.raises(InputError, match=r"^the model fails on images of shape \[3, 4, 4, 1\]: "):
        target.logits(images)
    with pytest.raises(InputError, match=r"^the model fails on images of shape \[3, 4, 4, 1\]: "):
        target.linearize(images)


def test_nan_weights_are_refused(tiny_export: Path, tmp_path: Path, refuse: Callable[..., None]) -> None:
    model = onnx.load(tiny_export / "ensemble.onnx")
    kernel = next(i for i in model.graph.initializer if len(i.dims) == 4)
    values = onnx.numpy_helper.to_array(kernel).copy()
    values.ravel()[0] = np.nan
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    file = tmp_path / "nan.onnx"
    onnx.save(model, file)
    refuse("attack", f"--target={file}", "--dataset=fashion_mnist_sample", "--suite=quick", says="NaN")
