"""Which results share a table, a column and a row, and how cells are written."""

import statistics
from pathlib import Path
from typing import Any

import pytest

from ncen_tf.report.results import Report
from ncen_tf.tables.formats import results_page
from ncen_tf.tables.result_tables import _text
from ncen_tf.tables.results_frame import read_results
from tests.tables.records import Rng, cells_of, record, report, tables_of

STRICT: list[dict[str, Any]] = [
    {"attack": name, "norm": "Linf", "eps": eps, "settings": {"steps": 100}}
    for eps in (0.1, 0.2)
    for name in ("APGD-CE", "APGD-T")
]


@pytest.mark.parametrize(
    ("n", "runs", "mean", "std", "text"),
    [
        (1, 1, 0.5, float("nan"), "0.5000"),
        (2, 2, 0.6, 0.141421, "0.6000 ± 0.1414"),
        (1, 2, 0.5, float("nan"), "0.5000 (n = 1)"),
        (0, 2, float("nan"), float("nan"), "n/a"),
    ],
)
def test_text_of_a_cell(n: int, runs: int, mean: float, std: float, text: str) -> None:
    assert _text(n, mean, std, runs) == text


def pgd(steps: int) -> list[dict[str, Any]]:
    return [
        {"attack": n, "eps": 0.1, "settings": {"steps": steps, "step_size": 0.01}} for n in ("PGD", "BIM")
    ]


def test_other_attacks_are_another_table(tmp_path: Path, rng: Rng) -> None:
    """Other settings, other attacks beside the same ones, another order, another meaning of the rows."""
    fgsm = {"attack": "FGSM", "eps": 0.1}
    attacked = [
        (pgd(10), False),
        (pgd(100), False),
        ([*pgd(10), fgsm], False),
        (pgd(10)[::-1], False),
        (pgd(10), True),
    ]
    records = [
        record(rng, f"s{seed}", [report(rng, "custom", attacks=attacks, cumulative=cumulative)], seed=seed)
        for seed, (attacks, cumulative) in enumerate(attacked)
    ]
    tables = tables_of(tmp_path, *records)
    assert len(tables["Protocol custom"]) == 2 * len(attacked)
    cells = cells_of(tables)
    assert set(cells.loc[cells["protocol"] == "custom", "attack_settings"]) == {
        "PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10)",
        "PGD Linf 0.1 (step_size 0.01, steps 100); BIM Linf 0.1 (step_size 0.01, steps 100)",
        "PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10); FGSM Linf 0.1",
        "BIM Linf 0.1 (step_size 0.01, steps 10); PGD Linf 0.1 (step_size 0.01, steps 10)",
        "cumulative: PGD Linf 0.1 (step_size 0.01, steps 10); BIM Linf 0.1 (step_size 0.01, steps 10)",
    }
    assert set(cells.loc[cells["protocol"] == "", "attack_settings"]) == {""}


def test_rows_that_look_alike_say_how_they_differ(tmp_path: Path, rng: Rng) -> None:
    attacks = [
        {"attack": "PGD", "eps": 0.1, "settings": {"steps": steps, "step_size": size}}
        for steps, size in ((10, 0.1), (20, 0.1), (20, 0.05))
    ]
    attacks += [
        {"attack": "PGD", "norm": norm, "eps": 0.2, "settings": {"steps": 10}} for norm in ("Linf", "L2")
    ]
    (block,) = tables_of(tmp_path, record(rng, "one", [report(rng, attacks=attacks)]))["Protocol paper"][
        0
    ].blocks
    assert [line[1:3] for line in block[1:6]] == [
        ["PGD (step_size 0.1, steps 10)", "0.1"],
        ["PGD (step_size 0.1, steps 20)", "0.1"],
        ["PGD (step_size 0.05, steps 20)", "0.1"],
        ["PGD", "0.2"],
        ["PGD", "0.2 (L2)"],
    ]


