"""The transfer matrix as a heat map (Luo et al., Fig. 3): AAE, a panel for each attack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncen_tf.base.files import replacing

if TYPE_CHECKING:
    from ncen_tf.transfer.record import Transfer, TransferRow

CELL_INCHES = 0.75


def draw_heat_map(transfer: Transfer) -> Figure:
    """Draw the AAE of every cell; colours go from 0 to 100 %, so that maps of several ensembles compare."""
    side = CELL_INCHES * len(transfer.members)
    panels_wide = len(transfer.attacks) * max(side + 0.8, 3.4) + 1
    figure = Figure(figsize=(panels_wide, side + 1.8), layout="constrained")
    panels = figure.subplots(1, len(transfer.attacks), squeeze=False)[0]
    for axes, row in zip(panels, transfer.attacks, strict=True):
        _draw_panel(axes, row)
    panels[0].set_ylabel("made on member")
    bar = figure.colorbar(panels[0].images[0], ax=list(panels))
    bar.set_label("AAE, %")
    figure.suptitle(f"{transfer.examples} examples of {transfer.dataset}", fontsize=9)
    return figure


def write_heat_map(file: Path, transfer: Transfer) -> None:
    """Write the heat map as a PNG file."""
    figure = draw_heat_map(transfer)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_panel(axes: Axes, row: TransferRow) -> None:
    values = 100 * np.array([[cell.value for cell in cells] for cells in row.aae], float)
    axes.imshow(values, vmin=0, vmax=100, cmap="viridis")
    for (i, j), value in np.ndenumerate(values):
        colour = "black" if value > 60 else "white"
        axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=9)
    members = range(len(values))
    axes.set(xticks=members, yticks=members, xlabel="shown to member")
    axes.set_title(
        f"{row.attack} {row.norm} {row.eps:g}\noff-diagonal - diagonal: {100 * row.summary.difference:+.1f}",
        fontsize=9,
    )
