"""The curve of robust accuracy against eps: exact on hyperplanes, never above what a suite found."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import ncen_tf
from ncen_tf.attack.attack import Norm
from ncen_tf.attack.auto_pgd import AutoPgdCrossEntropy, AutoPgdLogitRatio
from ncen_tf.attack.square import Square
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.report.curve import build_curve
from ncen_tf.report.measured import TargetInfo
from ncen_tf.targets.tensorflow_targets import KerasTarget
from tests.attack.helpers import Examples
from tests.attack.test_minimum_norm import centred_target, least_changes


def test_curve_of_a_hyperplane() -> None:
    target = centred_target()
    images = np.random.default_rng(0).uniform(0.4, 0.6, size=(50, *target.image_shape)).astype(np.float32)
    labels = target.logits(images)[:, 0].argmax(axis=1).astype(np.int32)
    exact = least_changes(target, images, "Linf")
    labels[:5] = 1 - labels[:5]
    exact[:5] = 0
    curve = ncen_tf.robustness_curve(target, Split(images, labels, "grey", ("a", "b")), norm="Linf")
    assert curve.distances[:5] == (0,) * 5
    assert curve.robust_accuracy(0).count == 45
    for eps in np.quantile(exact, [0.2, 0.4, 0.6, 0.8]) * 1.0005:
        found = curve.robust_accuracy(float(eps)).count
        assert (exact > eps).sum() <= found <= (exact * 1.03 > eps).sum()
    assert curve.points[0].robust_accuracy == curve.robust_accuracy(0)
    counts = [point.robust_accuracy.count for point in curve.points]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0
    assert curve.attacks[0].attacked == curve.attacks[0].found == 45


def test_no_curve_lies_above_the_suite_at_its_radius(
    target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    bounds: tuple[tuple[Norm, float], ...] = (("Linf", 0.03), ("L2", 0.4))
    suite = Suite(
        name="both norms",
        attacks=tuple(
            attack
            for norm, eps in bounds
            for attack in (
                AutoPgdCrossEntropy(eps=eps, norm=norm, steps=30),
                AutoPgdLogitRatio(eps=eps, norm=norm, steps=30),
                Square(eps=eps, norm=norm, queries=50),
            )
        ),
        objective="ensemble",
        cumulative=True,
    )
    data = Split(examples[0], examples[1], "sample", tuple("abcdefghij"))
    report = ncen_tf.evaluate(target, data, suite=suite, curve=("Linf", "L2"))
    for curve, case in zip(
        report.curves, sorted(report.worst_case, key=lambda c: c.norm != "Linf"), strict=True
    ):
        assert curve.norm == case.norm
        assert 0 < case.robust_accuracy.count < report.clean_accuracy.count
        assert curve.robust_accuracy(case.eps).count <= case.robust_accuracy.count
        alone = ncen_tf.robustness_curve(target, data, norm=curve.norm)
        assert alone.robust_accuracy(case.eps).count <= case.robust_accuracy.count + 1
        for apart, together in zip(alone.distances, curve.distances, strict=True):
            assert apart is not None
            assert together is not None
            assert together <= apart
    report.save(tmp_path)
    assert ncen_tf.Report.read(tmp_path / "report.json") == report
    table = pd.read_parquet(tmp_path / "images.parquet")
    assert tuple(table["minimal_distance L2"]) == report.curves[1].distances
    logits = np.float64(target.logits(examples[0]))
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)).mean(axis=1)
    for row, label, margin in zip(np.log(probabilities), examples[1], table["clean_margin"], strict=True):
        assert np.isclose(row[label] - max(np.delete(row, label)), margin, rtol=1e-3, atol=1e-4)
    assert ((table["minimal_distance Linf"] == 0) == (table["clean_margin"] < 0)).all()


def test_images_that_nothing_breaks_and_long_curves() -> None:
    info = TargetInfo(description="x", sha256="", members=1, gives_logits=True, providers=())
    distances = np.append(np.linspace(0, 1, 1001), np.inf)
    curve = build_curve(distances, [], norm="L2", dataset="d", seed=0, target=info)
    assert curve.distances[-1] is None
    assert len(curve.points) == 200
    assert curve.points[-1].robust_accuracy.count == 1
    assert curve.robust_accuracy(1e9).count == 1
    assert curve.robust_accuracy(0.5).count == 501
    nothing = build_curve(np.full(3, np.inf), [], norm="L2", dataset="d", seed=0, target=info)
    assert nothing.median_distance is None
    assert [point.eps for point in nothing.points] == [0]


def test_a_curve_needs_a_gradient_and_a_known_norm() -> None:
    target = centred_target()
    data = Split(np.full((2, 4, 3, 1), 0.5, np.float32), np.zeros(2, np.int32), "grey", ("a", "b"))
    with pytest.raises(InputError, match="has no gradient"):
        ncen_tf.robustness_curve(target.logits, data)
    with pytest.raises(InputError, match="`norm` must be one of Linf, L2, L1, L0, got 'L3'"):
        ncen_tf.robustness_curve(target, data, norm="L3")  # type: ignore[arg-type]
