"""Accuracy over two settings of training as a picture (Luo et al., Fig. 4)."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.sweep.records import CellRecord, read_records

PANELS = ("clean accuracy", "mean AAE", "clean accuracy x mean AAE")
"""What is shown; the product is the intensity of the paper's Fig. 4."""


def parameter_map(
    folder: str | Path, x: str = "lambda_cos", y: str = "lambda_norm", protocol: str = "paper"
) -> pd.DataFrame:
    """Average accuracies over the seeds at each point of a grid of two training settings.

    Args:
        folder: Folder of records. They may differ in the two settings and the seed, and in nothing else.
        x: Name of a training setting with numbers.
        y: Name of another one.
        protocol: Protocol whose attacks are averaged.

    Returns:
        A line for each point, indexed by ``y`` and ``x``: the accuracies of :data:`PANELS` in [0, 1], and the
        number of ``runs``.

    Raises:
        InputError: The records do not span a grid, or differ in other settings.

    Example:
        >>> import ncen_tf
        >>> ncen_tf.parameter_map("docs/diversity", "lambda_cos", "lambda_cos")
        Traceback (most recent call last):
        ...
        ncen_tf.base.errors.InputError: `x` and `y` must be two settings, got lambda_cos twice.
    """
    if x == y:
        raise InputError(f"`x` and `y` must be two settings, got {x} twice.")
    records = read_records(Path(folder))
    _check_comparable(records, {x, y, "seed"}, protocol)
    runs = pd.DataFrame([_run(record, x, y, protocol) for record in records])
    repeated = runs[runs.duplicated([x, y, "seed"])]
    if len(repeated):
        raise InputError(f"The record {repeated['record'].iloc[0]!r} repeats another one: remove one of them.")
    points = runs.groupby([y, x])
    means = points[list(PANELS)].mean().assign(runs=points.size())
    xs, ys = sorted(set(runs[x])), sorted(set(runs[y]))
    if len(xs) < 2 or len(ys) < 2:
        raise InputError(f"A map needs two values of {x} and of {y}; the records have {len(xs)} and {len(ys)}.")
    missing = [(a, b) for b in ys for a in xs if (b, a) not in means.index]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(xs) * len(ys)} points of the grid have no record, such as "
            f"{x} {missing[0][0]:g} with {y} {missing[0][1]:g}."
        )
    return means


def plot_parameter_map(
    folder: str | Path,
    out: str | Path,
    x: str = "lambda_cos",
    y: str = "lambda_norm",
    protocol: str = "paper",
) -> str:
    """Draw a parameter map as filled contours, and write its numbers beside it as CSV.

    Args:
        folder: Folder of records.
        out: PNG file to write; the CSV file has the same name with the suffix ``.csv``.
        x: Training setting of the horizontal axis.
        y: Training setting of the vertical axis.
        protocol: Protocol whose attacks are averaged.

    Returns:
        A sentence on the best point.

    Raises:
        InputError: The records do not span a grid, or differ in other settings.

    Example:
        >>> import ncen_tf
        >>> ncen_tf.plot_parameter_map("sweeps/lambda_map", "lambda_map.png")  # doctest: +SKIP
    """
    means, out = parameter_map(folder, x, y, protocol), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    means.to_csv(out.with_suffix(".csv"))
    figure = Figure(figsize=(14, 4.6), layout="constrained")  # Figure itself needs no display.
    for axes, panel in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True):
        values = means[panel].unstack(x)
        axes.use_sticky_edges = False  # leaves space for the numbers of the outer points
        axes.margins(0.1)
        figure.colorbar(axes.contourf(values.columns, values.index, values, levels=12), ax=axes)
        for (b, a), value in means[panel].items():
            axes.plot(a, b, "o", color="white", markeredgecolor="black", markersize=4)
            axes.annotate(
                f"{value:.3f}",
                (a, b),
                xytext=(0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7},
            )
        axes.set(title=panel, xlabel=x, xticks=values.columns, yticks=values.index)
    figure.axes[0].set_ylabel(y)
    record = read_records(Path(folder))[0]
    figure.suptitle(
        f"{record.config.dataset}, {record.run.data.train_examples} training images, protocol {protocol}, "
        "mean over seeds",
        fontsize=10,
    )
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    best_y, best_x = means[PANELS[2]].idxmax()
    return f"Largest {PANELS[2]}: {means[PANELS[2]].max():.4f} at {x} {best_x:g}, {y} {best_y:g}."


def _run(record: CellRecord, x: str, y: str, protocol: str) -> dict[str, object]:
    """Collect the point, the seed and the accuracies of one run."""
    settings = record.config.flat()
    for name in (x, y):
        if isinstance(settings.get(name), bool | str | None):
            raise InputError(f"The record {record.name!r} has no number {name}; it has {settings.get(name)!r}.")
    report = record.report(protocol)
    aae = [row.aae.value for row in report.attacks]
    if not aae or None in aae:
        raise InputError(f"The record {record.name!r} has no AAE: no image is classified correctly without attack.")
    clean, mean_aae = record.run.clean_accuracy, float(np.mean(aae))
    return {
        "record": record.name,
        x: float(settings[x]),
        y: float(settings[y]),
        "seed": record.config.seed,
        **dict(zip(PANELS, (clean, mean_aae, clean * mean_aae), strict=True)),
    }


def _check_comparable(records: list[CellRecord], free: set[str], protocol: str) -> None:
    def conditions(record: CellRecord) -> dict[str, object]:
        report = record.report(protocol)
        attacks = [(row.attack, row.norm, row.eps, row.settings) for row in report.attacks]
        settings = {name: value for name, value in record.config.flat().items() if name not in free}
        same = {"objective": report.objective, "attacked dataset": report.dataset, "examples": report.examples}
        return settings | same | {"attacks": attacks}

    first = conditions(records[0])
    for record in records[1:]:
        other = conditions(record)
        for name in sorted({*first, *other}):
            if first.get(name) != other.get(name):
                raise InputError(
                    f"Records of a map may differ in {', '.join(sorted(free))} only; {record.name!r} and "
                    f"{records[0].name!r} differ in {name}: {other.get(name)} and {first.get(name)}."
                )
