"""What a transfer run measured: counts, JSON, and tables for the terminal."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import model_validator
from tabulate import tabulate

from ncen_tf.base.settings import Settings
from ncen_tf.report.metrics import aae, clean_accuracy, proportion
from ncen_tf.report.results import Norm, Proportion
from ncen_tf.report.table import interval, percent
from ncen_tf.transfer.heat_map import write_heat_map

Labels = npt.NDArray[np.int32]
Matrix = tuple[tuple[Proportion, ...], ...]

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

    @model_validator(mode="after")
    def _require_square(self) -> Self:
        size = len(self.members)
        for row in self.attacks:
            for name in _TITLES:
                matrix: Matrix = getattr(row, name)
                if len(matrix) != size or any(len(cells) != size for cells in matrix):
                    raise ValueError(f"`{name}` of {row.attack} must be a table of {size} x {size} cells.")
        return self

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
        write_heat_map(Path(folder) / "transfer.png", self)


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
    matrices: dict[str, list[tuple[Proportion, ...]]] = {name: [] for name in _TITLES}
    for source, predictions in enumerate(adversarial):
        broken = right[source] & (predictions[source] != labels)
        cells: dict[str, list[Proportion]] = {name: [] for name in _TITLES}
        for shown_to, predicted in enumerate(predictions):
            eligible = broken & right[shown_to]
            both = eligible & (predicted != labels)
            cells["aae"].append(aae(labels, clean[shown_to], [predicted]))
            cells["accuracy"].append(clean_accuracy(labels, predicted))
            cells["transfer_rate"].append(proportion(int(both.sum()), int(eligible.sum())))
        for name, row in cells.items():
            matrices[name].append(tuple(row))
    values = np.array([[cell.value for cell in row] for row in matrices["aae"]], float)
    own = np.eye(len(values), dtype=bool)
    diagonal, off_diagonal = float(values[own].mean()), float(values[~own].mean())
    return TransferRow(
        **{key: settings[key] for key in ("attack", "norm", "eps")},
        settings={key: value for key, value in settings.items() if key not in ("attack", "norm", "eps")},
        aae=tuple(matrices["aae"]),
        accuracy=tuple(matrices["accuracy"]),
        transfer_rate=tuple(matrices["transfer_rate"]),
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
