"""The benchmarks run as programs, their page shows what they wrote, and their sides do the same work."""

import contextlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.ensembles.resnet import build_resnet
from tests.conftest import ROOT, Completed

with contextlib.suppress(ImportError):  # the tests that need it are marked
    from benchmarks.peers.torch_resnet import copy_member, nchw, to_torch, torch_predictor
    from benchmarks.peers.torch_training import TorchTraining, check_agreement, losses_of_both

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="compares with PyTorch, which is not installed"
)
SHAPE = (28, 28, 1)
CEILING = ["--ceiling_side=16", "--ceiling_batch=1", "--rounds=2"]
rng = np.random.default_rng(11)
IMAGES = rng.uniform(size=(6, *SHAPE)).astype(np.float32)
LABELS = rng.integers(10, size=6).astype(np.int32)


def run_benchmark(name: str, *arguments: str) -> Completed:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def results(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two benchmarks and return the folder of their results."""
    folder = tmp_path_factory.mktemp("results")
    sizes = ["--images=20", "--steps=3", "--eps=0.02", "--step_size=0.01"]
    for name, arguments in (("inference", ["--batches=3", "--calls=1"]), ("attacks", sizes)):
        target = [f"--target={tiny_run}", *CEILING]
        done = run_benchmark(name, *target, *arguments, f"--out={folder}/{name}.json")
        assert done.returncode == 0, done.stderr
    return folder


def rows(folder: Path, name: str, table: int) -> dict[str, dict[str, object]]:
    content = json.loads((folder / f"{name}.json").read_text())
    assert content["rounds"] == 2
    assert content["environment"]["tensorflow"]
    return {row[""]: row for row in content["tables"][table]["rows"]}


@needs_torch
def test_every_side_of_inference_is_timed(results: Path) -> None:
    found = rows(results, "inference", 0)
    assert set(found) == {"ONNX", "SavedModel", "Keras", "PyTorch"}
    for row in found.values():
        assert "failed" not in row
        assert 0 < row["25 % ms"] <= row["median ms"] <= row["75 % ms"]  # type: ignore[operator]
        assert row["images/s"] == pytest.approx(3e3 / row["median ms"])  # type: ignore[operator]


@pytest.mark.parametrize("table", [0, 1])
def test_attacks_are_as_strong_on_every_side(results: Path, table: int) -> None:
    found = rows(results, "attacks", table)
    ours = found["ncen_tf, Keras"]
    assert "failed" not in ours
    for name, row in found.items():
        if "failed" in row:  # not installed, or not compatible
            assert "ncen_tf" not in name
        else:
            assert row["robust accuracy"] == pytest.approx(ours["robust accuracy"], abs=0.11)
            assert row["largest change"] <= 0.02 + 1e-6  # type: ignore[operator]


def as_shown(value: object, text: str) -> bool:
    if not isinstance(value, float):
        return ("" if value is None else str(value)) == text
    return float(text.replace(",", "")) == pytest.approx(value, rel=6e-3)


def test_the_page_shows_what_the_files_contain(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "BENCHMARKS.md"
    done = run_benchmark("page", f"--results={results}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    lines = out.read_text(encoding="utf-8").splitlines()
    titles = [line for line in lines if line.startswith("## ")]
    assert titles == ["## Hardware and versions", "## Attacks", "## Inference"]
    for name in ("attacks", "inference"):
        content = json.loads((results / f"{name}.json").read_text())
        for table in content["tables"]:
            start = lines.index(f"### {table['title']}", lines.index(f"## {content['title']}"))
            head, _, *body = (line[2:-2].split(" | ") for line in lines[start + 2 :])
            for row, cells in zip(table["rows"], body, strict=False):
                shown = dict(zip(head, cells, strict=True))
                assert all(as_shown(value, shown[column]) for column, value in row.items())


@pytest.mark.parametrize("text", ['{"program": "inference"}', "nonsense"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    done = run_benchmark("page", f"--results={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'result.json'}: ")


def test_the_committed_page_is_what_its_files_give() -> None:
    done = run_benchmark("page", "--results=docs/benchmarks")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "BENCHMARKS.md").read_text(encoding="utf-8")


def members(count: int) -> list[keras.Model]:
    """Build members none of whose weights has its neutral value."""
    made = [build_resnet(8, SHAPE, seed=seed) for seed in range(count)]
    for variable in (v for member in made for v in member.variables if len(v.shape) == 1):
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return made


@needs_torch
def test_copies_in_pytorch_compute_the_same_probabilities() -> None:
    made = members(3)
    expected = Ensemble(made).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(torch_predictor(made)(IMAGES), expected, atol=1e-5)


@needs_torch
def test_both_sides_have_the_same_loss_and_nce_terms() -> None:
    made = members(3)
    ours, theirs = losses_of_both(made, NCE(lambda_cos=0.7, lambda_norm=-0.4, form="paper"), IMAGES, LABELS)
    assert set(ours) == set(theirs) == {"loss", "ce", "l_cos", "l_norm"}
    assert ours == pytest.approx(theirs, abs=1e-4)
    check_agreement(made, IMAGES, LABELS)
    next(layer for layer in made[0].layers if isinstance(layer, keras.layers.LeakyReLU)).negative_slope = 0.3
    with pytest.raises(RuntimeError, match="With the same weights"):
        check_agreement(made, IMAGES, LABELS)


@needs_torch
def test_both_sides_take_the_same_step() -> None:
    made, nce = members(2), NCE(lambda_cos=0.5, lambda_norm=0.5, form="paper")
    copies = [copy_member(member) for member in made]
    TorchTraining(copies, nce).step(nchw(IMAGES), to_torch(LABELS))
    ensemble = Ensemble(made)
    ensemble.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), nce)  # PyTorch's epsilon
    before = [member.layers[1].get_weights()[0] for member in made]
    ensemble.train_step((tf.constant(IMAGES), tf.constant(LABELS)))
    for member, copy, old in zip(made, copies, before, strict=True):
        kernel = member.layers[1].get_weights()[0]
        moved = copy.conv.weight.detach().numpy().transpose(2, 3, 1, 0)
        assert np.median(np.abs(kernel - old)) > 5e-4
        # Adam's first step is the rate times the gradient's sign, which only rounding turns.
        assert np.mean(np.abs(kernel - moved) < 1e-4) > 0.97
