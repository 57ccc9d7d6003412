"""What the formats write, read back; the program as a user runs it, and the pages that are committed."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.tables.formats import _escape_latex, _latex, _markdown, _terminal, format_tables
from ncen_tf.tables.result_tables import ResultTable
from ncen_tf.tables.results_frame import read_results
from tests.conftest import ROOT, Program
from tests.tables.records import record, report, tables_of, write

Refuse = Callable[..., None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def tables(folder: Path) -> list[ResultTable]:
    """Two structures, two seeds of one method and one of others, two protocols."""
    rng = np.random.default_rng(2)
    cells: dict[str, dict[str, Any]] = {
        "none-s0": {"regularizer": "none"},
        "nce-s0": {},
        "nce-s1": {"seed": 1},
        "balanced": {"lambda_norm": -0.02},
        "deep": {"architecture": ("resnet32",) * 3},
    }
    records = [
        record(rng, name, [report(rng, p) for p in ("paper", "strict")], decay_every=1, **settings)
        for name, settings in cells.items()
    ]
    sections = tables_of(folder, *records)
    return [table for section in sections.values() for table in section]


@pytest.fixture
def table(tables: list[ResultTable]) -> ResultTable:
    """AAE under the protocol paper."""
    return tables[1]


def test_columns_are_the_papers_with_differing_weights_named(table: ResultTable) -> None:
    assert table.header == [
        *("structure", "attack", "eps"),
        *("BL", "paper", "diff."),
        *("NCEn", "paper", "diff."),
        "NCEn, lambda_norm -0.02",
    ]
    (first, *others), (deep, *_) = table.blocks
    assert first[:3] == ["Ensemble1", "ACE", ""]
    assert first[4] == "0.9337"
    assert others[0][:3] == ["", "FGSM", "0.1"]
    assert deep[0] == "Ensemble3"
    assert deep[3:6] == ["", "", ""]  # no run of BL
    assert "±" in first[6]
    assert "±" not in deep[6]


def test_a_caption_states_its_conditions(tables: list[ResultTable], table: ResultTable) -> None:
    for statement in (
        "Protocol paper, objective member_average; 1,000 test images of fashion_mnist attacked.",
        "Trained on 10,000 images of fashion_mnist for 2 epochs.",
        "1 seed (0) for Ensemble1 BL and Ensemble1 NCEn, lambda_norm -0.02 and Ensemble3 NCEn",
        "2 seeds (0, 1) for Ensemble1 NCEn",
        "All trained with decay_every 1.",
        "Hardware: 2 CPU cores, Linux x86_64.",
        "The paper trained on 60,000 images for 40 epochs: the values are not comparable with its cells.",
    ):
        assert statement in table.caption
    assert [one.title for one in tables if "not comparable" in one.caption] == [table.title]
    cumulative = [one.title for one in tables if "those above it" in one.caption]
    assert cumulative == [one.title for one in tables if "protocol strict" in one.title] != []


def test_at_the_papers_scale_nothing_is_said_of_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    reports = [report(rng, "released", examples=10_000)]
    full = record(rng, "full", reports, train_examples=None, epochs=40)
    caption = tables_of(tmp_path, full)["Protocol released"][0].caption
    assert caption.endswith(" paper: AAE and ACE of Table II; diff.: measured minus published.")


def test_terminal_columns_are_aligned(table: ResultTable) -> None:
    lines = _terminal(table).splitlines()
    rules = [number for number, line in enumerate(lines) if line.startswith("---")]
    assert len(rules) == len(table.blocks)  # below the header, and between the blocks
    starts = [match.start() for match in re.finditer(r"-+", lines[rules[0]])]
    for line in lines[rules[0] + 1 :]:
        assert all(line[start - 1 : start] in (" ", "") for start in starts[1:]), line
    assert "Ensemble3" in lines[rules[1] + 1]


def test_markdown_has_as_many_cells_in_every_line(tables: list[ResultTable]) -> None:
    for table in tables:
        nasty = dataclasses.replace(table, header=["a|b", *table.header[1:]])
        lines = [line for line in _markdown(nasty).splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.header) + 1}
        assert len(lines) == 2 + sum(map(len, table.blocks))


def test_latex_is_balanced_and_rectangular(tables: list[ResultTable]) -> None:
    for table in tables:
        text = _latex(dataclasses.replace(table, header=[r"100 % {_\#&$~^}", *table.header[1:]]))
        bare = re.sub(r"\\[{}%&$#_]", "", text)
        depth = 0
        for letter in bare:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            assert depth >= 0
        assert depth == 0
        begun, ended = (re.findall(rf"\\{word}{{(.*?)}}", text) for word in ("begin", "end"))
        assert begun == ended[::-1] == ["table*", "tabular"]
        body = bare[bare.index(r"\toprule") : bare.index(r"\bottomrule")]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {line.count("&") + 1 for line in rows} == {len(table.header)}
        assert bare.count("$") % 2 == 0
        assert not set("%#±") & set(bare)


def test_latex_escapes() -> None:
    assert _escape_latex("MI-FGSM -0.5 ± 0.1") == r"MI-FGSM $-$0.5 $\pm$ 0.1"
    assert _escape_latex("a_1\\b {c}") == r"a\_1\textbackslash{}b \{c\}"


def test_csv_holds_what_the_tables_show(folder: Path, tables: list[ResultTable]) -> None:
    lines = list(csv.DictReader(io.StringIO(format_tables(read_results(folder), "csv"))))
    shown = [table for table in tables if table.cells]
    assert len(lines) == sum(len(table.cells) for table in shown)
    table = shown[0]
    for line in (line for line in lines if line["protocol"] == "paper" and line["measure"] in ("ACE", "AAE")):
        text = f"{float(line['mean']):.4f}" + (f" ± {float(line['std']):.4f}" if line["std"] else "")
        label = line["method"] + (", lambda_norm -0.02" if "lambda_norm" in line["settings"] else "")
        block = next(block for block in table.blocks if block[0][0] == line["structure"])
        eps = f"{float(line['eps']):.4g}" if line["eps"] else ""
        (row,) = (row for row in block if row[1:3] == [line["attack"] or line["measure"], eps])
        assert row[table.header.index(label)] == text


@pytest.mark.usefixtures("tables")
def test_formats_to_a_file_and_to_standard_output(
    folder: Path, run_program: Program, refuse: Refuse, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "tables.txt"
    flags = [f"--results={folder}", "--format=latex", "--protocol=strict"]
    printed = run_program("tables", *flags)
    assert printed.returncode == 0, printed.stderr
    written = run_program("tables", *flags, f"--out={out}")
    assert written.stdout == f"Tables of 5 runs: {out}\n"
    assert out.read_text(encoding="utf-8") == printed.stdout
    assert "strict" in printed.stdout
    assert "protocol paper" not in printed.stdout
    refuse("tables", says="--results is missing")
    refuse("tables", f"--results={tmp_path / 'nowhere'}", says="nowhere")
    refuse("tables", f"--results={tmp_path}", says="no record")
    refuse("tables", f"--results={folder}", "--protocol=srtict", says="'srtict': they have paper, strict")
    refuse("tables", f"--results={folder}", "--page", "--format=latex", says="--page is Markdown")
    refuse("tables", f"--results={folder}", "--preamble=x.md", says="--preamble needs --page")
    refuse("tables", f"--results={folder}", "--page", "--preamble=missing.md", says="missing.md")


def test_damaged_records_are_named(tmp_path: Path, refuse: Refuse) -> None:
    write(tmp_path, record(np.random.default_rng(0), "one"))
    (tmp_path / "progress.json").write_text('{"finished": 2}')  # not a record
    (tmp_path / "one" / ".4711.record.json").write_text('{"name": "half wri')  # being written
    file = tmp_path / "one" / "record.json"
    content = json.loads(file.read_text())
    content["run"]["test"]["gradient_norm"] = "large"
    file.write_text(json.dumps(content))
    refuse("tables", f"--results={tmp_path}", says="run.test.gradient_norm")


@pytest.mark.parametrize("page", ["results", "comparison", "diversity"])
def test_the_committed_pages_are_what_their_records_give(page: str, run_program: Program) -> None:
    folder = ROOT / "docs" / page
    done = run_program("tables", f"--results={folder}", "--page", f"--preamble={folder / 'preamble.md'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (folder / "RESULTS.md").read_text(encoding="utf-8")
    headings = [line for line in done.stdout.splitlines() if line.startswith("## ")]
    assert headings[-2:] == ["## Gradients on clean images", "## Cost of training"]
