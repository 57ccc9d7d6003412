"""Tables as aligned plain text."""

import textwrap

from ncen_tf.tables.table import Table

_WIDTH = 110


def to_terminal(table: Table) -> str:
    """Title, caption, and aligned columns, a rule before each block."""
    lines = [table.header, *(line for block in table.body() for line in block)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = 1 + len(table.row_head)

    def aligned(line: tuple[str, ...]) -> str:
        cells = (
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    blocks = [line for block in table.body() for line in (rule, *map(aligned, block))]
    caption = (line for sentence in table.caption for line in textwrap.wrap(sentence, _WIDTH))
    return "\n".join([table.title, *caption, "", aligned(table.header), *blocks, ""])
