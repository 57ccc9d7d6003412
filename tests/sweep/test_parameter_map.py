"""Maps over two flags, against NumPy; the program on folders of records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.parameter_map import make_parameter_map
from ncen_tf.sweep.record import write_record
from tests.conftest import Program

X, Y, SEEDS = (0.0, 0.02, 0.1), (-0.04, 0.04), (0, 1)


def record(
    x: float, y: float, seed: int, ace: float, aae: list[float | None], **flags: str
) -> dict[str, Any]:
    base = {"dataset": "cifar10", "architecture": "resnet8,resnet8", "regularizer": "nce", "epochs": "2"}
    return {
        "name": f"{x} {y} {seed}",
        "run": {
            "test": {"ace": ace, "member_ace": [ace, ace]},
            "flags": {**base, "lambda_cos": str(x), "lambda_norm": str(y), "seed": str(seed), **flags},
            "dataset": {"name": "cifar10", "train_examples": 100, "test_examples": 10},
        },
        "export": {"ace": ace, "test_examples": 10},
        "reports": {
            "paper": {
                "protocol": "paper",
                "objective": "member_average",
                "dataset": "cifar10",
                "examples": 10,
                "ace": {"value": ace},
                "attacks": [
                    {
                        "attack": "FGSM",
                        "settings": {},
                        "norm": "Linf",
                        "eps": 0.1 * number,
                        "aae": {"value": value},
                        "robust_accuracy": {"value": value},
                    }
                    for number, value in enumerate(aae)
                ],
                "worst_case": [],
            }
        },
    }


def in_l2(changed: dict[str, Any]) -> dict[str, Any]:
    """The record with its last attack in the other norm."""
    changed["reports"]["paper"]["attacks"][-1]["norm"] = "L2"
    return changed


@pytest.fixture
def measured() -> tuple[np.ndarray, np.ndarray]:
    """ACE [y, x, seed] and AAE [y, x, seed, attack]."""
    rng = np.random.default_rng(0)
    return rng.random((len(Y), len(X), len(SEEDS))), rng.random((len(Y), len(X), len(SEEDS), 4))


@pytest.fixture
def records(measured: tuple[np.ndarray, np.ndarray]) -> list[dict[str, Any]]:
    ace, aae = measured
    made = [
        record(x, y, seed, float(ace[j, i, seed]), aae[j, i, seed].tolist())
        for i, x in enumerate(X)
        for j, y in enumerate(Y)
        for seed in SEEDS
    ]
    return [made[index] for index in np.random.default_rng(1).permutation(len(made))]


def test_points_are_means_over_seeds(
    records: list[dict[str, Any]], measured: tuple[np.ndarray, np.ndarray]
) -> None:
    ace, aae = measured
    found = make_parameter_map(records, "lambda_cos", "lambda_norm", "paper")
    assert (found.x, found.y) == (list(X), list(Y))
    np.testing.assert_array_equal(found.runs, 2)
    np.testing.assert_allclose(found.ace, ace.mean(axis=2))
    np.testing.assert_allclose(found.mean_aae, aae.mean(axis=(2, 3)))
    # The product of each run, not of the means: a seed with high ACE and low AAE counts as such.
    np.testing.assert_allclose(found.product, (ace * aae.mean(axis=3)).mean(axis=2))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda records: [r for r in records if "0.02 0.04" not in r["name"]], "1 of 6 points have none"),
        (lambda records: [r for r in records if " 0.04" in r["name"]], "the records have 3 and 1"),
        (lambda records: [*records, records[0]], "Two records have"),
        (lambda records: [*records, record(0, 0.04, 2, 0.5, [0.5] * 4, epochs="3")], "differ in --epochs"),
        (lambda records: [*records, record(0, 0.04, 2, 0.5, [0.5])], "differ in attacks"),
        (lambda records: [*records, in_l2(record(0, 0.04, 2, 0.5, [0.5] * 4))], "differ in attacks"),
        (lambda records: [*records, record(0, 0.04, 2, 0.0, [None] * 4)], "no image was right"),
        (
            lambda records: [*records, record(0, 0.04, 2, 0.5, [0.5] * 4, lambda_cos="")],
            "no number --lambda_cos",
        ),
    ],
)
def test_records_that_span_no_grid_are_refused(
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], says: str, records: list[dict[str, Any]]
) -> None:
    with pytest.raises(InputError, match=says):
        make_parameter_map(change(records), "lambda_cos", "lambda_norm", "paper")


def test_the_program_leaves_a_plot_and_its_numbers(
    records: list[dict[str, Any]],
    measured: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
    run_program: Program,
    refuse: Callable[..., None],
) -> None:
    folder = f"--records={tmp_path}"
    refuse("parameter_map", folder, says="holds no record")
    for content in records:
        (tmp_path / content["name"]).mkdir()
        write_record(tmp_path / content["name"] / "result.json", content)
    done = run_program("parameter_map", folder)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "parameter_map-paper.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads((tmp_path / "parameter_map-paper.json").read_text())
    np.testing.assert_allclose(numbers["ace"], measured[0].mean(axis=2))
    assert numbers["y"] == {"flag": "lambda_norm", "values": list(Y)}
    assert numbers["seeds"] == [0, 1]
    assert run_program("parameter_map", folder).returncode == 0  # its own JSON is no record
    refuse("parameter_map", folder, "--suite=strict", says="no report of suite 'strict'; it has paper")
    refuse("parameter_map", folder, "--y=epochs", says="--lambda_norm")
