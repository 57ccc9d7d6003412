"""Tables of a sweep's results: python -m ncen_tf.tables --results=results --format=markdown"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ncen_tf.tables.experiments import Experiment
    from ncen_tf.tables.table import Table

ALL = "all"

RESULTS = flags.DEFINE_string("results", None, "folder with records of ncen_tf.sweep, at any depth")
PROTOCOL = flags.DEFINE_string("protocol", ALL, "paper, released, strict, ...; all adds gradients and cost")
FORMAT = flags.DEFINE_enum(
    "format", "terminal", ["terminal", "markdown", "latex", "csv"], "latex needs booktabs; csv: a cell a line"
)
PAGE = flags.DEFINE_bool("page", False, "a whole Markdown page: --preamble, then all tables")
PREAMBLE = flags.DEFINE_string("preamble", None, "Markdown file that a --page begins with")
OUT = flags.DEFINE_string("out", None, "file to write (default: standard output)")


def main() -> None:
    if not RESULTS.value:
        raise InputError("--results names the folder with the records (result.json) of a sweep.")
    if PAGE.value and (PROTOCOL.value != ALL or FORMAT.present):
        raise InputError("A --page is Markdown with all protocols: leave out --protocol and --format.")
    if PREAMBLE.value and not PAGE.value:
        raise InputError("--preamble begins a --page.")
    from ncen_tf.tables.experiments import read_experiments

    experiments = read_experiments(Path(RESULTS.value))
    text = page(experiments) if PAGE.value else tables(experiments)
    if not OUT.value:
        print(text, end="")
        return
    out = Path(OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"Tables of {len(experiments)} runs: {out}")


def page(experiments: Sequence[Experiment]) -> str:
    """The page that --page asks for."""
    from ncen_tf.tables.page import to_page

    try:
        preamble = Path(PREAMBLE.value).read_text(encoding="utf-8") if PREAMBLE.value else "# Results\n"
    except UnicodeDecodeError as error:
        raise InputError(f"The preamble {PREAMBLE.value} is no UTF-8 text: {error}.") from error
    return to_page(experiments, preamble)


def tables(experiments: Sequence[Experiment]) -> str:
    """The tables that --protocol and --format ask for."""
    from ncen_tf.tables.latex import to_latex
    from ncen_tf.tables.long_csv import to_csv
    from ncen_tf.tables.markdown import to_markdown
    from ncen_tf.tables.terminal import to_terminal

    chosen = choose(experiments, PROTOCOL.value)
    if FORMAT.value == "csv":
        return to_csv(chosen)
    write = {"terminal": to_terminal, "markdown": to_markdown, "latex": to_latex}[FORMAT.value]
    return "\n".join(write(table) for table in chosen)


def choose(experiments: Sequence[Experiment], protocol: str) -> list[Table]:
    """Tables of a protocol, or all that there are.

    Raises:
        InputError: nothing was measured under the protocol.
    """
    from ncen_tf.tables.accuracy_tables import accuracy_tables, protocols
    from ncen_tf.tables.page import sections

    if protocol == ALL:
        return [table for of_section in sections(experiments).values() for table in of_section]
    known = protocols(experiments)
    if protocol not in known:
        measured = f"they have {', '.join(known)}" if known else "they have no reports of attacks"
        raise InputError(f"No record in {RESULTS.value} has protocol {protocol!r}: {measured}.")
    return accuracy_tables(experiments, protocol)


if __name__ == "__main__":
    program.run(main)
