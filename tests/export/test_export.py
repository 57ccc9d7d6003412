"""Exports: the same ensemble in every file, written whole or not at all."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.export.export import MAX_DIFFERENCE
from ncen_tf.export.manifest import Manifest
from tests.conftest import ROOT, Program
from tests.export.conftest import own_data, own_ensemble


def run_file(file: Path, output: str, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    answer: np.ndarray = session.run([output], {"image": images})[0]
    return answer


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=shape).astype(np.float32)


def test_manifest_describes_what_was_exported(tiny_run: Path, tiny_export: Path) -> None:
    manifest, run = Manifest.read(tiny_export), ncen_tf.open_run(tiny_run)
    assert run.summary is not None
    assert manifest.accuracy.clean_accuracy == run.summary.test.clean_accuracy
    assert manifest.accuracy.test_examples == 300
    assert manifest.training == run.config
    assert manifest.epochs_trained == 2
    assert set(manifest.parity) == {"ensemble.onnx", "saved_model", "members"}
    for parity in manifest.parity.values():
        assert parity.images == 300
        assert 0 <= parity.max_difference < MAX_DIFFERENCE
        assert parity.different_predictions == 0
    assert set(manifest.reduced_precision) == {"ensemble.float16.onnx", "ensemble.int8.onnx"}
    sizes = {name: entry.size for name, entry in manifest.files.items()}
    assert sizes["ensemble.float16.onnx"] < 0.6 * sizes["ensemble.onnx"]
    assert sizes["ensemble.int8.onnx"] < 0.6 * sizes["ensemble.onnx"]


def test_onnx_file_describes_itself_and_folds_batch_norm(tiny_export: Path) -> None:
    model = onnx.load(tiny_export / "ensemble.onnx")
    onnx.checker.check_model(model, full_check=True)
    operations = [node.op_type for node in model.graph.node]
    assert operations.count("Conv") == 2 * 7
    assert not {"BatchNormalization", "Mul", "Sub", "Rsqrt"} & set(operations)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["dataset"] == "fashion_mnist_sample"
    assert json.loads(properties["class_names"])[9] == "Ankle boot"
    assert json.loads(properties["input"])["range"] == [0, 1]
    assert json.loads(properties["members"]) == ["resnet8", "resnet8"]
    session = onnxruntime.InferenceSession(tiny_export / "ensemble.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("image", "tensor(float)", ["N", 28, 28, 1])
    ]
    assert {o.name: o.shape for o in session.get_outputs()} == {
        "probabilities": ["N", 10],
        "member_logits": ["N", 2, 10],
    }


def test_members_are_the_ensembles_members(tiny_export: Path) -> None:
    images = images_of(3, 28, 28, 1)
    together = run_file(tiny_export / "ensemble.onnx", "member_logits", images)
    for index in range(2):
        alone = run_file(tiny_export / f"members/member_{index}.onnx", "member_logits", images)
        np.testing.assert_allclose(alone[:, 0], together[:, index], atol=1e-5)


def test_saved_model_serves_without_this_package(tiny_run: Path, tiny_export: Path, tmp_path: Path) -> None:
    images = images_of(4, 28, 28, 1)
    expected = ncen_tf.load_ensemble(tiny_run).predict(images, verbose=0)
    np.savez(tmp_path / "in_out.npz", images=images, expected=expected)
    script = (
        "import sys; sys.modules['ncen_tf'] = None\n"  # Any import of it now fails.
        "import numpy as np, tensorflow as tf\n"
        f"arrays = np.load({str(tmp_path / 'in_out.npz')!r})\n"
        f"serve = tf.saved_model.load({str(tiny_export / 'saved_model')!r}).signatures['serving_default']\n"
        "out = serve(image=tf.constant(arrays['images']))\n"
        "assert set(out) == {'probabilities', 'member_logits'}\n"
        "assert np.abs(out['probabilities'] - arrays['expected']).max() < 1e-6\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=200)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16", "float64"])
def test_members_of_any_architecture_and_precision_are_exported(policy: str, tmp_path: Path) -> None:
    keras.mixed_precision.set_global_policy(policy)
    ensemble = own_ensemble(
        lambda: keras.layers.Conv2D(5, 3, activation="gelu"),
        keras.layers.BatchNormalization,
        lambda: keras.layers.Dropout(0.5),
        lambda: keras.layers.AveragePooling2D(2),
        keras.layers.LayerNormalization,
    )
    keras.mixed_precision.set_global_policy("float32")
    data = own_data()
    manifest = ncen_tf.export_ensemble(ensemble, tmp_path / "own", data=data, members=True)
    assert Manifest.read(tmp_path / "own") == manifest
    assert manifest.class_names == ("a", "b", "c", "d")
    assert manifest.input.shape == ("N", 12, 10, 3)
    assert manifest.training is None
    assert manifest.members == tuple(member.name for member in ensemble.members)
    tolerance = {"float32": 1e-6, "mixed_float16": 2e-3, "mixed_bfloat16": 2e-2, "float64": 1e-6}[policy]
    answers = run_file(tmp_path / "own/ensemble.onnx", "probabilities", data.float_images())
    np.testing.assert_allclose(answers, ensemble.predict(data.images, verbose=0), atol=tolerance)
    ncen_tf.verify_export(tmp_path / "own", data)


def test_classes_without_names_are_numbered_and_wrong_names_refused(tmp_path: Path) -> None:
    few = Split(own_data().images, (np.arange(40) % 3).astype(np.int32))
    manifest = ncen_tf.export_ensemble(own_ensemble(), tmp_path / "own", data=few, formats=["onnx"])
    assert manifest.class_names == ("0", "1", "2", "3")
    named = Split(few.images, few.labels, "own", ("a", "b", "c"))
    with pytest.raises(InputError, match="3 classes, and the ensemble gives 4 logits"):
        ncen_tf.export_ensemble(own_ensemble(), tmp_path / "named", data=named)
    with pytest.raises(InputError, match="`model` must be an Ensemble or a training run, got a Sequential"):
        ncen_tf.export_ensemble(keras.Sequential(), tmp_path / "named", data=named)
    with pytest.raises(InputError, match=r"images of shape \(8, 8, 1\); the ensemble takes \(12, 10, 3\)"):
        ncen_tf.export_ensemble(own_ensemble(), tmp_path / "named", data=own_data(8, 8, 1))


class Unregistered(keras.layers.Layer):
    """A layer that only its author's program knows."""

    def call(self, x: Any) -> Any:
        return 2 * x


