"""What a transfer run measured: counts, JSON, tables for the terminal, and a heat map."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from tabulate import tabulate

from ncen_tf.base.files import replacing
from ncen_tf.base.settings import Settings
from ncen_tf.report.metrics import aae, clean_accuracy, proportion
from ncen_tf.report.results import Norm, Proportion
from ncen_tf.report.table import interval, percent

Labels = npt.NDArray[np.int32]
Matrix = tuple[tuple[Proportion, ...], ...]

_CELL_INCHES = 0.75
_TITLES = {"aae": "AAE", "accuracy": "accuracy", "transfer_rate": "transfer rate"}
_NOTES = (
    "AAE: classified correctly under attack, of the examples that the column's member classifies correctly",
    "when clean (Luo et al.).",
    "accuracy: classified correctly under attack, of all examples.",
    "transfer rate: classified wrongly under attack, of the examples that the attack breaks on the row's",
    "member and that both members classify correctly when clean.",
)


class MemberInfo(Settings):
    """One member, which images are made on and shown to."""

    description: str
    sha256: str
    providers: tuple[str, ...]
    clean_accuracy: Proportion


class TransferSummary(Settings):
    """Means of the AAE over the cells of one matrix, in [0, 1]."""

    mean_diagonal: float
    mean_off_diagonal: float
    difference: float
    """Off-diagonal minus diagonal: high where images that break their own member do not break the others."""


class TransferRow(Settings):
    """One attack. Row i, column j of a matrix: images made on member i, shown to member j."""

    attack: str
    norm: Norm
    eps: float
    settings: dict[str, Any]
    aae: Matrix
    """The paper's measure (Luo et al., section IV-C and Fig. 3): of the examples that member j classifies
    correctly when clean, the share that it classifies correctly under the attack."""
    accuracy: Matrix
    """Of all examples, the share that member j classifies correctly under the attack."""
    transfer_rate: Matrix
    """Of the examples that members i and j both classify correctly when clean and that the attack breaks on
    member i, the share that it breaks on member j too; 1 on the diagonal."""
    summary: TransferSummary


class Transfer(Settings):
    """How adversarial images made on one member do against the others (Luo et al., Fig. 3).

    ``print(transfer)`` shows tables; ``docs/defences.md`` explains how to read them.
    """

    format: Literal[2] = 2
    dataset: str
    examples: int
    seed: int
    batch_size: int
    members: tuple[MemberInfo, ...]
    attacks: tuple[TransferRow, ...]
    environment: dict[str, Any]

    def __str__(self) -> str:
        lines = [f"{self.examples} examples of {self.dataset}, seed {self.seed}"]
        for number, member in enumerate(self.members):
            clean = member.clean_accuracy
            lines.append(f"  {number}: {member.description}, clean {percent(clean)} {interval(clean)}")
        for row in self.attacks:
            settings = ", ".join(f"{key} {value:g}" for key, value in row.settings.items())
            lines += ["", f"{row.attack} {row.norm} {row.eps:g} ({settings})"]
            for name, title in _TITLES.items():
                lines += [f"  {title}", *_table(getattr(row, name))]
            summary = row.summary
            lines.append(
                f"  mean AAE off the diagonal {100 * summary.mean_off_diagonal:.2f} %, "
                f"on it {100 * summary.mean_diagonal:.2f} %, "
                f"difference {100 * summary.difference:+.2f} points"
            )
        return "\n".join([*lines, "", *_NOTES])

    def save(self, folder: Path | str) -> None:
        """Write ``transfer.json`` and the heat map ``transfer.png`` into a folder, made if it is missing."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.write(Path(folder) / "transfer.json")
        with replacing(Path(folder) / "transfer.png") as temporary:
            draw_heat_map(self).savefig(temporary, dpi=150)


def draw_heat_map(transfer: Transfer) -> Figure:
    """Draw the AAE of every cell (Luo et al., Fig. 3), a panel for each attack.

    Colours go from 0 to 100 %, so that maps of several ensembles compare.
    """
    members, count = range(len(transfer.members)), len(transfer.attacks)
    side = _CELL_INCHES * len(members)
    figure = Figure(figsize=(count * max(side + 0.8, 3.4) + 1, side + 1.8), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes, row in zip(panels, transfer.attacks, strict=True):
        values = 100 * np.array([[cell.value for cell in cells] for cells in row.aae], float)
        axes.imshow(values, vmin=0, vmax=100, cmap="viridis")
        for (i, j), value in np.ndenumerate(values):
            color = "black" if value > 60 else "white"
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", color=color, fontsize=9)
        difference = f"off-diagonal - diagonal: {100 * row.summary.difference:+.1f}"
        axes.set_title(f"{row.attack} {row.norm} {row.eps:g}\n{difference}", fontsize=9)
        axes.set(xticks=members, yticks=members, xlabel="shown to member")
    panels[0].set_ylabel("made on member")
    figure.colorbar(panels[0].images[0], ax=list(panels)).set_label("AAE, %")
    figure.suptitle(f"{transfer.examples} examples of {transfer.dataset}", fontsize=9)
    return figure


def count_transfer(
    settings: dict[str, Any], labels: Labels, clean: Labels, adversarial: Labels
) -> TransferRow:
    """Count every cell of the matrices of one attack.

    Args:
        settings: ``attack``, ``norm``, ``eps`` and further settings.
        labels: True classes, int [N].
        clean: Each member's predictions on clean images, int [k, N]; each is right on some image.
        adversarial: int [k, k, N]; [i, j] are member j's predictions on the images made on member i.
    """
    right = clean == labels
    matrices: dict[str, Any] = {name: [] for name in _TITLES}
    for source, predictions in enumerate(adversarial):
        broken = right[source] & (predictions[source] != labels)
        # Images that the attack breaks on the source, of those that both classify correctly when clean.
        eligible = broken & right
        both = (eligible & (predictions != labels)).sum(axis=1)
        rates = zip(both.tolist(), eligible.sum(axis=1).tolist(), strict=True)
        matrices["transfer_rate"].append(tuple(proportion(*rate) for rate in rates))
        matrices["accuracy"].append(tuple(clean_accuracy(labels, shown) for shown in predictions))
        pairs = zip(clean, predictions, strict=True)
        matrices["aae"].append(tuple(aae(labels, before, [shown]) for before, shown in pairs))
    values = np.array([[cell.value for cell in row] for row in matrices["aae"]], float)
    own = np.eye(len(values), dtype=bool)
    diagonal, off_diagonal = float(values[own].mean()), float(values[~own].mean())
    named = {key: settings[key] for key in ("attack", "norm", "eps")}
    return TransferRow(
        **named | {name: tuple(rows) for name, rows in matrices.items()},
        settings={key: value for key, value in settings.items() if key not in named},
        summary=TransferSummary(
            mean_diagonal=diagonal, mean_off_diagonal=off_diagonal, difference=off_diagonal - diagonal
        ),
    )


def _table(matrix: Sequence[Sequence[Proportion]]) -> list[str]:
    rows = [[f"made on {i}", *map(percent, cells)] for i, cells in enumerate(matrix)]
    titles = ["", *(f"on {j}" for j in range(len(rows)))]
    alignment = ["left", *["right"] * len(rows)]
    text = tabulate([titles, *rows], tablefmt="plain", colalign=alignment, disable_numparse=True)
    return [f"    {line}" for line in text.splitlines()]
