"""Accuracy over two settings of training as a picture (Luo et al., Fig. 4)."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.tables.result_tables import GROUP_KEYS
from ncen_tf.tables.results_frame import WORST_CASE

PANELS = ("clean accuracy", "mean AAE", "clean accuracy x mean AAE")
"""What is shown, in [0, 1]; the product is the intensity of the paper's Fig. 4."""


def parameter_map(
    results: pd.DataFrame, x: str = "lambda_cos", y: str = "lambda_norm", protocol: str = "paper"
) -> pd.DataFrame:
    """Average accuracies over the seeds, as :func:`plot_parameter_map` draws them.

    Returns:
        A line for each point, indexed by ``y`` and ``x``: the accuracies of :data:`PANELS`, and the number of
        ``runs``.
    """
    if x == y:
        raise InputError(f"`x` and `y` must be two settings, got {x} twice.")
    attacked = results[(results["table"] == "AAE") & (results["protocol"] == protocol)]
    attacked = attacked[(attacked["measure"] == "AAE") & (attacked["attack"] != WORST_CASE)]
    if attacked.empty:
        raise InputError(f"No record has a report of protocol {protocol!r}.")
    for name in (x, y):
        if not all(isinstance(config.get(name), int | float) for config in attacked["config"]):
            raise InputError(f"{name} is not a training setting with a number in all records.")
    if key := next((key for key in GROUP_KEYS if attacked[key].nunique() > 1), None):
        raise InputError(f"The runs of a map must have the same {key}; these have several.")
    others = attacked["config"].map(lambda c: str({k: v for k, v in c.items() if k not in (x, y, "seed")}))
    if others.nunique() > 1:
        raise InputError(f"The runs of a map may differ in {x}, {y} and the seed only; these differ in more.")
    clean = results[results["measure"] == "clean_accuracy"].set_index("record")["value"]
    points = {name: attacked["config"].map(lambda config, name=name: float(config[name])) for name in (x, y)}
    runs = attacked.assign(**points).groupby([y, x, "record"])["value"].mean().reset_index("record")
    runs[PANELS[0]], runs[PANELS[1]] = runs["record"].map(clean), runs["value"]
    runs[PANELS[2]] = runs[PANELS[0]] * runs[PANELS[1]]
    grouped = runs.groupby([y, x])
    means = grouped[list(PANELS)].mean().assign(runs=grouped.size())
    shape = [means.index.get_level_values(name).nunique() for name in (x, y)]
    if min(shape) < 2 or len(means) < shape[0] * shape[1]:
        raise InputError(
            f"A map needs a full grid of at least two values of {x} and of {y}; the records have {shape[0]} "
            f"and {shape[1]}, and {len(means)} points."
        )
    return means


def plot_parameter_map(
    results: pd.DataFrame,
    out: str | Path,
    x: str = "lambda_cos",
    y: str = "lambda_norm",
    protocol: str = "paper",
) -> pd.DataFrame:
    """Draw the accuracy over two training settings as filled contours, with its numbers beside it as CSV.

    Args:
        results: What ``read_results`` returns, of runs that differ in the two settings and the seed only.
        out: PNG file to write; the CSV file has the same name with the suffix ``.csv``.
        x: Training setting of the horizontal axis.
        y: Training setting of the vertical axis.
        protocol: Protocol whose attacks are averaged.

    Returns:
        The numbers: a line for each point.

    Raises:
        InputError: The runs do not span a grid, or differ in other settings or in how they were attacked.

    Examples:
        >>> import ncen_tf
        >>> results = ncen_tf.read_results("sweeps/lambda_map")  # doctest: +SKIP
        >>> points = ncen_tf.plot_parameter_map(results, "lambda_map.png")  # doctest: +SKIP
    """
    means, out = parameter_map(results, x, y, protocol), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    means.to_csv(out.with_suffix(".csv"))
    figure = Figure(figsize=(14, 4.6), layout="constrained")  # A figure of its own needs no display.
    for axes, panel in zip(figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True):
        values = means[panel].unstack(x)
        axes.use_sticky_edges = False  # leaves space for the numbers of the outer points
        axes.margins(0.1)
        figure.colorbar(axes.contourf(values.columns, values.index, values, levels=12), ax=axes)
        for point, value in means[panel].items():
            place: Any = point[::-1]  # type: ignore[index] # (x, y)
            axes.plot(*place, "o", color="white", markeredgecolor="black", markersize=4)
            text = f"{value:.3f}"
            axes.annotate(text, place, (0, 5), textcoords="offset points", ha="center", fontsize=7)
        axes.set(title=panel, xlabel=x, xticks=values.columns, yticks=values.index)
    figure.axes[0].set_ylabel(y)
    first = results.iloc[0]
    title = f"{first['dataset']}, {first['train_examples']:,} training images, protocol {protocol}"
    figure.suptitle(f"{title}, mean over seeds", fontsize=10)
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return means
