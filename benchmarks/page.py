"""Write the page of the benchmarks: python -m benchmarks.page --results=docs/benchmarks"""

import json
import textwrap
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmarks.results import Row, as_text
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.base.settings import Settings

ORDER = (
    "training_step",
    "attacks",
    "inference",
    "onnx_gradients",
    "startup_and_memory",
    "scaling",
    "ray_scaling",
)
HEAD = """# Benchmarks

Made by `python -m benchmarks.page --results=docs/benchmarks` from the JSON files that the programs in
`benchmarks/` write; the docstring of each program shows its command. All sides of a table are timed in turn,
in one run, so that other load on the machine affects all sides alike. Times are medians, with quartiles
beside them. The last table of a section measures what the machine can do at all.
"""


BY_PROCESSOR = """The tables of the next sections side by side. `PyTorch / CE` is PyTorch's time divided by
that of ncen_tf.
"""


class PageFlags(Settings):
    """Flags of the program."""

    results: Path = Field(description="Folder with the JSON files that benchmarks wrote")
    out: Path | None = Field(None, description="File to write (default: standard output)")


class Result(Settings):
    """What a benchmark wrote."""

    program: str
    title: str
    about: str
    rounds: int
    environment: dict[str, Any]
    tables: list[dict[str, Any]]


def main(flags: PageFlags) -> None:
    text = page(flags.results)
    if not flags.out:
        print(text, end="")
        return
    with replacing(flags.out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(folder: Path) -> str:
    """Write the page of all results in a folder.

    Raises:
        InputError: The folder has no results, or a file is not one.
    """
    results = [Result.read(file) for file in sorted(folder.glob("*.json"))]
    if not results:
        raise InputError(f"{folder} has no JSON files of benchmarks.")
    results.sort(key=lambda r: (ORDER.index(r.program) if r.program in ORDER else len(ORDER), r.program))
    parts = [HEAD, "## Hardware and versions\n", environments(results)]
    if any(result.program == "training_step" for result in results):
        parts += [
            "## Training step on both kinds of processor\n",
            BY_PROCESSOR,
            markdown(by_processor(results)),
        ]
    for result in results:
        about = textwrap.fill(result.about, 110, break_on_hyphens=False)
        parts += [f"## {result.title}\n", f"{about}\n"]
        parts += [f"`python -m benchmarks.{result.program}`, rounds: {result.rounds}.\n"]
        for table in result.tables:
            parts += [f"### {table['title']}\n", markdown(table["rows"])]
    return "\n".join(parts)


def by_processor(results: list[Result]) -> list[Row]:
    """Make a row for each table of training steps: where it was measured, and how the sides compare."""
    rows: list[Row] = []
    for result in results:
        tables = [table for table in result.tables if " x ResNet" in table["title"]]
        for table in tables if result.program == "training_step" else ():
            ms = {row[""]: row["median ms"] for row in table["rows"]}
            rows.append(
                {
                    "": table["title"],
                    "instructions": result.environment["instructions"],
                    "cores": float(result.environment["cores"]),
                    "CE ms": ms["ncen_tf, CE"],
                    "NCE ms": ms["ncen_tf, NCE"],
                    "NCE / CE": ms["ncen_tf, NCE"] / ms["ncen_tf, CE"],
                    "PyTorch / CE": ms["PyTorch, CE"] / ms["ncen_tf, CE"],
                    "PyTorch / NCE": ms["PyTorch, NCE"] / ms["ncen_tf, NCE"],
                }
            )
    return rows


def environments(results: list[Result]) -> str:
    """Make a table with a column for each environment, headed by the programs that ran in it."""
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(json.dumps(result.environment), []).append(result.program)
    rows: dict[str, Row] = {}
    for text, programs in found.items():
        for key, value in json.loads(text).items():
            plain = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            rows.setdefault(key, {"": key})[", ".join(programs)] = plain
    return markdown(list(rows.values()))


def markdown(rows: list[Row]) -> str:
    """Write a table in GitHub-flavoured Markdown."""
    head, *lines = [[text.replace("|", "\\|") for text in line] for line in as_text(rows)]
    rules = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rules, *lines))


if __name__ == "__main__":
    program.run(PageFlags, main)
