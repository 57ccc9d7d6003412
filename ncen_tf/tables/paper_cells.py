"""The legible cells of Tables II-IV (Luo et al.), and the scale that they were measured at."""

import csv
import functools
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

TABLE_OF_MEMBERS = {3: "II", 4: "III", 5: "IV"}
TRAIN_EXAMPLES = {"fashion_mnist": 60_000, "cifar10": 50_000}
"""Images that the paper trains on; its epochs are the datasets' defaults."""


class PaperCell(NamedTuple):
    """What a cell of the paper is about."""

    dataset: str
    structure: str
    """``Ensemble1`` .. ``Ensemble4``."""
    members: int
    regularizer: str
    """A value of ``--regularizer``; the paper's BL is ``none``."""
    attack: str
    """``FGSM``, ``MI-FGSM``, ``PGD``, ``BIM``, or ``ACE`` for clean accuracy."""
    eps: float | None
    """Linf, images in [0, 1]; ``None`` for ACE. BIM's 0.2 on CIFAR-10 is read as 0.02."""


@functools.cache
def paper_cells() -> Mapping[PaperCell, float]:
    """ACE and AAE in [0, 1] of every cell that could be read; the others are absent."""
    with (resources.files("ncen_tf.tables") / "paper_cells.csv").open(encoding="utf-8") as stream:
        return {
            PaperCell(
                row["dataset"],
                row["structure"],
                int(row["members"]),
                row["regularizer"],
                row["attack"],
                float(row["eps"]) if row["eps"] else None,
            ): float(row["value"])
            for row in csv.DictReader(stream)
        }
