"""What was trained, as a column of a table: the regularizer and what differs from the defaults."""

import dataclasses
from collections.abc import Iterable
from dataclasses import fields

from ncen_tf.data.datasets import DATASETS, DatasetSpec
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.structures import structure_architecture
from ncen_tf.train.config import COEFFICIENTS, TrainingConfig, default_at_step_size

Setting = tuple[str, str]
"""A training flag's name and text."""

NAMES = {"none": "BL", "gal": "GAL", "gpmr": "GPMR", "adp": "ADP", "nce": "NCEn"}
"""The paper's columns in its order; ADP is not in it."""

_OF_ADVERSARY = ("at_", "trades_")
# What the paper has not: images that an adversary changed.
_ADVERSARIAL = ("adversarial_training", *_OF_ADVERSARY)
# Tables keep these apart already, as blocks, repetitions, and scale.
_NOT_OF_METHOD = frozenset(
    ("dataset", "architecture", "regularizer", "seed", "epochs", "train_examples", "test_examples")
)


@dataclasses.dataclass(frozen=True)
class Method:
    """A regularizer, and every setting that differs from the dataset's default."""

    regularizer: str
    """A value of ``--regularizer``."""
    differences: tuple[Setting, ...] = ()

    @property
    def name(self) -> str:
        """The paper's name of the regularizer."""
        return NAMES[self.regularizer]

    @property
    def departures(self) -> frozenset[Setting]:
        """The differences that make it another method than the paper's, at whatever scale: the regularizer's
        own weights, and adversarial training."""
        own = COEFFICIENTS[self.regularizer]
        return frozenset(d for d in self.differences if d[0] in own or d[0].startswith(_ADVERSARIAL))

    @property
    def rank(self) -> tuple[int, int, tuple[Setting, ...]]:
        """Sorts methods as the paper does, its own settings first."""
        return list(NAMES).index(self.regularizer), len(self.differences), self.differences

    def label(self, common: frozenset[Setting]) -> str:
        """``NCEn, lambda_norm -0.02``; settings that all columns have in common are left to the caption."""
        own = describe_settings(d for d in self.differences if d not in common)
        return f"{self.name}, {own}" if own else self.name


def method_of(config: TrainingConfig) -> Method:
    """The method of a training run."""
    defaults = default_flags(config.dataset)
    differences = (
        (flag, text)
        for flag, text in config.to_flags().items()
        if flag not in _NOT_OF_METHOD and text != defaults.get(flag)
    )
    return Method(config.regularizer, tuple(sorted(differences)))


def default_flags(dataset: str) -> dict[str, str]:
    """The flags of a run that states nothing but its dataset.

    Raises:
        InputError: no dataset of the package.
    """
    if dataset not in DATASETS:
        raise InputError(f"unknown dataset {dataset!r}; known are {', '.join(DATASETS)}.")
    of_dataset = {field.name: getattr(DATASETS[dataset], field.name) for field in fields(DatasetSpec)}
    config = TrainingConfig(
        dataset=dataset,
        architecture=structure_architecture("Ensemble1", 3),
        regularizer="none",
        **{
            field.name: of_dataset[field.name] for field in fields(TrainingConfig) if field.name in of_dataset
        },
    )
    step_size = default_at_step_size(config.at_eps, config.at_steps)
    return dataclasses.replace(config, at_step_size=step_size).to_flags()


def common_settings(methods: Iterable[Method]) -> frozenset[Setting]:
    """Differences that all methods share, for the caption.

    In the labels stay departures, but of adversarial training only that there is one: its details are long.
    """
    methods = list(methods)
    shared = frozenset.intersection(*(frozenset(method.differences) for method in methods))
    departures = frozenset[Setting]().union(*(method.departures for method in methods))
    return frozenset(s for s in shared if s not in departures or s[0].startswith(_OF_ADVERSARY))


def describe_settings(settings: Iterable[Setting]) -> str:
    """``decay_every 3, lambda_norm -0.02``."""
    return ", ".join(f"{flag} {text}" for flag, text in sorted(settings))
