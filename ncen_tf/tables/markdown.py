"""Tables as GitHub-flavoured Markdown."""

import re
from collections.abc import Iterable, Sequence

from ncen_tf.tables.protocol_comparison import Comparison
from ncen_tf.tables.table import Table

_SPECIAL = re.compile(r"([\\`*|<>\[\]])")


def to_markdown(table: Table, level: int = 2) -> str:
    """A heading of the given level, the table, and its caption."""
    body = [line for block in table.body() for line in block]
    return _section(level, table.title, table.header, 1 + len(table.row_head), body, table.caption)


def comparison_to_markdown(table: Comparison, level: int = 2) -> str:
    """The same of a comparison of protocols."""
    return _section(level, table.title, table.header, 2, table.body, table.caption)


def _section(
    level: int,
    title: str,
    header: Sequence[str],
    left: int,
    body: Iterable[Sequence[str]],
    caption: Iterable[str],
) -> str:
    rules = ["---"] * left + ["---:"] * (len(header) - left)
    lines = [_line(map(_escape, header)), _line(rules), *(_line(map(_escape, line)) for line in body)]
    return "\n".join([f"{'#' * level} {_escape(title)}", "", *lines, "", _escape(" ".join(caption)), ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
