"""What training costs, and what members' gradients do on clean test images."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.data.datasets import DATASETS
from ncen_tf.tables.conditions import describe_hardware
from ncen_tf.tables.experiments import Experiment
from ncen_tf.tables.layout import Sample, lay_out
from ncen_tf.tables.table import Row, Table

# Relative to the members' largest: float32 leaves less than this of differences and sums that are zero.
_ROUNDING = 1e-6
# What ncen_tf.train.robustness_probe adds after adversarial training: of few images, and attacked ones.
_ATTACKED = ("training_attack_accuracy", "pgd_accuracy")


def diagnostics_tables(experiments: Iterable[Experiment]) -> list[Table]:
    """Every number that was measured on clean test images; those of members as mean and range."""
    caption = (
        "Measured by the training program on clean test images, in inference mode. "
        "mean, range: over members; range is largest minus smallest."
    )
    tables = []
    for group in _groups(experiments, lambda e: (e.test_examples,)):
        samples = [Sample(experiment, _diagnostics(experiment.test)) for experiment in group]
        images = f"{group[0].test_examples:,} test images."
        tables.append(_table(samples, "Gradients and accuracy on clean images", (caption, images)))
    return tables


def cost_tables(experiments: Iterable[Experiment]) -> list[Table]:
    """Seconds for a training step, a table for each kind of machine."""
    tables = []
    for group in _groups(experiments, lambda e: (e.hardware,)):
        row = Row("seconds per step", number_format=".3f")
        samples = [Sample(experiment, {row: experiment.seconds_per_step}) for experiment in group]
        caption = "Median seconds for one optimizer step on a batch; other work on a machine adds to it."
        tables.append(_table(samples, f"Cost of training on {group[0].hardware}", (caption,)))
    return tables


def _groups(
    experiments: Iterable[Experiment], apart: Callable[[Experiment], tuple[Any, ...]]
) -> list[list[Experiment]]:
    """Runs of one dataset, size and scale, further told apart by ``apart``; sorted."""
    groups: dict[tuple[Any, ...], list[Experiment]] = {}
    for experiment in experiments:
        key = (*experiment.scale, *apart(experiment))
        groups.setdefault(key, []).append(experiment)
    datasets = list(DATASETS)
    return [groups[key] for key in sorted(groups, key=lambda key: (datasets.index(key[0]), *key[1:]))]


def _table(samples: list[Sample], subject: str, caption: tuple[str, ...]) -> Table:
    first = samples[0].experiment
    dataset, epochs = first.config.dataset, first.config.epochs
    trained = f"Trained on {first.train_examples:,} images of {dataset} for {epochs} epochs."
    return lay_out(
        samples,
        title=f"{subject}, {dataset}, k = {first.members}",
        caption=(*caption, trained),
        context={
            "examples": first.test_examples,
            "dataset": dataset,
            "members": first.members,
            "train_examples": first.train_examples,
            "epochs": epochs,
        },
        hardware=describe_hardware(sample.experiment.hardware for sample in samples),
        row_head=("measure",),
    )


def _diagnostics(test: dict[str, npt.NDArray[np.float64]]) -> dict[Row, float | None]:
    values: dict[Row, float | None] = {}
    for name, numbers in test.items():
        if name in _ATTACKED:
            continue
        summaries = {"": numbers} if numbers.ndim == 0 else {"mean": numbers.mean(), "range": np.ptp(numbers)}
        for detail, value in summaries.items():
            noise = abs(value) < _ROUNDING * np.abs(numbers).max()
            values[Row(name, detail=detail, number_format=".4g")] = 0.0 if noise else float(value)
    return values
