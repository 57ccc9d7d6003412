"""Tables as GitHub-flavoured Markdown."""

import re
from collections.abc import Iterable

from ncen_tf.tabulation.table import Table

_SPECIAL = re.compile(r"([\\`*|<>\[\]])")


def to_markdown(table: Table, level: int = 2) -> str:
    """A heading of the given level, the table, and its caption."""
    left = 1 + len(table.row_head)
    rules = ["---"] * left + ["---:"] * (len(table.header) - left)
    lines = [_line(map(_escape, table.header)), _line(rules)]
    lines += [_line(map(_escape, line)) for block in table.body() for line in block]
    caption = _escape(" ".join(table.caption))
    return "\n".join([f"{'#' * level} {_escape(table.title)}", "", *lines, "", caption, ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text)