def test_own_layers_are_exported_in_float32_and_named_where_they_cannot_be(tmp_path: Path) -> None:
    ncen_tf.export_ensemble(own_ensemble(Unregistered), tmp_path / "own", data=own_data(), formats=["onnx"])
    half = own_ensemble(lambda: Unregistered(dtype="float16"))
    with pytest.raises(InputError, match=r"cannot be rebuilt in float32: register its layers"):
        ncen_tf.export_ensemble(half, tmp_path / "half", data=own_data())


@keras.saving.register_keras_serializable("tests")
class Inverse(keras.layers.Layer):
    """Computes what TensorFlow knows and ONNX does not."""

    def call(self, x: Any) -> Any:
        return keras.ops.linalg.inv(keras.ops.transpose(x, (0, 3, 1, 2)) + keras.ops.eye(8))


@keras.saving.register_keras_serializable("tests")
class Spectrum(keras.layers.Layer):
    """Another such operation."""

    def call(self, x: Any) -> Any:
        return keras.ops.erfinv(0.5 * x)


@pytest.mark.parametrize(("layer", "operation"), [(Inverse, "MatrixInverse"), (Spectrum, "Erfinv")])
def test_an_operation_that_onnx_cannot_express_is_named(
    layer: type[keras.layers.Layer], operation: str, tmp_path: Path
) -> None:
    ensemble, data = own_ensemble(layer, shape=(8, 8, 1)), own_data(8, 8, 1)
    with pytest.raises(InputError, match=rf"opset 17 cannot express the operation {operation}"):
        ncen_tf.export_ensemble(ensemble, tmp_path / "own", data=data)
    assert not list(tmp_path.iterdir())
    ncen_tf.export_ensemble(ensemble, tmp_path / "own", data=data, formats=["saved_model"])


@pytest.mark.parametrize("weight", [1000.0, -1000.0])
def test_float16_that_overflows_is_refused(weight: float, tmp_path: Path) -> None:
    """Logits beyond 65504 are infinite in float16, and their softmax NaN, or finite if they are negative."""
    ensemble = own_ensemble()
    for member in ensemble.members:
        kernel = np.zeros((360, 4), np.float32)
        kernel[:, 0] = weight
        member.layers[-1].set_weights([kernel, np.zeros(4, np.float32)])
    data, folder = own_data(), tmp_path / "own"
    with pytest.raises(InputError, match=r"ensemble.float16.onnx gives NaN or infinite logits"):
        ncen_tf.export_ensemble(ensemble, folder, data=data, formats=["onnx"], precisions=["float16"])
    assert not list(tmp_path.iterdir())
    ncen_tf.export_ensemble(ensemble, folder, data=data, formats=["onnx"])