def test_numbers_near_zero_are_written_in_full(tmp_path: Path, rng: Rng) -> None:
    """Only what float32 leaves of members that cancel is zero."""
    test = {
        "gradient_norm": (2e-7, 3e-7, 4e-7),
        "norm_deviation": (-0.04, -0.21, 0.25000001),
        "pairwise_cosine": 0.123456789,
    }
    cells = cells_of(tables_of(tmp_path, record(rng, "one", test=test))).set_index(["measure", "detail"])[
        "mean"
    ]
    assert cells["gradient_norm", "mean"] == pytest.approx(3e-7)
    assert cells["gradient_norm", "range"] == pytest.approx(2e-7)
    assert cells["pairwise_cosine", ""] == 0.123456789
    assert cells["norm_deviation", "mean"] == 0
    assert cells["norm_deviation", "range"] == pytest.approx(0.46000001, rel=1e-12)


def worst(of_report: Report, eps: float) -> float:
    (row,) = (row for row in of_report.worst_case if row.eps == eps)
    assert row.robust_accuracy.value is not None
    return row.robust_accuracy.value


def test_protocols_side_by_side_show_worst_cases_at_the_smallest_eps(tmp_path: Path, rng: Rng) -> None:
    records = {}
    for method, regularizer in {"NCEn": "nce", "BL": "none"}.items():
        for seed in (0, 1):
            reports = [report(rng), report(rng, "strict", attacks=STRICT, examples=200)]
            if method == "BL" and seed == 1:
                reports.pop()
            records[method, seed] = record(
                rng, f"{method}{seed}", reports, seed=seed, regularizer=regularizer
            )
    (comparison,) = tables_of(tmp_path, *records.values())["Protocols side by side"]
    assert comparison.header[3:] == ["paper, eps 0.1, 1,000 images", "strict, eps 0.1, 200 images"]
    lines = {line[1]: line[2:] for line in comparison.blocks[0]}
    assert list(lines) == ["BL", "NCEn"]
    for column, protocol in ((1, "paper"), (2, "strict")):
        values = [worst(records["NCEn", seed].reports[protocol], 0.1) for seed in (0, 1)]
        assert lines["NCEn"][column] == f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    assert lines["BL"][2] == f"{worst(records['BL', 0].reports['strict'], 0.1):.4f} (n = 1)"
    assert "strict, eps 0.1, 200 images" in results_page(read_results(tmp_path))


def test_protocols_side_by_side_keep_images_and_attacks_apart(tmp_path: Path, rng: Rng) -> None:
    """Other numbers of images are columns of their own; attacks at other eps make no difference."""
    alone = [attack for attack in STRICT if attack["eps"] == 0.1]
    (comparison,) = tables_of(
        tmp_path,
        record(rng, "a", [report(rng, examples=100), report(rng, "strict", attacks=STRICT)]),
        record(
            rng, "b", [report(rng, examples=50), report(rng, "strict", attacks=alone)], regularizer="none"
        ),
    )["Protocols side by side"]
    assert comparison.header[3:] == [
        "paper, eps 0.1, 50 images",
        "paper, eps 0.1, 100 images",
        "strict, eps 0.1, 1,000 images",
    ]
    lines = {line[1]: line[3:] for line in comparison.blocks[0]}
    assert lines["NCEn"][0] == lines["BL"][1] == ""
    assert lines["NCEn"][2]
    assert lines["BL"][2]


def test_clean_accuracies_on_other_numbers_of_images_are_tables_of_their_own(
    tmp_path: Path, rng: Rng
) -> None:
    records = [
        record(rng, f"s{n}", [report(rng), report(rng, "strict", attacks=STRICT)], seed=n, test_examples=n)
        for n in (100, 1_000)
    ]
    comparisons = tables_of(tmp_path / "two", *records)["Protocols side by side"]
    assert {c.header[2]: c.blocks[0][0][2] for c in comparisons} == {
        f"clean, {one.run.data.test_examples:,} images": f"{one.run.clean_accuracy:.4f}" for one in records
    }
    one_protocol = record(rng, "a", [report(rng)])
    assert "Protocols side by side" not in tables_of(tmp_path / "one", one_protocol)
