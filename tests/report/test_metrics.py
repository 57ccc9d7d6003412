"""Accuracies, intervals and counts against their definitions; rows of attacks, classes and images."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ncen_tf.report.metrics import aae, clean_accuracy, proportion, robust_accuracy
from ncen_tf.report.results import AttackResult, Report
from tests.report.conftest import CLEAN, LABELS, make_report


@pytest.mark.parametrize("attacks", [1, 3])
def test_accuracies_follow_their_definitions(attacks: int) -> None:
    generator = np.random.default_rng(attacks)
    labels = generator.integers(0, 3, 200).astype(np.int32)
    clean, *adversarial = (
        np.where(generator.random(200) < p, labels, 0).astype(np.int32) for p in (0.9, 0.5, 0.6, 0.7)
    )
    adversarial = adversarial[:attacks]
    right = survived = 0
    for n in range(200):
        if clean[n] == labels[n]:
            right += 1
            if all(predicted[n] == labels[n] for predicted in adversarial):
                survived += 1
    assert clean_accuracy(labels, clean) == proportion(right, 200)
    assert robust_accuracy(labels, clean, adversarial) == proportion(survived, 200)
    assert aae(labels, clean, adversarial) == proportion(survived, right)


def test_an_attack_that_corrects_a_mistake_changes_nothing() -> None:
    labels, clean, adversarial = (np.array(v, np.int32) for v in ([0, 0], [0, 1], [0, 0]))
    assert robust_accuracy(labels, clean, [adversarial]) == proportion(1, 2)
    assert aae(labels, clean, [adversarial]) == proportion(1, 1)


@pytest.mark.parametrize(
    ("count", "total"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 10), (817, 1000), (9999, 10_000)]
)
def test_interval_is_the_wilson_score_interval(count: int, total: int) -> None:
    z, p = 1.959963984540054, count / total
    half = z * math.sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    ends = [(p + z**2 / (2 * total) + sign * half) / (1 + z**2 / total) for sign in (-1, 1)]
    low, high = proportion(count, total).interval
    assert (low, high) == pytest.approx(ends, abs=1e-12)
    assert 0 <= low <= high <= 1
    assert count or low == 0


def test_a_proportion_of_nothing() -> None:
    assert proportion(0, 0).value is None
    assert proportion(0, 0).interval == (0.0, 1.0)


def test_numbers_are_those_counted_by_hand(report: Report) -> None:
    assert report.clean_accuracy.value == 0.8
    assert [(r.attack, r.eps, r.robust_accuracy.value, r.aae.value) for r in report.attacks] == [
        ("FGSM", 0.1, 0.6, 6 / 8),
        ("PGD", 0.1, 0.5, 5 / 8),
        ("PGD", 0.15, 0.0, 0.0),
        ("DeepFool", 1.0, 0.8, 1.0),
    ]
    assert [(r.attacks, r.norm, r.eps, r.robust_accuracy.value) for r in report.worst_case] == [
        (("DeepFool",), "L2", 1.0, 0.8),
        (("FGSM", "PGD"), "Linf", 0.1, 0.4),
        (("PGD",), "Linf", 0.15, 0.0),
    ]
    fgsm = report.attacks[0]
    assert (fgsm.mean_l2_broken, fgsm.mean_linf_broken) == (5.0, 2.5)  # indices 2 and 3 broke
    assert report.attacks[3].mean_l2_broken is None
    assert [(r.attacked, r.broken, r.gradients) for r in report.attacks] == [
        (10, 2, 20),
        (10, 3, 20),
        (10, 8, 20),
        (10, 0, 20),
    ]
    assert (report.seconds, report.seed, fgsm.settings) == (6.0, 7, {"steps": 2})
    assert report.environment["python"]


def test_rows_of_a_cumulative_suite_say_what_is_left(cumulative: Report) -> None:
    rows = [
        (r.attacked, r.broken, r.robust_accuracy.count, r.aae.count, r.aae.total) for r in cumulative.attacks
    ]
    assert rows == [(8, 3, 5, 5, 8), (5, 1, 4, 4, 8), (8, 8, 0, 0, 8), (0, 0, 0, 0, 8)]
    assert [(r.queries, r.gradients) for r in cumulative.attacks] == [(24, 16), (15, 10), (24, 16), (0, 0)]
    assert [(r.norm, r.robust_accuracy.value) for r in cumulative.worst_case] == [("L2", 0.0), ("Linf", 0.4)]
    assert cumulative.attacks[1].mean_linf_broken == 3.0


def test_the_table_of_images_says_what_each_attack_did(attacks: list[AttackResult], tmp_path: Path) -> None:
    attacked = np.arange(10) % 2 == 0
    again = dataclasses.replace(attacks[1], attacked=attacked)
    make_report([*attacks, again]).save(tmp_path)
    by_format = pd.read_csv(tmp_path / "images.csv"), pd.read_parquet(tmp_path / "images.parquet")
    for frame in by_format:
        assert len(frame) == 10
        for n, (_, row) in enumerate(frame.iterrows()):
            assert (row["index"], row["label"], row["clean_prediction"]) == (n, LABELS[n], CLEAN[n])
            assert row["class"] == ("T-shirt/top", "<Bag>")[LABELS[n]]
            assert row["clean_correct"] == (CLEAN[n] == LABELS[n])
            broke = [a for a in attacks if CLEAN[n] == LABELS[n] and a.predictions[n] != LABELS[n]]
            first = broke[0].settings if broke else None
            name = f"{first['attack']} {first['norm']} {first['eps']:g}" if first else ""
            found = row["first_broken_by"]
            assert ("" if pd.isna(found) else found) == name
            assert row["PGD Linf 0.1 prediction"] == attacks[1].predictions[n]
            assert row["PGD Linf 0.1 l2"] == attacks[1].l2[n]
            assert row["PGD Linf 0.1 (5) attacked"] == attacked[n]
            assert pd.isna(row["PGD Linf 0.1 (5) linf"]) == (not attacked[n])
            assert pd.isna(row["PGD Linf 0.1 (5) prediction"]) == (not attacked[n])
    Report.read(tmp_path / "report.json").save(tmp_path / "read")
    assert not (tmp_path / "read" / "images.csv").exists()


def test_each_class_has_its_worst_case(report: Report, attacks: list[AttackResult]) -> None:
    assert [(c.label, c.name) for c in report.classes] == [(0, "T-shirt/top"), (1, "<Bag>")]
    for found in report.classes:
        those = [n for n in range(10) if LABELS[n] == found.label]
        right = [n for n in those if CLEAN[n] == LABELS[n]]
        left = [n for n in right if all(a.predictions[n] == LABELS[n] for a in attacks)]
        assert found.clean_accuracy == proportion(len(right), len(those))
        assert found.robust_accuracy == proportion(len(left), len(those))
