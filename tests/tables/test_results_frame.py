"""Results read from records: the paper's cells, what makes a method, and what is refused."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ncen_tf.attack.suites import load_suite
from ncen_tf.base.errors import InputError
from ncen_tf.tables.results_frame import (
    common_settings,
    is_departure,
    method_label,
    method_settings,
    methods_of,
    paper_cells,
    read_results,
)
from ncen_tf.train.config import TrainConfig
from tests.tables.records import Rng, record, report, write


# Read from the text of Tables II, III and IV, not from the file; None is illegible.
@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (("cifar10", "Ensemble1", 3, "nce", "ACE", None), 0.8436),
        (("fashion_mnist", "Ensemble1", 3, "nce", "PGD", 0.1), 0.7694),
        (("cifar10", "Ensemble1", 3, "gal", "PGD", 0.02), 0.2117),
        (("cifar10", "Ensemble2", 4, "gpmr", "BIM", 0.02), 0.3884),
        (("fashion_mnist", "Ensemble2", 5, "gal", "FGSM", 0.3), 0.7448),
        (("cifar10", "Ensemble4", 5, "none", "BIM", 0.02), 0.4279),
        (("cifar10", "Ensemble4", 3, "nce", "BIM", 0.02), None),
    ],
)
def test_cells_of_the_paper(cell: tuple[Any, ...], value: float | None) -> None:
    cells = paper_cells()
    *texts, eps = cell
    found = cells[(cells[["dataset", "structure", "members", "regularizer", "attack"]] == texts).all(axis=1)]
    found = found[found["eps"].isna() if eps is None else found["eps"] == eps]
    assert list(found["value"]) == ([] if value is None else [value])


@pytest.mark.parametrize(
    ("dataset", "image_shape"), [("fashion_mnist", (28, 28, 1)), ("cifar10", (32, 32, 3))]
)
def test_attacks_of_the_paper_are_those_of_the_suite(dataset: str, image_shape: tuple[int, int, int]) -> None:
    cells = paper_cells()
    assert len(cells) == 539
    assert cells["value"].between(0, 1, inclusive="neither").all()
    printed = cells[(cells["dataset"] == dataset) & (cells["attack"] != "ACE")]
    suite = {(attack.name, attack.eps) for attack in load_suite("paper", image_shape).attacks}
    assert set(zip(printed["attack"], printed["eps"], strict=True)) == suite


@pytest.mark.parametrize("regularizer", ["none", "gal", "gpmr", "adp", "nce"])
def test_scale_seed_and_structure_make_no_other_method(regularizer: str) -> None:
    other = {
        "seed": 7,
        "epochs": 1,
        "train_examples": 100,
        "architecture": ("resnet8",) * 2,
        "checkpoint_every": 3,
    }
    config = TrainConfig.from_flags({"dataset": "cifar10", "regularizer": regularizer} | other)
    assert method_settings(config) == ()


@pytest.mark.parametrize(
    ("regularizer", "name", "value", "departs"),
    [
        ("nce", "lambda_norm", -0.04, True),
        ("gal", "gal_coefficient", 1.0, True),
        ("gpmr", "lambda_eq", 1.0, True),
        ("adp", "adp_alpha", 1.0, True),
        ("none", "adversarial_training", "trades", True),
        ("nce", "nce_form", "released", False),
        ("nce", "batch_size", 128, False),
        ("nce", "deterministic", True, False),
    ],
)
def test_settings_that_make_another_method_than_the_papers(
    regularizer: str, name: str, value: object, departs: bool
) -> None:
    config = TrainConfig.from_flags({"dataset": "cifar10", "regularizer": regularizer, name: value})
    assert method_settings(config) == ((name, str(value).lower()),)
    assert is_departure(name) == departs


def test_labels_leave_to_the_caption_what_all_columns_share() -> None:
    short, balanced, adversarial = (
        ("decay_every", "1"),
        ("lambda_norm", "-0.02"),
        ("adversarial_training", "pgd"),
    )
    columns = [("none", (short,)), ("nce", (short,)), ("nce", (short, balanced))]
    common = common_settings(columns)
    assert common == {short}
    assert [method_label(method, common) for method in columns] == ["BL", "NCEn", "NCEn, lambda_norm -0.02"]
    # What makes another method is named in every column; of an adversary, only that there is one.
    columns = [("nce", (adversarial, ("at_steps", "4"), balanced)), ("nce", (adversarial, ("at_steps", "4")))]
    assert common_settings(columns) == {("at_steps", "4")}
    assert (
        method_label(columns[0], common_settings(columns))
        == "NCEn, adversarial_training pgd, lambda_norm -0.02"
    )
    assert not common_settings([columns[0], ("nce", (adversarial, ("at_steps", "7")))])


def test_columns_are_in_the_papers_order() -> None:
    departing = ("nce", (("lambda_norm", "-0.02"),))
    methods: list[Any] = [departing, *((name, ()) for name in ("nce", "adp", "none", "gpmr", "gal"))]
    frame = pd.DataFrame(methods, columns=["regularizer", "settings"])
    labels = [method_label(method) for method in methods_of(frame)]
    assert labels == ["BL", "GAL", "GPMR", "ADP", "NCEn", "NCEn, lambda_norm -0.02"]


def test_the_same_run_twice_is_refused(tmp_path: Path, rng: Rng) -> None:
    write(tmp_path, record(rng, "one"), record(rng, "two", checkpoint_every=7))
    with pytest.raises(InputError, match="'one' and 'two'"):
        read_results(tmp_path)


def test_two_reports_of_the_same_conditions_are_refused(tmp_path: Path, rng: Rng) -> None:
    one = record(rng, "one", [report(rng)])
    write(
        tmp_path, one.model_copy(update={"reports": {"a": one.reports["paper"], "b": one.reports["paper"]}})
    )
    with pytest.raises(InputError, match="'one' has two reports of protocol 'paper'"):
        read_results(tmp_path)
