"""The BENCHMARKS page and the JSON that it is made of, by the programs as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Completed

CEILING = ["--ceiling_side=16", "--ceiling_batch=1"]


def run_benchmark(name: str, *arguments: str) -> Completed:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def results(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two programs wrote."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("results")
    target = [f"--target={tiny_run}", "--rounds=2", *CEILING]
    sizes = ["--images=10", "--steps=2", "--step_size=0.05"]
    for name, arguments in (("inference", ["--batches=3", "--calls=1"]), ("attacks", sizes)):
        done = run_benchmark(name, *target, *arguments, f"--out={folder}/{name}.json")
        assert done.returncode == 0, done.stderr
    return folder


def rows(folder: Path, name: str, table: int) -> dict[str, dict[str, object]]:
    content = json.loads((folder / f"{name}.json").read_text())
    assert content["rounds"] == 2
    assert content["environment"]["tensorflow"]
    return {row[""]: row for row in content["tables"][table]["rows"]}


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
        if "failed" in row:  # not installed, or not on this stack: the reason stands there
            assert ":" in str(row["failed"])
            assert "ncen_tf" not in name
        else:
            assert row["robust accuracy"] == pytest.approx(ours["robust accuracy"], abs=0.11)
            assert row["largest change"] <= 0.1 + 1e-6  # type: ignore[operator]


def as_shown(value: object, text: str) -> bool:
    if not isinstance(value, float):
        return ("" if value is None else str(value)) == text
    return float(text.replace(",", "")) == pytest.approx(value, rel=6e-3)


def test_the_page_says_what_the_files_say(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "BENCHMARKS.md"
    done = run_benchmark("page", f"--results={results}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    lines = text.splitlines()
    titles = [line for line in lines if line.startswith("## ")]
    assert titles == ["## Hardware and versions", "## Attacks", "## Inference"]
    for name in ("attacks", "inference"):
        content = json.loads((results / f"{name}.json").read_text())
        section = lines.index(f"## {content['title']}")
        for table in content["tables"]:
            start = lines.index(f"### {table['title']}", section)
            head, _, *body = (line[2:-2].split(" | ") for line in lines[start + 2 :])
            for row, cells in zip(table["rows"], body, strict=False):
                shown = dict(zip(head, cells, strict=True))
                assert all(as_shown(value, shown[column]) for column, value in row.items())
        for value in content["environment"].values():
            assert str(value) in text or isinstance(value, list)


@pytest.mark.parametrize("text", ['{"program": "inference"}', "nonsense"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    done = run_benchmark("page", f"--results={tmp_path}")
    assert done.returncode == 2
    assert "is no JSON of a benchmark" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_committed_page_is_what_its_files_give() -> None:
    folder = ROOT / "docs" / "benchmarks"
    if not any(folder.glob("*.json")):
        pytest.skip("no results are committed")
    done = run_benchmark("page", f"--results={folder}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "BENCHMARKS.md").read_text(encoding="utf-8")
