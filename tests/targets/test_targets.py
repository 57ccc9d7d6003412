"""One ensemble behind every kind of file gives the same logits and the same image gradients."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tensorflow as tf
from ncen_tf.attack.basic_iterative import BasicIterative
from ncen_tf.attack.projected_gradient_descent import ProjectedGradientDescent
from onnx import TensorProto

from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split, load_data
from ncen_tf.targets.onnx_target import OnnxInterface, OnnxTarget
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target

Array = npt.NDArray[Any]


def pixels(split: Split) -> npt.NDArray[np.float32]:
    return (split.images / 255).astype(np.float32)


def logits_and_gradients(target: Target, images: Array) -> tuple[Array, Array]:
    """Member logits, and the gradient of a fixed mix of them."""
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = target.member_logits(x)
        mix = tf.reduce_sum(logits * np.linspace(-1, 1, logits.shape[2], dtype=np.float32))
    return logits.numpy(), tape.gradient(mix, x).numpy()


@pytest.mark.parametrize("where", ["keras", "saved_model", "ensemble.onnx", "export"])
def test_every_file_is_the_run(where: str, tiny_run: Path, tiny_export: Path) -> None:
    path = {"keras": tiny_run / "ensemble.keras", "export": tiny_export}.get(where, tiny_export / where)
    images = pixels(load_data("fashion_mnist_sample").test)[:9]
    target = open_target(path).target
    assert (target.members, target.classes, target.image_shape) == (2, 10, (28, 28, 1))
    logits, gradients = logits_and_gradients(target, images)
    expected_logits, expected_gradients = logits_and_gradients(open_target(tiny_run).target, images)
    assert np.abs(logits - expected_logits).max() < 1e-4
    error = np.linalg.norm(gradients - expected_gradients) / np.linalg.norm(expected_gradients)
    assert error < 1e-4


def test_attacks_find_the_same_on_every_file(tiny_run: Path, tiny_export: Path) -> None:
    test = load_data("fashion_mnist_sample", test_examples=200).test
    images = pixels(test)
    suite = Suite("pgd", (ProjectedGradientDescent(eps=0.03, steps=10, step_size=0.01),))
    paths = (tiny_run, tiny_export / "saved_model", tiny_export / "ensemble.onnx")
    found = [
        run_suite(open_target(path).target, images, test.labels, suite, "ensemble").attacks[0].predictions
        for path in paths
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
    assert open_target(copy / "ensemble.onnx", allow_unverified=True).manifest is None
    assert open_target(copy / "members" / "member_0.onnx").manifest is not None


def test_what_is_recorded_is_that_of_the_file(tiny_export: Path) -> None:
    manifest = json.loads((tiny_export / "manifest.json").read_text())
    int8 = manifest["reduced_precision"]["ensemble.int8.onnx"]["ace"]
    ensemble = manifest["accuracy"]["ace"]
    for name, expected in (
        (".", ensemble),
        ("saved_model", ensemble),
        ("ensemble.onnx", ensemble),
        ("ensemble.int8.onnx", int8),
        ("members/member_0.onnx", None),
    ):
        assert open_target(tiny_export / name, differentiable=False).recorded_ace == expected


def test_settings_of_onnx_files_are_refused_for_others(tiny_run: Path, tiny_export: Path) -> None:
    for path in (tiny_run, tiny_export / "saved_model"):
        with pytest.raises(InputError, match="is no ONNX file"):
            open_target(path, interface=OnnxInterface(mean=(0.5,)))


@pytest.mark.parametrize("last", ["Cast", "ArgMax"])
def test_outputs_that_are_no_float32_scores_are_refused(last: str, tmp_path: Path) -> None:
    kind = {"Cast": TensorProto.DOUBLE, "ArgMax": TensorProto.INT64}[last]
    settings: dict[str, Any] = {"to": TensorProto.DOUBLE} if last == "Cast" else {"axis": 1}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Flatten", ["x"], ["flat"]),
            onnx.helper.make_node(last, ["flat"], ["y"], **settings),
        ],
        "scores",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 2, 1])],
        [onnx.helper.make_tensor_value_info("y", kind, ["N", None])],
    )
    file = tmp_path / "scores.onnx"
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), file)
    with pytest.raises(InputError, match="are float32"):
        OnnxTarget(file, differentiable=False)


torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def torch_resnet() -> Any:
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


def test_answers_without_a_gradient_are_the_same(torch_resnet: Any, tmp_path: Path) -> None:
    """The file as it is, and its half that keeps what a gradient needs."""
    target = open_target(
        export_torch(torch_resnet, tmp_path / "x.onnx"), interface=OnnxInterface(layout="NCHW")
    ).target
    objective = Objective(target, "ensemble")
    images = tf.constant(np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(images)
        differentiable = objective.log_probabilities(images)
        first = differentiable[:, 0]
    np.testing.assert_allclose(objective.answer(images), differentiable, atol=1e-4)
    assert (objective.queries, objective.gradients) == (8, 0)
    assert np.abs(tape.gradient(first, images)).max() > 0
    assert (objective.queries, objective.gradients) == (8, 4)


def test_a_pytorch_classifier_is_attacked_white_box(torch_resnet: Any, tmp_path: Path) -> None:
    """NCHW input, mean and deviation: the same robust accuracy as the same PGD inside PyTorch."""
    file = export_torch(torch_resnet, tmp_path / "torch.onnx")
    interface = OnnxInterface(layout="NCHW", mean=[0.2], std=[0.5])
    target = open_target(file, interface=interface).target
    images = pixels(load_data("fashion_mnist_sample", test_examples=400).test)
    with torch.no_grad():  # an untrained network's own answers are the labels
        nchw = images.transpose(0, 3, 1, 2)
        labels = torch_resnet(torch.tensor((nchw - 0.2) / 0.5)).argmax(1).numpy().astype(np.int32)
    eps = 0.02
    suite = Suite("bim", (BasicIterative(eps=eps, steps=10, step_size=0.01),))
    result = run_suite(target, images, labels, suite, "ensemble")
    assert (result.clean_predictions == labels).all()
    ours = float((result.attacks[0].predictions == labels).mean())
    theirs = float((torch_pgd(torch_resnet, nchw, labels, nchw, eps) == labels).mean())
    assert abs(ours - theirs) <= 0.005
    assert ours < 0.9


def test_probabilities_are_attacked_through_their_logarithm(torch_resnet: Any, tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch_resnet, torch.nn.Softmax(1))
    file = export_torch(network, tmp_path / "probabilities.onnx")
    with pytest.raises(InputError, match="--output=probabilities"):
        OnnxTarget(file, OnnxInterface(layout="NCHW"))
    target = OnnxTarget(file, OnnxInterface(layout="NCHW", output="probabilities"))
    assert not target.gives_logits
    logits = OnnxTarget(export_torch(torch_resnet, tmp_path / "logits.onnx"), OnnxInterface(layout="NCHW"))
    images = np.random.default_rng(0).uniform(size=(3, 28, 28, 1)).astype(np.float32)
    np.testing.assert_allclose(
        target.member_logits(images), tf.nn.log_softmax(logits.member_logits(images)), atol=1e-4
    )
    with pytest.raises(InputError, match="--output=logits"):
        OnnxTarget(tmp_path / "logits.onnx", OnnxInterface(layout="NCHW", output="probabilities"))


def test_models_that_cannot_be_targets_are_refused(
    torch_resnet: Any, tiny_export: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a model")
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes((tiny_export / "ensemble.onnx").read_bytes()[:100_000])
    unknown = tmp_path / "unknown.onnx"
    model = onnx.load(tiny_export / "ensemble.onnx")
    next(node for node in model.graph.node if node.op_type == "LeakyRelu").op_type = "Round"
    model.graph.node[2].ClearField("attribute")
    onnx.save(model, unknown)
    cases: list[tuple[Path, OnnxInterface | None, str]] = [
        (tmp_path / "absent.onnx", None, "does not exist"),
        (text, None, "not an ONNX model"),
        (truncated, None, "not an ONNX model"),
        (unknown, None, "Round"),
        (
            export_torch(torch_resnet, tmp_path / "fixed.onnx", batch=1),
            OnnxInterface("NCHW"),
            "dynamic batch",
        ),
        (tiny_export / "ensemble.onnx", OnnxInterface(output_name="nothing"), "no output 'nothing'"),
        (tiny_export / "ensemble.onnx", OnnxInterface(mean=[0.1, 0.2]), "2 values for 1 channels"),
        (tmp_path, None, "not a run directory"),
        (Path(__file__), None, "ends in .keras or .onnx"),
    ]
    for path, interface, says in cases:
        with pytest.raises(InputError, match=says):
            open_target(path, interface=interface)
    with pytest.raises(InputError, match="has no NoSuchProvider"):
        open_target(tiny_export / "ensemble.onnx", providers=("NoSuchProvider",))
    for settings in ({"layout": "HWCN"}, {"output": "scores"}, {"std": [0.0]}):
        with pytest.raises(InputError, match="--"):
            OnnxInterface(**settings)


def test_nan_weights_are_refused(tiny_export: Path, tmp_path: Path, refuse: Callable[..., None]) -> None:
    model = onnx.load(tiny_export / "ensemble.onnx")
    kernel = next(i for i in model.graph.initializer if len(i.dims) == 4)
    values = onnx.numpy_helper.to_array(kernel).copy()
    values.ravel()[0] = np.nan
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    file = tmp_path / "nan.onnx"
    onnx.save(model, file)
    refuse("attack", f"--target={file}", "--dataset=fashion_mnist_sample", "--suite=quick", says="NaN")
