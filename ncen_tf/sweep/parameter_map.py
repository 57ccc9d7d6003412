"""Accuracy over two flags of training (Luo et al., Fig. 4), from the records of a sweep."""

import collections
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.base.errors import InputError

Array = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class ParameterMap:
    """Means over seeds at each point of a grid; arrays are [len(y), len(x)]."""

    x: list[float]
    y: list[float]
    runs: npt.NDArray[np.int64]
    """Records at each point."""
    ace: Array
    """ACE on the test images that the run was measured on, in [0, 1]."""
    mean_aae: Array
    """Mean of the AAE under each attack of the suite, in [0, 1]."""
    product: Array
    """Mean of ACE x mean AAE, the intensity of the paper's Fig. 4."""


def make_parameter_map(records: list[dict[str, Any]], x: str, y: str, suite: str) -> ParameterMap:
    """Arrange records on the grid that two flags span.

    Args:
        records: one for each cell and seed; all other flags must be the same.
        x: flag of ncen_tf.train with numbers, e.g. ``lambda_cos``.
        y: another one, e.g. ``lambda_norm``.
        suite: whose attacks are averaged.

    Raises:
        InputError: the records do not span a grid, differ in more than the two flags and the seed, or are
            the same in all three.
    """
    points = [(_number(record, x), _number(record, y)) for record in records]
    accuracies = [_accuracies(record, suite) for record in records]
    _check_comparable(records, {x, y, "seed"}, suite)
    measured: dict[tuple[float, float], dict[str, tuple[float, float]]] = collections.defaultdict(dict)
    for point, record, accuracy in zip(points, records, accuracies, strict=True):
        seed = record["run"]["flags"]["seed"]
        if seed in measured[point]:
            raise InputError(
                f"Two records have --{x}={point[0]:g} --{y}={point[1]:g} --seed={seed}: remove one of them."
            )
        measured[point][seed] = accuracy
    xs, ys = (sorted({point[axis] for point in measured}) for axis in (0, 1))
    if len(xs) < 2 or len(ys) < 2:
        raise InputError(
            f"A map needs two values of --{x} and of --{y}; the records have {len(xs)} and {len(ys)}."
        )
    missing = [(a, b) for a in xs for b in ys if (a, b) not in measured]
    if missing:
        raise InputError(
            f"The records span no grid of --{x} and --{y}: {len(missing)} of {len(xs) * len(ys)} points "
            f"have none, e.g. --{x}={missing[0][0]:g} --{y}={missing[0][1]:g}."
        )
    runs_at = [[np.array(list(measured[a, b].values())) for a in xs] for b in ys]
    ace, aae = (np.array([[point[:, kind].mean() for point in row] for row in runs_at]) for kind in (0, 1))
    product = np.array([[point.prod(axis=1).mean() for point in row] for row in runs_at])
    runs = np.array([[len(point) for point in row] for row in runs_at])
    return ParameterMap(xs, ys, runs, ace, aae, product)


def _number(record: dict[str, Any], flag: str) -> float:
    text = record["run"]["flags"].get(flag)
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"Record {record['name']} has no number --{flag}; it has {text!r}.") from error


def _accuracies(record: dict[str, Any], suite: str) -> tuple[float, float]:
    if suite not in record["reports"]:
        has = ", ".join(record["reports"]) or "no suite"
        raise InputError(f"Record {record['name']} has no report of suite {suite!r}; it has {has}.")
    values = [row["aae"]["value"] for row in record["reports"][suite]["attacks"]]
    if not values or None in values:
        raise InputError(f"Record {record['name']} has no AAE under {suite}: no image was right when clean.")
    return float(record["run"]["test"]["ace"]), float(np.mean(values))


def _check_comparable(records: list[dict[str, Any]], free: set[str], suite: str) -> None:
    def settings(record: dict[str, Any]) -> dict[str, Any]:
        report = record["reports"][suite]
        attacks = [[row[name] for name in ("attack", "norm", "eps", "settings")] for row in report["attacks"]]
        flags = {f"--{name}": text for name, text in record["run"]["flags"].items() if name not in free}
        same = {name: report[name] for name in ("protocol", "dataset", "objective", "examples")}
        return {**flags, **{f"{suite}: {name}": value for name, value in same.items()}, "attacks": attacks}

    first = settings(records[0])
    for record in records[1:]:
        other = settings(record)
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                raise InputError(
                    f"Records of a map differ in its two flags and the seed only; {record['name']} and "
                    f"{records[0]['name']} differ in {name} ({other.get(name)}, {first.get(name)})."
                )
