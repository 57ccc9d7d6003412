"""The program as a user runs it, and the page that is committed."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.record import write_record
from ncen_tf.tables.experiments import read_experiments
from tests.conftest import ROOT, Program
from tests.tables.records import report, run, write

Refuse = Callable[..., None]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    folder = tmp_path / "results"
    for seed in (0, 1):
        write(folder, f"grid/nce-s{seed}", run(rng, seed=seed), [report(rng), report(rng, "strict")])
    (folder / "grid" / "progress.json").write_text('{"finished": 2}')
    return folder


@pytest.mark.parametrize("name", ["terminal", "markdown", "latex", "csv"])
def test_formats_to_a_file_and_to_standard_output(
    name: str, results: Path, run_program: Program, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "tables.txt"
    flags = [f"--results={results}", f"--format={name}", "--protocol=strict"]
    printed = run_program("tables", *flags)
    assert printed.returncode == 0, printed.stderr
    written = run_program("tables", *flags, f"--out={out}")
    assert written.stdout == f"Tables of 2 runs: {out}\n"
    assert out.read_text(encoding="utf-8") == printed.stdout
    assert "strict" in printed.stdout
    assert "Protocol paper" not in printed.stdout


def test_all_protocols_in_one_csv(results: Path, run_program: Program) -> None:
    done = run_program("tables", f"--results={results}", "--format=csv")
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {line["protocol"] for line in lines} == {"paper", "strict", ""}
    assert {line["n"] for line in lines} == {"2"}


def test_page(results: Path, run_program: Program, tmp_path: Path) -> None:
    preamble = tmp_path / "preamble.md"
    preamble.write_text("# What we saw\n\nTwo runs, made up.\n\n", encoding="utf-8")
    done = run_program("tables", f"--results={results}", "--page", f"--preamble={preamble}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "# What we saw\n\nTwo runs, made up.\n\n## Protocols side by side\n\n### Robust accuracy"
    )
    headings = [line for line in done.stdout.splitlines() if line.startswith("#")]
    assert headings == [
        "# What we saw",
        "## Protocols side by side",
        "### Robust accuracy by protocol, fashion_mnist, k = 3",
        "## Protocol paper",
        "### AAE, protocol paper, fashion_mnist, k = 3",
        "### Robust accuracy, protocol paper, fashion_mnist, k = 3",
        "## Protocol strict",
        "### AAE, protocol strict, fashion_mnist, k = 3",
        "### Robust accuracy, protocol strict, fashion_mnist, k = 3",
        "## Gradients on clean images",
        "### Gradients and accuracy on clean images, fashion_mnist, k = 3",
        "## Cost of training",
        "### Cost of training on 2 CPU cores, Linux x86_64, fashion_mnist, k = 3",
    ]


def test_what_cannot_be_used_is_refused(results: Path, refuse: Refuse, tmp_path: Path) -> None:
    refuse("tables", says="--results")
    refuse("tables", f"--results={tmp_path / 'nowhere'}", says="nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    refuse("tables", f"--results={empty}", says="no record")
    refuse("tables", f"--results={results}", "--protocol=srtict", says="'srtict': they have paper, strict")
    refuse("tables", f"--results={results}", "--page", "--format=latex", says="--page is Markdown")
    refuse("tables", f"--results={results}", "--preamble=x.md", says="begins a --page")
    refuse("tables", f"--results={results}", "--page", "--preamble=missing.md", says="missing.md")


def test_a_record_of_another_format_is_named(results: Path, refuse: Refuse) -> None:
    file = results / "grid" / "nce-s1" / "result.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "format": 7}))
    refuse("tables", f"--results={results}", says=f"{file} has format 7")
    del content["format"]
    file.write_text(json.dumps(content))
    refuse("tables", f"--results={results}", says=str(file))


@pytest.mark.parametrize("value", [[], [0.5], [[0.5] * 3], [[0.5], []]], ids=str)
def test_measurements_have_one_value_or_one_a_member(results: Path, value: object) -> None:
    file = results / "grid" / "nce-s1" / "result.json"
    content = json.loads(file.read_text())
    content["run"]["test"]["gradient_norm"] = value
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"nce-s1' in .* cannot be used"):
        read_experiments(results)


def test_a_real_run_and_a_real_report(tiny_run: Path, run_program: Program, tmp_path: Path) -> None:
    flags = ["--dataset=fashion_mnist_sample", "--suite=quick", "--num_examples=20"]
    done = run_program("attack", f"--target={tiny_run}", *flags, f"--out={tmp_path / 'report'}")
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "report" / "report.json").read_text())
    summary = json.loads((tiny_run / "summary.json").read_text())
    export = {"ace": summary["test"]["ace"], "test_examples": 300, "sha256": "0" * 64}
    (tmp_path / "records").mkdir()
    record = {"name": "tiny", "run": summary, "export": export, "reports": {"quick": measured}}
    write_record(tmp_path / "records" / "result.json", record)
    done = run_program("tables", f"--results={tmp_path / 'records'}", "--format=csv")
    assert done.returncode == 0, done.stderr
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    rows = {(line["measure"], line["attack"]): line["mean"] for line in lines}
    for attack in measured["attacks"]:
        value = attack["robust_accuracy"]["value"]
        assert float(rows["robust accuracy", attack["attack"]]) == pytest.approx(value)
    assert float(rows["pairwise_cosine", ""]) == summary["test"]["pairwise_cosine"]
    assert {line["structure"] for line in lines} == {"resnet8+resnet8"}


@pytest.mark.parametrize("page", ["results", "diversity"])
def test_the_committed_pages_are_what_their_records_give(page: str, run_program: Program) -> None:
    folder = ROOT / "docs" / page
    if not any(folder.rglob("*.json")):
        pytest.skip("no records are committed")
    flags = [f"--results={folder}", "--page", f"--preamble={folder / 'preamble.md'}"]
    done = run_program("tables", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (folder / "RESULTS.md").read_text(encoding="utf-8")
