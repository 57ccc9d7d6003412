"""The shipped cells against the paper's text, and against what its tables can hold at all."""

import csv
from pathlib import Path

import pytest

import ncen_tf.tabulation
from ncen_tf.attack.suites import load_suite
from ncen_tf.tables.paper_cells import TABLE_OF_MEMBERS, PaperCell, paper_cells

FILE = Path(ncen_tf.tables.__path__[0]) / "paper_cells.csv"


def test_every_line_of_the_file_is_one_cell() -> None:
    with FILE.open() as stream:
        lines = list(csv.reader(stream))[1:]
    assert len(paper_cells()) == len(lines) == 539
    for table, dataset, structure, members, regularizer, attack, eps, value in lines:
        assert table == TABLE_OF_MEMBERS[int(members)]
        cell = PaperCell(dataset, structure, int(members), regularizer, attack, float(eps) if eps else None)
        assert paper_cells()[cell] == float(value)


# Read from the text of Tables II, III and IV, not from the file.
@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (("fashion_mnist", "Ensemble1", 3, "none", "ACE", None), 0.9337),
        (("cifar10", "Ensemble1", 3, "nce", "ACE", None), 0.8436),
        (("fashion_mnist", "Ensemble1", 3, "nce", "PGD", 0.1), 0.7694),
        (("cifar10", "Ensemble1", 3, "gal", "PGD", 0.02), 0.2117),
        (("fashion_mnist", "Ensemble4", 3, "nce", "ACE", None), 0.8428),
        (("cifar10", "Ensemble2", 4, "gpmr", "BIM", 0.02), 0.3884),
        (("fashion_mnist", "Ensemble4", 4, "gal", "MI-FGSM", 0.3), 0.5034),
        (("fashion_mnist", "Ensemble2", 5, "gal", "FGSM", 0.3), 0.7448),
        (("cifar10", "Ensemble4", 5, "none", "BIM", 0.02), 0.4279),
    ],
)
def test_spot_values(cell: tuple[str, str, int, str, str, float | None], value: float) -> None:
    assert paper_cells()[PaperCell(*cell)] == value


def test_illegible_cells_are_absent() -> None:
    assert PaperCell("cifar10", "Ensemble1", 3, "none", "FGSM", 0.09) not in paper_cells()
    assert PaperCell("cifar10", "Ensemble4", 3, "nce", "BIM", 0.02) not in paper_cells()


@pytest.mark.parametrize("dataset", ["fashion_mnist", "cifar10"])
def test_attacks_are_those_of_the_suite(dataset: str) -> None:
    printed = {(cell.attack, cell.eps) for cell in paper_cells() if cell.dataset == dataset}
    suite = {(attack.name, attack.eps) for attack in load_suite("paper", dataset).attacks}
    assert printed == {*suite, ("ACE", None)}
    assert all(0 < value < 1 for value in paper_cells().values())
