"""Tables of a sweep's results: python -m ncen_tf.tables --results=sweeps/NAME --format=markdown"""

from pathlib import Path
from typing import Literal

from pydantic import Field

import ncen_tf
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.base.settings import Settings


class Flags(Settings):
    """Flags of the program."""

    results: Path = Field(description="Folder with records of ncen_tf.sweep, at any depth")
    protocol: str = Field(
        default="all",
        description="Protocol to show, such as paper, released or strict; all adds the gradients on clean "
        "images and the cost of training",
    )
    format: Literal["terminal", "markdown", "latex", "csv", "map"] | None = Field(
        default=None,
        description="Format of the tables, terminal by default; csv has a line for each cell, and map is a "
        "picture of the accuracy over two training settings",
    )
    page: bool = Field(default=False, description="Whole Markdown page with the preamble and all tables")
    preamble: Path | None = Field(default=None, description="Markdown file that the page begins with")
    x: str = Field(default="lambda_cos", description="Training setting on the horizontal axis of a map")
    y: str = Field(default="lambda_norm", description="Training setting on the vertical axis of a map")
    out: Path | None = Field(default=None, description="File to write, instead of standard output")


def main(flags: Flags) -> None:
    if flags.page and (flags.protocol != "all" or flags.format):
        raise InputError("A `page` is Markdown with all protocols: leave out `protocol` and `format`.")
    if flags.preamble and not flags.page:
        raise InputError("`preamble` needs `page`.")
    results = ncen_tf.read_results(flags.results)
    if flags.format == "map":
        protocol = "paper" if flags.protocol == "all" else flags.protocol
        out = flags.out or flags.results / f"parameter_map-{protocol}.png"
        ncen_tf.plot_parameter_map(results, out, flags.x, flags.y, protocol)
        print(f"Map: {out}; its numbers: {out.with_suffix('.csv')}")
        return
    if flags.page:
        text = ncen_tf.results_page(results, flags.preamble)
    else:
        text = ncen_tf.format_tables(results, flags.format or "terminal", flags.protocol)
    if not flags.out:
        print(text, end="")
        return
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(flags.out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"Tables of {results['record'].nunique()} runs: {flags.out}")


if __name__ == "__main__":
    program.run(Flags, main)
