"""A parameter map as filled contours; a bare Figure draws with Agg, without a display."""

from pathlib import Path

from matplotlib.figure import Figure

from ncen_tf.base.files import replacing
from ncen_tf.sweep.parameter_map import ParameterMap


def plot_parameter_map(file: Path, measured: ParameterMap, x: str, y: str, title: str) -> None:
    """Write ACE, mean AAE and their product as three panels of one PNG; dots are what was measured.

    Args:
        file: the PNG.
        measured: what to show; between its points the colours are interpolated.
        x: name of the horizontal axis.
        y: name of the vertical axis.
        title: of the figure.
    """
    figure = Figure(figsize=(14, 4.6), layout="constrained")
    panels = {"ACE": measured.ace, "mean AAE": measured.mean_aae, "ACE x mean AAE": measured.product}
    for axes, (name, values) in zip(
        figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True
    ):
        axes.use_sticky_edges = False  # room for the outer points' numbers
        axes.margins(0.1)
        filled = axes.contourf(measured.x, measured.y, values, levels=12)
        figure.colorbar(filled, ax=axes)
        for row, b in enumerate(measured.y):
            for column, a in enumerate(measured.x):
                axes.plot(a, b, "o", color="white", markeredgecolor="black", markersize=4, clip_on=False)
                axes.annotate(
                    f"{values[row, column]:.3f}",
                    (a, b),
                    xytext=(0, 5),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    bbox={
                        "boxstyle": "round,pad=0.1",
                        "facecolor": "white",
                        "edgecolor": "none",
                        "alpha": 0.7,
                    },
                )
        axes.set(title=name, xlabel=x, xticks=measured.x, yticks=measured.y)
    figure.axes[0].set_ylabel(y)
    figure.suptitle(title, fontsize=10)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
