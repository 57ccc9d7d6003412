"""Protocols in columns: which number stands where, and what is kept apart."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np

from ncen_tf.tables.experiments import read_experiments
from ncen_tf.tables.page import to_page
from ncen_tf.tables.protocol_comparison import protocol_comparisons
from tests.tables.records import report, run, write

STRICT: list[dict[str, Any]] = [
    {"attack": name, "norm": norm, "eps": eps, "settings": {"steps": 100}}
    for norm, eps in (("Linf", 0.1), ("Linf", 0.2))
    for name in ("APGD-CE", "APGD-T")
]


def worst(of_report: dict[str, Any], eps: float) -> float:
    (row,) = (row for row in of_report["worst_case"] if row["eps"] == eps)
    value: float = row["robust_accuracy"]["value"]
    return value


def test_worst_cases_at_the_smallest_radius_by_method_and_protocol(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = {}
    for method, regularizer in {"NCEn": "nce", "BL": "none"}.items():
        for seed in (0, 1):
            reports = [report(rng), report(rng, "strict", attacks=STRICT, examples=200)]
            if method == "BL" and seed == 1:
                reports.pop()
            records[method, seed] = write(
                tmp_path, f"{method}{seed}", run(rng, seed=seed, regularizer=regularizer), reports
            )
    (comparison,) = protocol_comparisons(read_experiments(tmp_path))
    assert comparison.header[3:] == ("paper, eps 0.1, 1,000 images", "strict, eps 0.1, 200 images")
    lines = {line[1]: line[2:] for line in comparison.body}
    assert list(lines) == ["BL", "NCEn"]
    for column, protocol in ((1, "paper"), (2, "strict")):
        values = [worst(records["NCEn", seed]["reports"][protocol], 0.1) for seed in (0, 1)]
        expected = f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
        assert lines["NCEn"][column] == expected
    assert lines["BL"][2] == f"{worst(records['BL', 0]['reports']['strict'], 0.1):.4f} (n = 1)"
    assert "strict, eps 0.1, 200 images" in to_page(read_experiments(tmp_path), "# Results")


def test_images_and_attacks_that_differ_are_columns_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path, "a", run(rng), [report(rng, examples=100), report(rng, "strict", attacks=STRICT)])
    write(tmp_path, "b", run(rng, regularizer="none"), [report(rng, examples=50)])
    (comparison,) = protocol_comparisons(read_experiments(tmp_path))
    assert [head for head in comparison.header if head.startswith("paper")] == [
        "paper, eps 0.1, 50 images",
        "paper, eps 0.1, 100 images",
    ]
    lines = {line[1]: line[3:5] for line in comparison.body}
    assert lines["NCEn"][0] == lines["BL"][1] == ""


def test_what_was_measured_in_other_balls_makes_no_column(tmp_path: Path) -> None:
    """The same attacks at the smallest radius, and with one of the two runs others besides."""
    rng = np.random.default_rng(0)
    alone = [attack for attack in STRICT if attack["eps"] == 0.1]
    for name, attacks in (("nce", STRICT), ("none", alone)):
        write(
            tmp_path, name, run(rng, regularizer=name), [report(rng), report(rng, "strict", attacks=attacks)]
        )
    (comparison,) = protocol_comparisons(read_experiments(tmp_path))
    assert [head for head in comparison.header if head.startswith("strict")] == [
        "strict, eps 0.1, 1,000 images"
    ]
    assert all(line[4] for line in comparison.body)


def test_clean_accuracies_of_other_numbers_of_images_are_tables_of_their_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean = {}
    for seed, images in enumerate((10_000, 100)):
        of_run = run(rng, seed=seed)
        of_run["dataset"]["test_examples"] = images
        write(tmp_path, f"s{seed}", of_run, [report(rng), report(rng, "strict", attacks=STRICT)])
        clean[f"clean, {images:,} images"] = f"{of_run['test']['ace']:.4f}"
    comparisons = protocol_comparisons(read_experiments(tmp_path))
    assert {c.header[2]: c.body[0][2] for c in comparisons} == clean


def test_one_protocol_is_no_comparison(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path, "a", run(rng), [report(rng)])
    assert protocol_comparisons(read_experiments(tmp_path)) == []
