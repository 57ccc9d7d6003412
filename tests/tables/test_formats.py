"""What the formats write, read back."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.tables.experiments import read_experiments
from ncen_tf.tables.latex import escape, to_latex
from ncen_tf.tables.markdown import to_markdown
from ncen_tf.tables.page import sections
from ncen_tf.tables.table import Cell, Table
from ncen_tf.tables.terminal import to_terminal
from tests.tables.records import all_tables, report, run, write


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Table]:
    """Two structures, two seeds of one method and one of others, two protocols."""
    rng = np.random.default_rng(2)
    folder = tmp_path_factory.mktemp("records")
    cells: dict[str, dict[str, Any]] = {
        "none-s0": {"regularizer": "none"},
        "nce-s0": {},
        "nce-s1": {"seed": 1},
        "balanced": {"lambda_norm": -0.02},
        "deep": {"architecture": ("resnet32",) * 3},
    }
    for name, settings in cells.items():
        reports = [report(rng, protocol) for protocol in ("paper", "strict")]
        write(folder, name, run(rng, decay_every=1, **settings), reports)
    return all_tables(folder)


@pytest.fixture
def table(tables: list[Table]) -> Table:
    """The first, of AAE under protocol paper."""
    return tables[0]


def test_columns_are_the_papers_with_differing_weights_named(table: Table) -> None:
    assert table.header == (
        *("structure", "attack", "eps"),
        *("BL", "paper", "diff."),
        *("NCEn", "paper", "diff."),
        "NCEn, lambda_norm -0.02",
    )
    first, *others = table.body()[0]
    assert first[:3] == ("Ensemble1", "ACE", "")
    assert first[4] == "0.9337"
    assert others[0][:3] == ("", "FGSM", "0.1")
    assert [block.structure for block in table.blocks] == ["Ensemble1", "Ensemble3"]
    deep = table.body()[1][0]
    assert deep[3:6] == ("", "", "")  # no run of BL
    assert "±" in first[6]
    assert "±" not in deep[6]


def test_a_caption_states_its_conditions(table: Table) -> None:
    caption = " ".join(table.caption)
    for statement in (
        "Protocol paper, objective member_average; 1,000 test images of fashion_mnist attacked.",
        "Trained on 10,000 images of fashion_mnist for 2 epochs.",
        "1 seed (0) for Ensemble1 BL and Ensemble1 NCEn, lambda_norm -0.02 and Ensemble3 NCEn; ",
        "2 seeds (0, 1) for Ensemble1 NCEn.",
        "All trained with decay_every 1.",
        "Hardware: 2 CPU cores, Linux x86_64.",
        "The paper trained on 60,000 images for 40 epochs: levels are not comparable with its cells.",
    ):
        assert statement in caption


def test_only_compared_tables_speak_of_the_paper(tables: list[Table]) -> None:
    assert [table.title for table in tables if "not comparable" in " ".join(table.caption)] == [
        "AAE, protocol paper, fashion_mnist, k = 3"
    ]


def test_only_cumulative_rows_are_called_so(tables: list[Table]) -> None:
    titles = [table.title for table in tables if "those above it" in " ".join(table.caption)]
    assert titles == [table.title for table in tables if "protocol strict" in table.title] != []


def test_at_the_papers_scale_nothing_is_said_of_scale(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    full = run(rng, train_examples=60_000, epochs=40)
    write(tmp_path, "full", full, [report(rng, "released", examples=10_000)])
    caption = sections(read_experiments(tmp_path))["Protocol released"][0].caption
    assert caption[-1] == "paper: AAE and ACE of Table II; diff.: measured minus published."


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((0.5,), "0.5000"),
        ((0.5, 0.7), "0.6000 ± 0.1414"),
        ((0.5, None), "0.5000 (n = 1)"),
        ((None, None), "n/a"),
        ((float("nan"), 0.5), "nan ± nan"),
    ],
)
def test_cell_text(values: tuple[float | None, ...], text: str) -> None:
    assert Cell(tuple(range(len(values))), values).text(".4f") == text


def test_terminal_columns_are_aligned(table: Table) -> None:
    lines = to_terminal(table).splitlines()
    head = next(number for number, line in enumerate(lines) if line.startswith("structure"))
    ends = [match.end() for match in re.finditer(r"\S+", lines[head].replace("NCEn, l", "NCEn__l"))]
    assert len({len(line) for line in lines[head:] if line.endswith("0.1") or "---" in line}) == 1
    bl = ends[3]
    for line in lines[head:]:
        if line.strip() and not line.startswith("-") and len(line) > bl:
            assert line[bl : bl + 2] == "  "


def test_markdown_has_as_many_cells_in_every_line(tables: list[Table]) -> None:
    for table in tables:
        nasty = dataclasses.replace(table, labels=("a|b", *table.labels[1:]))
        lines = [line for line in to_markdown(nasty).splitlines() if line.startswith("|")]
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
        assert counts == {len(table.header) + 1}
        assert len(lines) == 2 + sum(len(block.lines) for block in table.blocks)


def test_latex_is_balanced_and_rectangular(tables: list[Table]) -> None:
    for table in tables:
        nasty = dataclasses.replace(table, labels=(r"100 % {_\#&$~^}", *table.labels[1:]))
        text = to_latex(nasty)
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
        assert re.search(r"\\begin{tabular}{(l+r+)}", text).group(1).count("l") == len(table.row_head) + 1  # type: ignore[union-attr]
        assert bare.count("$") % 2 == 0
        assert "%" not in bare
        assert "#" not in bare
        assert "±" not in text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("lambda_norm -0.02", r"lambda\_norm $-$0.02"),
        ("0.5 ± 0.1", r"0.5 $\pm$ 0.1"),
        ("MI-FGSM", "MI-FGSM"),
        ("-0.5", "$-$0.5"),
        ("a\\b {c}", r"a\textbackslash{}b \{c\}"),
    ],
)
def test_latex_escapes(text: str, written: str) -> None:
    assert escape(text) == written


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tables: list[Table], tmp_path: Path) -> None:
    nasty = dataclasses.replace(tables[0], title=r"\begin{x} 100 % of #1_2 & $3 <~^|> ±")
    document = tmp_path / "document.tex"
    body = "\n".join(map(to_latex, [nasty, *tables]))
    document.write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + body + "\\end{document}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", document.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
