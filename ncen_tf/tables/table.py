"""A table before it is written in a format."""

import dataclasses
import math

from ncen_tf.tables.methods import Method


@dataclasses.dataclass(frozen=True)
class Row:
    """What a row is about."""

    measure: str
    """``ACE``, ``AAE``, ``robust accuracy``, or the name of another measurement."""
    attack: str = ""
    norm: str = ""
    eps: float | None = None
    detail: str = ""
    """Settings that tell the row from another with the same attack and radius."""
    number_format: str = ".4f"

    @property
    def head(self) -> tuple[str, str]:
        """What is in front of the row's cells: attack or measure, and radius."""
        name = self.attack or self.measure
        radius = "" if self.eps is None else f"{self.eps:.4g}"
        return (
            f"{name} ({self.detail})" if self.detail else name,
            f"{radius} ({self.norm})" if self.norm not in ("", "Linf") else radius,
        )


@dataclasses.dataclass(frozen=True)
class Cell:
    """One measurement over seeds, and what the paper has there."""

    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    """One for each seed; ``None`` where nothing could be measured."""
    paper: float | None = None

    @property
    def measured(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float | None:
        return math.fsum(self.measured) / len(self.measured) if self.measured else None

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1); ``None`` of fewer than two values."""
        if self.mean is None or len(self.measured) < 2:
            return None
        squares = math.fsum((value - self.mean) ** 2 for value in self.measured)
        return math.sqrt(squares / (len(self.measured) - 1))

    @property
    def difference(self) -> float | None:
        """Mean minus the paper's cell."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper

    def text(self, number_format: str) -> str:
        """``0.7694 ± 0.0012``; with ``(n = ...)`` if a seed is missing, ``n/a`` if all are."""
        if self.mean is None:
            return "n/a"
        deviation = "" if self.std is None else f" ± {self.std:{number_format}}"
        count = "" if len(self.measured) == len(self.values) else f" (n = {len(self.measured)})"
        return f"{self.mean:{number_format}}{deviation}{count}"


@dataclasses.dataclass(frozen=True)
class Block:
    """The rows of one structure."""

    structure: str
    """``Ensemble1``, or the members."""
    lines: tuple[tuple[Row, tuple[Cell | None, ...]], ...]
    """A row and a cell for each column of the table; ``None`` where no run is."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Methods in columns, blocks of structures, rows of measurements."""

    title: str
    caption: tuple[str, ...]
    """Sentences."""
    context: dict[str, str | int]
    """What holds for all of it, by name: protocol, dataset, members, ..."""
    row_head: tuple[str, ...]
    """Names of what is in front of the cells, after the structure."""
    columns: tuple[Method, ...]
    labels: tuple[str, ...]
    """Of the columns."""
    blocks: tuple[Block, ...]

    def with_sentence(self, sentence: str) -> "Table":
        """The same table, its caption continued."""
        return dataclasses.replace(self, caption=(*self.caption, sentence))

    @property
    def compared(self) -> tuple[bool, ...]:
        """For each column, whether the paper has any of its cells."""
        cells = zip(*(cells for block in self.blocks for _, cells in block.lines), strict=True)
        return tuple(any(cell and cell.paper is not None for cell in column) for column in cells)

    @property
    def header(self) -> tuple[str, ...]:
        """Text of the head: structure, row head, and one to three columns a method."""
        names: list[str] = []
        for label, compared in zip(self.labels, self.compared, strict=True):
            names += [label, "paper", "diff."] if compared else [label]
        return ("structure", *self.row_head, *names)

    def body(self) -> list[list[tuple[str, ...]]]:
        """Text of the lines of every block; each as long as :attr:`header`."""
        compared = self.compared
        return [
            [
                (
                    block.structure if number == 0 else "",
                    *row.head[: len(self.row_head)],
                    *(
                        text
                        for cell, has_paper in zip(cells, compared, strict=True)
                        for text in _texts(cell, row.number_format, has_paper)
                    ),
                )
                for number, (row, cells) in enumerate(block.lines)
            ]
            for block in self.blocks
        ]


def _texts(cell: Cell | None, number_format: str, compared: bool) -> list[str]:
    if cell is None:
        return [""] * (3 if compared else 1)
    texts = [cell.text(number_format)]
    if compared:
        texts.append("" if cell.paper is None else f"{cell.paper:.4f}")
        texts.append("" if cell.difference is None else f"{cell.difference:+.4f}")
    return texts
