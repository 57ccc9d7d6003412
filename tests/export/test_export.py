"""Exports as deployers meet them: the same model in every file, whole or not at all."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from ncen_tf.data.dataset import load_data
from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import describe_files, read_manifest
from ncen_tf.export.parity import MAX_DIFFERENCE, keras_predictor, measure_parity, predict_all
from ncen_tf.export.proof import verify_export
from ncen_tf.base.files import write_json
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.train.trained import load_trained
from tests.conftest import ROOT, Program


def test_manifest_tells_what_was_exported(tiny_run: Path, tiny_export: Path) -> None:
    manifest = json.loads((tiny_export / "manifest.json").read_text())
    summary = json.loads((tiny_run / "summary.json").read_text())
    assert manifest["accuracy"]["ace"] == summary["test"]["ace"]
    assert manifest["accuracy"]["test_examples"] == 300
    assert manifest["training_flags"] == summary["flags"]
    assert manifest["epochs_trained"] == 2
    assert set(manifest["parity"]) == {"ensemble.onnx", "saved_model", "members"}
    for name in manifest["parity"]:
        parity = manifest["parity"][name]
        assert parity["images"] == 300
        assert 0 <= parity["max_difference"] < MAX_DIFFERENCE
        assert parity["different_predictions"] == 0
    assert set(manifest["reduced_precision"]) == {"ensemble.float16.onnx", "ensemble.int8.onnx"}
    sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
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
    images = np.random.default_rng(0).uniform(size=(3, 28, 28, 1)).astype(np.float32)

    def logits(name: str) -> np.ndarray:
        session = onnxruntime.InferenceSession(tiny_export / name, providers=["CPUExecutionProvider"])
        return session.run(["member_logits"], {"image": images})[0]

    together = logits("ensemble.onnx")
    for index in range(2):
        alone = logits(f"members/member_{index}.onnx")
        np.testing.assert_allclose(alone[:, 0], together[:, index], atol=1e-5)


def test_saved_model_serves_without_this_package(tiny_run: Path, tiny_export: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(size=(4, 28, 28, 1)).astype(np.float32)
    expected = keras_predictor(load_trained(RunDirectory(tiny_run)).ensemble)(images)
    np.savez(tmp_path / "in_out.npz", images=images, expected=expected)
    script = (
        "import sys; sys.modules['ncen_tf'] = None\n"  # any import of it now fails
        "import numpy as np, tensorflow as tf\n"
        f"arrays = np.load({str(tmp_path / 'in_out.npz')!r})\n"
        f"serve = tf.saved_model.load({str(tiny_export / 'saved_model')!r}).signatures['serving_default']\n"
        "out = serve(image=tf.constant(arrays['images']))\n"
        "assert set(out) == {'probabilities', 'member_logits'}\n"
        "assert np.abs(out['probabilities'] - arrays['expected']).max() < 1e-6\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=200)


def test_verify_accepts_the_export_and_names_a_changed_byte(
    tiny_export: Path, tmp_path: Path, run_program: Program, refuse: Callable[..., None]
) -> None:
    done = run_program("export", f"--verify={tiny_export}")
    assert done.returncode == 0, done.stderr
    assert "is intact" in done.stdout
    assert "ensemble.onnx: probabilities within" in done.stdout
    assert "saved_model: the class that the manifest records" in done.stdout
    copy = tmp_path / "copy"
    shutil.copytree(tiny_export, copy)
    file = copy / "members" / "member_1.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refuse("export", f"--verify={copy}", says="member_1.onnx is not the file that was exported")
    file.unlink()
    refuse("export", f"--verify={copy}", says="member_1.onnx is missing")


def test_verify_compares_the_members_with_the_ensemble(tiny_export: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_export, copy)
    shutil.copy(copy / "members/member_0.onnx", copy / "members/member_1.onnx")
    manifest = read_manifest(copy)
    write_json(copy / "manifest.json", manifest | {"files": describe_files(copy)})
    test = load_data("fashion_mnist_sample", test_examples=manifest["accuracy"]["test_examples"])
    with pytest.raises(InputError, match="members is not the trained ensemble"):
        verify_export(copy, test)


def test_verify_compares_reduced_precision_with_the_manifest(
    tiny_export: Path, tmp_path: Path, refuse: Callable[..., None]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_export, copy)
    manifest = read_manifest(copy)
    manifest["reduced_precision"]["ensemble.int8.onnx"]["agreement_with_float32"] -= 0.05
    write_json(copy / "manifest.json", manifest)
    refuse("export", f"--verify={copy}", says="ensemble.int8.onnx runs otherwise here")


def test_parity_sees_a_difference() -> None:
    split = load_data("fashion_mnist_sample", test_examples=100).test
    weights = np.random.default_rng(0).normal(size=(784, 10)).astype(np.float32) / 20

    def predict(images: np.ndarray, scale: float = 1.0) -> np.ndarray:
        scores = np.exp(scale * images.reshape(len(images), -1) @ weights)
        return scores / scores.sum(1, keepdims=True)

    reference = predict_all(predict, split)
    assert measure_parity(reference, predict, split).holds
    assert not measure_parity(reference, lambda images: predict(images, 1.001), split).holds
    batch_dependent = measure_parity(
        reference, lambda images: predict(images - 1e-3 * (len(images) == 7)), split
    )
    assert batch_dependent.max_difference < MAX_DIFFERENCE
    assert not batch_dependent.holds


def test_a_checkpointed_run_is_exported_as_far_as_it_got(
    tiny_run: Path, tmp_path: Path, run_program: Program
) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(tiny_run, unfinished)
    (unfinished / "summary.json").unlink()
    (unfinished / "ensemble.keras").unlink()
    out = tmp_path / "export"
    done = run_program("export", f"--run={unfinished}", f"--out={out}", "--formats=onnx")
    assert done.returncode == 0, done.stderr
    assert "is not finished" in done.stdout
    first = json.loads((tiny_run / "summary.json").read_text())["test"]["ace"]
    assert json.loads((out / "manifest.json").read_text())["accuracy"]["ace"] == first
    assert sorted(path.name for path in out.iterdir()) == ["ensemble.onnx", "manifest.json"]


def test_damaged_runs_are_refused(tiny_run: Path, tmp_path: Path, refuse: Callable[..., None]) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    model = run / "ensemble.keras"
    model.write_bytes(model.read_bytes()[:50_000])
    refuse("export", f"--run={run}", f"--out={tmp_path / 'out'}", says="ensemble.keras cannot be read")
    model.unlink()
    for data in (run / "checkpoints").glob("step-*/state.data-*"):
        data.write_bytes(data.read_bytes()[:50_000])
    refuse("export", f"--run={run}", f"--out={tmp_path / 'out'}", says="can be read: all 2 are damaged")
    shutil.rmtree(run / "checkpoints")
    refuse("export", f"--run={run}", f"--out={tmp_path / 'out'}", says="nor a checkpoint yet")
    assert list(tmp_path.iterdir()) == [run]


def test_bad_input_is_refused(tiny_run: Path, tmp_path: Path, refuse: Callable[..., None]) -> None:
    refuse("export", says="--run=RUN_DIRECTORY")
    refuse("export", f"--run={tmp_path}", f"--out={tmp_path / 'out'}", says="is not a run directory")
    run = f"--run={tiny_run}"
    refuse("export", run, f"--out={tmp_path / 'out'}", "--opset=99", says="--opset is in 11..18")
    refuse(
        "export", run, f"--out={tmp_path / 'out'}", "--opset=12", "--onnx_precision=int8", says="--opset=13"
    )
    refuse("export", run, f"--out={tmp_path / 'out'}", "--formats=tflite", says="got 'tflite'")
    refuse("export", run, f"--out={tmp_path}", says="exists")
    refuse("export", f"--verify={tmp_path}", says="is not an export")
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
