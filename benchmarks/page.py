"""The BENCHMARKS page: python -m benchmarks.page --results=docs/benchmarks --out=docs/BENCHMARKS.md"""

import json
import textwrap
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.table import cells
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing

RESULTS = flags.DEFINE_string("results", None, "folder with the JSON files that benchmarks wrote with --out")
OUT = flags.DEFINE_string("out", None, "file to write (default: standard output)")

ORDER = ("training_step", "attacks", "inference", "startup_and_memory", "scaling")
HEAD = """# Benchmarks

Made by `python -m benchmarks.page --results=docs/benchmarks` from JSON files, which the programs in
`benchmarks/` write; their first lines say how they are run. All sides of a table are timed in turn in one
run, so that whatever else the machine does hits all alike. Times are medians, with quartiles beside them; the
last table of a section says what the machine can do at all.
"""


def main() -> None:
    if not RESULTS.value:
        raise InputError("--results names the folder with the JSON files of the benchmarks.")

    text = page(Path(RESULTS.value))
    if not OUT.value:
        print(text, end="")
        return
    with replacing(Path(OUT.value)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(folder: Path) -> str:
    """The page of all results in a folder; the same files give the same page.

    Raises:
        InputError: no results there, or a file that is none.
    """
    results = [read(file) for file in sorted(folder.glob("*.json"))]
    if not results:
        raise InputError(f"{folder} holds no JSON files of benchmarks.")
    known = {name: place for place, name in enumerate(ORDER)}
    results.sort(key=lambda result: (known.get(result["program"], len(known)), result["program"]))
    parts = [HEAD, "## Hardware and versions\n", environments(results)]
    for result in results:
        parts += [
            f"## {result['title']}\n",
            textwrap.fill(result["about"], 110, break_on_hyphens=False) + "\n",
        ]
        parts += [f"`python -m benchmarks.{result['program']}`, {result['rounds']} rounds.\n"]
        for table in result["tables"]:
            parts += [f"### {table['title']}\n", markdown(table["rows"])]
    return "\n".join(parts)


def read(file: Path) -> dict[str, Any]:
    """What a benchmark wrote.

    Raises:
        InputError: it did not.
    """
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        missing = {"program", "title", "about", "rounds", "environment", "tables"}.difference(content)
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} is no JSON of a benchmark: {error}.") from error
    if missing:
        raise InputError(f"{file} is no JSON of a benchmark: it lacks {', '.join(sorted(missing))}.")
    return content


def environments(results: list[dict[str, Any]]) -> str:
    """A table with a column for each environment, headed by the programs that ran in it."""
    found: dict[str, list[str]] = {}
    for result in results:
        found.setdefault(json.dumps(result["environment"]), []).append(result["program"])
    rows: dict[str, dict[str, Any]] = {}
    for text, programs in found.items():
        for key, value in json.loads(text).items():
            rows.setdefault(key, {"": key})[", ".join(programs)] = _plain(value)
    return markdown(list(rows.values()))


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table in GitHub-flavoured Markdown."""
    head, *lines = [[text.replace("|", "\\|") for text in line] for line in cells(rows)]
    rules = ["---"] + ["---:"] * (len(head) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, rules, *lines))


if __name__ == "__main__":
    program.run(main)
