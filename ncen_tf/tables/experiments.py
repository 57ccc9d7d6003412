"""Records of a sweep, read into what tables are made of."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.structures import STRUCTURES, structure_architecture
from ncen_tf.sweep.record import read_records
from ncen_tf.tables.methods import Method, default_flags, method_of
from ncen_tf.train.config import TrainingConfig

WORST_CASE = "worst case"


@dataclasses.dataclass(frozen=True)
class AttackKey:
    """An attack at a radius, with all its settings: results of different keys are never averaged."""

    attack: str
    """A name of ``ncen_tf.attack.registry.ATTACKS``, or :data:`WORST_CASE`."""
    norm: str
    eps: float
    settings: tuple[tuple[str, str], ...]
    """Name and text; of a worst case, the attacks that it is over."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Accuracies under an attack, in [0, 1]; ``None`` of no examples."""

    aae: float | None
    robust_accuracy: float | None


@dataclasses.dataclass(frozen=True)
class SuiteReport:
    """What a suite measured on one model."""

    protocol: str
    objective: str
    dataset: str
    examples: int
    """Images attacked."""
    ace: float | None
    cumulative: bool
    """Whether accuracies of an attack are those under it and all before it at the same norm and eps."""
    attacks: dict[AttackKey, Measured]
    """In the suite's order, worst cases over more than one attack last."""
    hardware: str


@dataclasses.dataclass(frozen=True)
class Experiment:
    """One trained ensemble and what was measured on it."""

    name: str
    """Of the record, for messages."""
    config: TrainingConfig
    train_examples: int
    """Images that were trained on, stated in the flags or not."""
    test_examples: int
    test: dict[str, npt.NDArray[np.float64]]
    """Measurements on clean test images, by name: one number, or one for each member."""
    seconds_per_step: float
    """Median over epochs."""
    hardware: str
    reports: tuple[SuiteReport, ...]

    @functools.cached_property
    def method(self) -> Method:
        return method_of(self.config)

    @property
    def members(self) -> int:
        return len(self.config.architecture)

    @property
    def scale(self) -> tuple[str, int, int, int]:
        """Dataset, members, training images and epochs: runs that differ here share no table."""
        return self.config.dataset, self.members, self.train_examples, self.config.epochs


def structure_of(architecture: tuple[str, ...]) -> str | None:
    """The paper's name of an architecture, ``Ensemble1`` .. ``Ensemble4``, if it has one."""
    if len(architecture) not in (3, 4, 5):
        return None
    names = (s for s in STRUCTURES if structure_architecture(s, len(architecture)) == architecture)
    return next(names, None)


def read_experiments(folder: Path) -> list[Experiment]:
    """All records below a folder.

    Raises:
        InputError: no records, one that cannot be used, or two of the same flags and seed.
    """
    experiments: list[Experiment] = []
    known: dict[object, str] = {}
    for record in read_records(folder):
        try:
            experiment = _experiment(record)
        except KeyError as error:
            raise InputError(f"The record {record['name']!r} in {folder} lacks {error}.") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"The record {record['name']!r} in {folder} cannot be used: {error}") from error
        config = experiment.config
        identity = experiment.scale, config.architecture, experiment.method, config.seed
        if identity in known:
            raise InputError(
                f"The records {known[identity]!r} and {experiment.name!r} in {folder} have the same flags "
                "and seed: keep one, or the seed would count twice."
            )
        known[identity] = experiment.name
        experiments.append(experiment)
    return experiments


def _experiment(record: dict[str, Any]) -> Experiment:
    run = record["run"]
    flags, dataset = run["flags"], run["dataset"]
    # A flag that the run's version did not have yet counts as the default.
    config = TrainingConfig.from_flags({**default_flags(flags["dataset"]), **flags})
    reports = tuple(_suite_report(report) for report in record["reports"].values())
    if len({(report.protocol, report.objective, report.examples) for report in reports}) < len(reports):
        raise ValueError("it has two reports of the same protocol, objective and number of examples.")
    return Experiment(
        record["name"],
        config,
        dataset["train_examples"],
        dataset["test_examples"],
        _measurements(run["test"], len(config.architecture)),
        float(run["median_seconds_per_step"]),
        _hardware(run["environment"]),
        reports,
    )


def _measurements(test: dict[str, Any], members: int) -> dict[str, npt.NDArray[np.float64]]:
    numbers = {name: np.asarray(value, np.float64) for name, value in test.items()}
    for name, number in numbers.items():
        if number.shape not in ((), (members,)):
            raise ValueError(f"{name} is neither one number nor one for each of {members} members.")
    return numbers


def _suite_report(report: dict[str, Any]) -> SuiteReport:
    attacks = {}
    for row in report["attacks"]:
        settings = tuple(sorted((name, str(value)) for name, value in row["settings"].items()))
        key = AttackKey(row["attack"], row["norm"], float(row["eps"]), settings)
        if key in attacks:
            raise ValueError(f"its report of protocol {report['protocol']} has {key.attack} twice.")
        attacks[key] = _measured(row)
    for row in report["worst_case"]:
        if len(row["attacks"]) > 1:
            over = (("of", ", ".join(row["attacks"])),)
            attacks[AttackKey(WORST_CASE, row["norm"], float(row["eps"]), over)] = _measured(row)
    return SuiteReport(
        report["protocol"],
        report["objective"],
        report["dataset"],
        int(report["examples"]),
        _share(report["clean_accuracy"] if "clean_accuracy" in report else report["ace"]),
        bool(report.get("cumulative", False)),
        attacks,
        _hardware(report["environment"]),
    )


def _measured(row: dict[str, Any]) -> Measured:
    return Measured(_share(row["aae"]), _share(row["robust_accuracy"]))


def _share(proportion: dict[str, Any]) -> float | None:
    return None if proportion["value"] is None else float(proportion["value"])


def _hardware(environment: dict[str, Any]) -> str:
    gpus = [f"GPU {name}" for name in environment.get("gpus", [])]
    cores = environment["cores"]
    return ", ".join([*gpus, f"{cores} CPU core{'s' * (cores > 1)}", environment["platform"]])
