"""Names of columns, and the defaults that they are told from."""

import json
import subprocess
import sys

import pytest

from ncen_tf.data.datasets import DATASETS
from ncen_tf.base.errors import InputError
from ncen_tf.tables.experiments import structure_of
from ncen_tf.tables.methods import Method, common_settings, default_flags, method_of
from ncen_tf.train.config import TrainingConfig
from tests.conftest import ROOT

BALANCED = ("lambda_norm", "-0.02")
SHORT = ("decay_every", "1")
ADVERSARIAL = ("adversarial_training", "pgd")

_PRINT_DEFAULTS = """
import json
from absl import flags
from ncen_tf.train import __main__ as train
for dataset in {datasets}:
    flags.FLAGS(["train", "--dataset=" + dataset, "--regularizer=none"])
    print(json.dumps(train.config_from_flags().to_flags()))
"""


def test_defaults_are_those_of_the_training_program() -> None:
    command = [sys.executable, "-c", _PRINT_DEFAULTS.format(datasets=list(DATASETS))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [default_flags(d) for d in DATASETS]


@pytest.mark.parametrize("regularizer", ["none", "gal", "gpmr", "adp", "nce"])
def test_scale_seed_and_structure_make_no_other_method(regularizer: str) -> None:
    other = {"seed": "7", "epochs": "1", "train_examples": "100", "architecture": "resnet8,resnet8"}
    flags = {**default_flags("cifar10"), **other, "regularizer": regularizer}
    assert method_of(TrainingConfig.from_flags(flags)) == Method(regularizer)


@pytest.mark.parametrize(
    ("regularizer", "flag", "value", "departs"),
    [
        ("nce", "lambda_norm", "-0.04", True),
        ("none", "lambda_norm", "-0.04", False),
        ("gal", "gal_coefficient", "1.0", True),
        ("gpmr", "lambda_eq", "1.0", True),
        ("adp", "adp_alpha", "1.0", True),
        ("none", "adversarial_training", "trades", True),
        ("none", "at_steps", "1", True),
        ("nce", "nce_form", "released", False),
        ("nce", "batch_size", "128", False),
    ],
)
def test_what_departs_from_the_papers_methods(regularizer: str, flag: str, value: str, departs: bool) -> None:
    flags = {**default_flags("cifar10"), "regularizer": regularizer, flag: value}
    method = method_of(TrainingConfig.from_flags(flags))
    assert method.differences == ((flag, value),)
    assert bool(method.departures) == departs


def test_labels_leave_to_the_caption_what_all_columns_share() -> None:
    columns = [Method("none", (SHORT,)), Method("nce", (SHORT,)), Method("nce", (SHORT, BALANCED))]
    common = common_settings(columns)
    assert common == {SHORT}
    assert [m.label(common) for m in columns] == ["BL", "NCEn", "NCEn, lambda_norm -0.02"]


def test_departures_stay_in_the_label_even_if_all_columns_share_them() -> None:
    columns = [Method("nce", (ADVERSARIAL, BALANCED)), Method("none", (ADVERSARIAL, BALANCED))]
    assert not common_settings(columns)
    assert columns[1].label(frozenset()) == "BL, adversarial_training pgd, lambda_norm -0.02"


def test_details_of_an_adversary_that_all_columns_share_are_left_to_the_caption() -> None:
    four, seven = ("at_steps", "4"), ("at_steps", "7")
    same = [Method("none", (ADVERSARIAL, four)), Method("nce", (ADVERSARIAL, four))]
    assert common_settings(same) == {four}
    assert same[1].label(common_settings(same)) == "NCEn, adversarial_training pgd"
    differing = [same[0], Method("nce", (ADVERSARIAL, seven))]
    assert not common_settings(differing)


def test_columns_are_in_the_papers_order() -> None:
    methods = [Method(r) for r in ("nce", "adp", "none", "gpmr", "gal")] + [Method("nce", (BALANCED,))]
    labels = [m.label(frozenset()) for m in sorted(methods, key=lambda method: method.rank)]
    assert labels == ["BL", "GAL", "GPMR", "ADP", "NCEn", "NCEn, lambda_norm -0.02"]


def test_structures_are_named_as_in_table_i() -> None:
    assert structure_of(("resnet20",) * 5) == "Ensemble1"
    assert structure_of(("resnet20", "resnet20", "resnet26", "resnet26", "resnet32")) == "Ensemble4"
    assert structure_of(("resnet32", "resnet26", "resnet20")) is None
    assert structure_of(("resnet20", "resnet20")) is None


def test_an_unknown_dataset_is_refused() -> None:
    with pytest.raises(InputError, match="'svhn'"):
        default_flags("svhn")
