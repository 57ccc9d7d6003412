"""Tables as LaTeX; the document loads booktabs."""

import re
from collections.abc import Iterable

from ncen_tf.tables.table import Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    **{letter: f"\\{letter}" for letter in "&%$#_"},
}
_MINUS = re.compile(r"(?<![\w.])-(?=[\d.])")


def to_latex(table: Table) -> str:
    """A ``table*`` float with caption; needs ``\\usepackage{booktabs}``."""
    left = 1 + len(table.row_head)
    columns = "l" * left + "r" * (len(table.header) - left)
    blocks = ["\n".join(map(_line, block)) for block in table.body()]
    caption = " ".join((f"{table.title}.", *table.caption))
    return "\n".join(
        [
            r"\begin{table*}[htbp]",
            r"\centering",
            rf"\caption{{{escape(caption)}}}",
            r"\scriptsize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _line(table.header),
            r"\midrule",
            "\n\\midrule\n".join(blocks),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Text that LaTeX prints as it is; the sign of a number becomes a minus."""
    parts = ("".join(_SPECIAL.get(letter, letter) for letter in part) for part in _MINUS.split(text))
    return "$-$".join(parts)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"
