"""What a transfer matrix counts.

Row i, column j: images made on member i by an attack on its own cross-entropy, shown to member j. The
diagonal is white-box. Each cell has three measures, whose examples differ:

- ``aae``, the paper's (Luo et al., section IV-C and Fig. 3): of the examples that member j classifies right
  when clean, the share that it classifies right under the attack. Columns are comparable: what j gets wrong
  anyway counts neither for nor against i.
- ``accuracy``: of all examples, the share that member j classifies right under the attack, whatever it
  says of the clean image.
- ``transfer_rate``: of the examples that members i and j both classify right when clean and that the attack
  breaks on member i, the share that it breaks on member j too; "the success rate of being able to attack
  other models at the same time". It does not grow with the attack's success on member i itself; on the
  diagonal it is 1.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

from ncen_tf.report.metrics import aae, proportion
from ncen_tf.report.results import Proportion

Labels = npt.NDArray[np.int32]

MEASURES = ("aae", "accuracy", "transfer_rate")


@dataclasses.dataclass(frozen=True)
class Cell:
    """Images made on one member, shown to another or the same; measures as in the module's docstring."""

    aae: Proportion
    accuracy: Proportion
    transfer_rate: Proportion


Matrix = list[list[Cell]]


def transfer_matrix(labels: Labels, clean: Labels, adversarial: Labels) -> Matrix:
    """Count every cell.

    Args:
        labels: int [N], the true classes.
        clean: int [k, N], each member's predictions on clean images.
        adversarial: int [k, k, N]; [i, j] are member j's predictions on the images made on member i.

    Returns:
        k rows of k cells, row i for the images made on member i.
    """
    right = clean == labels
    matrix = []
    for source, predictions in enumerate(adversarial):
        broken = right[source] & (predictions[source] != labels)
        row = []
        for shown_to, predicted in enumerate(predictions):
            eligible = broken & right[shown_to]
            both = eligible & (predicted != labels)
            row.append(
                Cell(
                    aae=aae(labels, clean[shown_to], [predicted]),
                    accuracy=proportion(int((predicted == labels).sum()), len(labels)),
                    transfer_rate=proportion(int(both.sum()), int(eligible.sum())),
                )
            )
        matrix.append(row)
    return matrix


@dataclasses.dataclass(frozen=True)
class Summary:
    """Mean AAE of the cells of one matrix, in [0, 1]."""

    diagonal: float
    off_diagonal: float

    @property
    def difference(self) -> float:
        """Off-diagonal minus diagonal: high where images that break their own member spare the others."""
        return self.off_diagonal - self.diagonal


def summarize(matrix: Matrix) -> Summary:
    """Means over a matrix of at least two members, each right on some clean image."""
    values = np.array([[cell.aae.value for cell in row] for row in matrix], float)
    own = np.eye(len(matrix), dtype=bool)
    return Summary(float(values[own].mean()), float(values[~own].mean()))
