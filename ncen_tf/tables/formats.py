"""Tables of results as text: for a terminal, in Markdown, LaTeX or CSV, or as a whole page."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from tabulate import SEPARATING_LINE, tabulate

from ncen_tf.base.errors import InputError
from ncen_tf.tables.result_tables import CSV_COLUMNS, ResultTable, result_tables

Format = Literal["terminal", "markdown", "latex", "csv"]

_CAPTION_WIDTH = 110
_MARKDOWN = re.compile(r"([\\`*|<>\[\]])")
_MINUS = re.compile(r"(?<![\w.])-(?=[\d.])")
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        **{letter: f"\\{letter}" for letter in "{}&%$#_"},
    }
)


def format_tables(
    results: pd.DataFrame,
    format: Format = "terminal",  # noqa: A002
    protocol: str = "all",
) -> str:
    """Write results as tables.

    Args:
        results: What ``read_results`` returns.
        format: ``terminal``, ``markdown``, ``latex`` (needs the package booktabs), or ``csv`` (a line a cell,
            numbers in full precision).
        protocol: Name of a protocol, or ``all``.

    Returns:
        The text, which ends with a line break.

    Raises:
        InputError: Nothing was measured under the protocol.

    Examples:
        >>> import ncen_tf
        >>> results = ncen_tf.read_results("docs/results")
        >>> print(ncen_tf.format_tables(results, "markdown", protocol="strict").splitlines()[0])
        ## AAE, protocol strict, fashion_mnist, k = 3
    """
    tables = [table for section in result_tables(results, protocol).values() for table in section]
    if format == "csv":
        cells = [cell for table in tables for cell in table.cells]
        return pd.DataFrame(cells, columns=CSV_COLUMNS).to_csv(index=False, lineterminator="\n")
    write = {"terminal": _terminal, "markdown": _markdown, "latex": _latex}[format]
    return "\n".join(write(table) for table in tables)


def results_page(results: pd.DataFrame, preamble: str | Path | None = None) -> str:
    """Write a Markdown page: a preamble, then all tables under headings. The same records give the same page.

    Args:
        results: What ``read_results`` returns.
        preamble: Markdown file that the page begins with.

    Raises:
        InputError: The preamble cannot be read.

    Examples:
        >>> import ncen_tf
        >>> page = ncen_tf.results_page(ncen_tf.read_results("docs/results"))
        >>> page.splitlines()[2]
        '## Protocols side by side'
    """
    try:
        begin = Path(preamble).read_text(encoding="utf-8") if preamble else "# Results\n"
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The preamble {preamble} cannot be read: {error}.") from error
    parts = [begin.rstrip() + "\n"] if begin.strip() else []
    for heading, tables in result_tables(results).items():
        parts += [f"## {heading}\n", *(_markdown(table, level=3) for table in tables)]
    return "\n".join(parts)


def _terminal(table: ResultTable) -> str:
    """Write the title, the caption, and aligned columns with a rule between blocks."""
    lines: list[list[str] | str] = []
    for block in table.blocks:
        lines += [SEPARATING_LINE, *block] if lines else block
    caption = "\n".join(textwrap.wrap(table.caption, _CAPTION_WIDTH))
    return f"{table.title}\n{caption}\n\n{_aligned(table, table.header, lines, 'simple')}\n"


def _markdown(table: ResultTable, level: int = 2) -> str:
    """Write a heading, the table in GitHub's Markdown, and the caption."""
    header = [_escape_markdown(name) for name in table.header]
    lines = [[_escape_markdown(text) for text in line] for block in table.blocks for line in block]
    heading = f"{'#' * level} {_escape_markdown(table.title)}"
    return f"{heading}\n\n{_aligned(table, header, lines, 'pipe')}\n\n{_escape_markdown(table.caption)}\n"


def _aligned(table: ResultTable, header: list[str], lines: Sequence[list[str] | str], tablefmt: str) -> str:
    align = ["left"] * table.row_heads + ["right"] * (len(header) - table.row_heads)
    return tabulate(lines, header, tablefmt=tablefmt, disable_numparse=True, colalign=align)


def _latex(table: ResultTable) -> str:
    """Write a ``table*`` float with its caption; the document needs ``\\usepackage{booktabs}``."""

    def line(cells: list[str]) -> str:
        return " & ".join(map(_escape_latex, cells)) + r" \\"

    columns = "l" * table.row_heads + "r" * (len(table.header) - table.row_heads)
    blocks = ["\n".join(map(line, block)) for block in table.blocks]
    body = "\n\\midrule\n".join([line(table.header), *blocks])
    return rf"""\begin{{table*}}[htbp]
\centering
\caption{{{_escape_latex(f"{table.title}. {table.caption}")}}}
\scriptsize
\setlength{{\tabcolsep}}{{3pt}}
\begin{{tabular}}{{{columns}}}
\toprule
{body}
\bottomrule
\end{{tabular}}
\end{{table*}}
"""


def _escape_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _escape_latex(text: str) -> str:
    """Escape text for LaTeX; the sign of a number becomes a minus."""
    return "$-$".join(part.translate(_LATEX) for part in _MINUS.split(text))