@pytest.mark.parametrize("name", ["v[1]", "lr[0.1]*?", "a\\b"])
def test_names_that_tensorflow_takes_for_patterns(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name / "export"
    ncen_tf.export_ensemble(own_ensemble(), folder, data=own_data(), formats=["saved_model"])
    ncen_tf.verify_export(folder, own_data())
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "saved_model"]


def test_overwrite_writes_through_a_symbolic_link(tmp_path: Path) -> None:
    target, link = tmp_path / "volume" / "export", tmp_path / "link"
    first, second = own_ensemble(), own_ensemble()
    arguments: dict[str, Any] = {"data": own_data(), "formats": ["onnx"]}
    ncen_tf.export_ensemble(first, target, **arguments)
    link.symlink_to(target)
    with pytest.raises(InputError, match="exists"):
        ncen_tf.export_ensemble(second, link, **arguments)
    manifest = ncen_tf.export_ensemble(second, link, overwrite=True, **arguments)
    assert link.is_symlink()
    assert Manifest.read(target) == Manifest.read(link) == manifest
    assert sorted(path.name for path in target.parent.iterdir()) == ["export"]


def test_an_unfinished_run_is_exported_from_its_checkpoint_and_a_damaged_one_is_refused(
    tiny_run: Path, tmp_path: Path, run_program: Program
) -> None:
    run, out = tmp_path / "run", tmp_path / "export"
    shutil.copytree(tiny_run, run)
    model = run / "ensemble.keras"
    model.write_bytes(model.read_bytes()[:50_000])
    with pytest.raises(InputError, match=r"ensemble.keras cannot be read"):
        ncen_tf.load_ensemble(run)
    (run / "summary.json").unlink()
    model.unlink()
    done = run_program("export", f"--run={run}", f"--out={out}", "--formats=onnx")
    assert done.returncode == 0, done.stderr
    assert "is not finished" in done.stdout
    summary = ncen_tf.open_run(tiny_run).summary
    assert summary is not None
    assert Manifest.read(out).accuracy.clean_accuracy == summary.test.clean_accuracy
    assert sorted(path.name for path in out.iterdir()) == ["ensemble.onnx", "manifest.json"]


def test_arguments_that_cannot_be_used_are_refused(tmp_path: Path, refuse: Callable[..., None]) -> None:
    refuse("export", says="--run")
    refuse("export", f"--run={tmp_path}", f"--out={tmp_path / 'out'}", says="is not a run directory")
    refuse("export", f"--verify={tmp_path}", says="is not an export")
    for arguments, message in (
        ({"opset": 99}, "`opset` must be less than or equal to 18, got 99"),
        ({"opset": 12, "precisions": ["int8"]}, "int8 needs an `opset` of 13"),
        ({"precisions": ["int8"]}, "`calibration`"),
        ({"precisions": ["int4"]}, "`precisions.0` must be 'float16' or 'int8', got 'int4'"),
        ({"formats": ["tflite"]}, "got 'tflite'"),
        ({"formats": ["saved_model"], "precisions": ["float16"]}, "onnx where `precisions` are given"),
    ):
        with pytest.raises(InputError, match=message):
            ncen_tf.export_ensemble(own_ensemble(), tmp_path / "own", data=own_data(), **arguments)
    with pytest.raises(InputError, match="exists"):
        ncen_tf.export_ensemble(own_ensemble(), tmp_path, data=own_data(), overwrite=True)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_behind(tiny_run: Path, tmp_path: Path) -> None:
    """Files may not grow past 300 kB: SavedModel's variables, then the ONNX file, hit the limit."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    for form in ("saved_model", "onnx"):
        command = [sys.executable, "-m", "ncen_tf.export", f"--run={tiny_run}"]
        done = subprocess.run(
            [*command, f"--out={tmp_path / 'out'}", f"--formats={form}"],
            cwd=ROOT,
            preexec_fn=limit,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "error: " in done.stderr
        assert not list(tmp_path.iterdir())
