"""The matrix as people look at it (Luo et al., Fig. 3): AAE as a heat map, a panel for each attack."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncen_tf.base.files import replacing

CELL_INCHES = 0.75


def draw_heat_map(transfer: dict[str, Any]) -> Figure:
    """AAE in percent in every cell, colours from 0 to 100 % so that maps of several ensembles compare.

    Args:
        transfer: as :func:`ncen_tf.transfer.record.build_transfer` makes it.
    """
    attacks = transfer["attacks"]
    side = CELL_INCHES * len(transfer["members"])
    figure = Figure(figsize=(len(attacks) * max(side + 0.8, 3.4) + 1, side + 1.8), layout="constrained")
    panels = figure.subplots(1, len(attacks), squeeze=False)[0]
    for axes, row in zip(panels, attacks, strict=True):
        _draw_panel(axes, row)
    panels[0].set_ylabel("made on member")
    bar = figure.colorbar(panels[0].images[0], ax=list(panels))
    bar.set_label("AAE, %")
    figure.suptitle(f"{transfer['examples']} examples of {transfer['dataset']}", fontsize=9)
    return figure


def write_heat_map(file: Path, transfer: dict[str, Any]) -> None:
    """Write the heat map as PNG, at once."""
    figure = draw_heat_map(transfer)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_panel(axes: Axes, row: dict[str, Any]) -> None:
    values = 100 * np.array([[cell["value"] for cell in cells] for cells in row["aae"]])
    axes.imshow(values, vmin=0, vmax=100, cmap="viridis")
    for (i, j), value in np.ndenumerate(values):
        colour = "black" if value > 60 else "white"
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9)
    members = range(len(values))
    axes.set(xticks=members, yticks=members, xlabel="shown to member")
    difference = 100 * row["summary"]["difference"]
    axes.set_title(
        f"{row['attack']} {row['norm']} {row['eps']:g}\noff-diagonal - diagonal: {difference:+.1f}",
        fontsize=9,
    )
