"""Exports verified: files that changed, answers that differ, manifests of another format."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.export.export import MAX_DIFFERENCE, measure_parity, predict_all
from ncen_tf.export.manifest import Manifest, describe_files
from tests.conftest import Program
from tests.export.conftest import own_data, own_ensemble


def test_verify_names_a_changed_byte_and_compares_answers_where_the_images_are_found(
    tiny_export: Path, tmp_path: Path, run_program: Program, refuse: Callable[..., None]
) -> None:
    done = run_program("export", f"--verify={tiny_export}")
    assert done.returncode == 0, done.stderr
    assert "is intact" in done.stdout
    assert "ensemble.onnx: probabilities within" in done.stdout
    copy = tmp_path / "copy"
    shutil.copytree(tiny_export, copy)
    file = copy / "members" / "member_1.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    refuse("export", f"--verify={copy}", says="member_1.onnx is not the file that was exported")
    file.unlink()
    with pytest.raises(InputError, match=r"member_1.onnx is missing"):
        ncen_tf.verify_export(copy)


def test_verify_without_the_images_compares_hashes(tmp_path: Path, run_program: Program) -> None:
    data = own_data()
    ncen_tf.export_ensemble(own_ensemble(), tmp_path / "own", data=data, formats=["onnx"])
    done = run_program("export", f"--verify={tmp_path / 'own'}")
    assert done.returncode == 0, done.stderr
    assert "is intact: 1 files" in done.stdout
    assert "Answers were not compared, because their images were not found" in done.stdout


def test_verify_compares_answers_with_the_manifest(tiny_export: Path, tmp_path: Path) -> None:
    data = ncen_tf.load_data("fashion_mnist_sample")

    def changed(name: str, change: Callable[[Path, dict[str, Any]], None]) -> Path:
        copy = tmp_path / name
        shutil.copytree(tiny_export, copy)
        content = json.loads((copy / "manifest.json").read_text())
        change(copy, content)
        files = {file: entry.model_dump() for file, entry in describe_files(copy).items()}
        (copy / "manifest.json").write_text(json.dumps(content | {"files": files}))
        return copy

    def other_member(copy: Path, _: dict[str, Any]) -> None:
        shutil.copy(copy / "members/member_0.onnx", copy / "members/member_1.onnx")

    def other_agreement(_: Path, content: dict[str, Any]) -> None:
        content["reduced_precision"]["ensemble.int8.onnx"]["agreement_with_float32"] -= 0.05

    def other_classes(_: Path, content: dict[str, Any]) -> None:
        content["accuracy"]["predictions_sha256"] = "0" * 64

    for change, message in (
        (other_member, "members is not the trained ensemble"),
        (other_agreement, r"ensemble.int8.onnx gives other answers here"),
        (other_classes, "does not predict the classes that the manifest records"),
    ):
        with pytest.raises(InputError, match=message):
            ncen_tf.verify_export(changed(change.__name__, change), data)
    with pytest.raises(InputError, match="measured with 300 images; `data` has 100"):
        ncen_tf.verify_export(tiny_export, data.test.sample(100))


def test_manifests_that_are_not_of_this_format_are_refused(tiny_export: Path, tmp_path: Path) -> None:
    content = json.loads((tiny_export / "manifest.json").read_text())
    for change, message in (
        ({"format": 1}, "`format` must be 2, got 1"),
        ({"files": {}}, "`files`"),
        ({"accuracy": {"ace": 0.5}}, "clean_accuracy` is missing"),
        (
            {"files": {"ensemble.onnx": content["files"]["ensemble.onnx"]}},
            "does not list ensemble.float16.onnx",
        ),
    ):
        (tmp_path / "manifest.json").write_text(json.dumps(content | change))
        with pytest.raises(InputError, match=message):
            Manifest.read(tmp_path)


def test_parity_sees_a_difference() -> None:
    split = ncen_tf.load_data("fashion_mnist_sample", test_examples=100).test
    weights = np.random.default_rng(0).normal(size=(784, 10)).astype(np.float32) / 20

    def predict(images: np.ndarray, scale: float = 1.0) -> np.ndarray:
        scores = np.exp(scale * images.reshape(len(images), -1) @ weights)
        return scores / scores.sum(1, keepdims=True)

    def depends_on_the_batch(images: np.ndarray) -> np.ndarray:
        return predict(images - 1e-3 * (len(images) == 7))

    reference = predict_all(predict, split)
    assert measure_parity("same", predict, reference, split).max_difference == 0
    with pytest.raises(InputError, match="other is not the trained ensemble"):
        measure_parity("other", lambda images: predict(images, 1.001), reference, split)
    assert np.abs(predict_all(depends_on_the_batch, split) - reference).max() < MAX_DIFFERENCE
    with pytest.raises(InputError, match="batch sizes differ"):
        measure_parity("other", depends_on_the_batch, reference, split)
