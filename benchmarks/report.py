"""What every benchmark gives out: tables for people, the same as JSON for the page."""

import dataclasses
import importlib
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.timing import Failure, Outcome
from ncen_tf.environment import describe_environment
from ncen_tf.errors import InputError
from ncen_tf.files import write_json

PEERS = ("torch", "adversarial-robustness-toolbox", "foolbox", "torchattacks")

OUT = flags.DEFINE_string("out", None, "JSON file of the results, for benchmarks.page")
ROUNDS = flags.DEFINE_integer("rounds", 15, "times that each side is timed, in turn", lower_bound=1)

Row = dict[str, str | float | None]
"""Column -> text or number; a column that other rows have may be missing."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of measurements; the first column of each names it."""

    title: str
    rows: Sequence[Row]


def timing_rows(
    outcomes: Mapping[str, Outcome], items: float | None = None, unit: str = "images"
) -> list[Row]:
    """Median and quartiles in milliseconds of each side, and what it does a second.

    Args:
        outcomes: name -> timing.
        items: done by one call; ``None`` where there is nothing to count.
        unit: of the items.
    """
    rows: list[Row] = []
    for name, outcome in outcomes.items():
        row: Row = {"": name}
        if isinstance(outcome, Failure):
            row["failed"] = outcome.reason
        else:
            lower, median, upper = outcome.quartiles
            row |= {"median ms": 1e3 * median, "25 % ms": 1e3 * lower, "75 % ms": 1e3 * upper}
            if items is not None:
                row[f"{unit}/s"] = items / median
        rows.append(row)
    return rows


def publish(name: str, title: str, about: str, tables: Sequence[Table]) -> None:
    """Print the tables and, with ``--out``, write them with the environment.

    Args:
        name: of the program.
        title: of its section on the page.
        about: what is compared, and how.
        tables: what was measured.
    """
    content = {
        "program": name,
        "title": title,
        "about": " ".join(about.split()),
        "rounds": ROUNDS.value,
        "environment": environment(),
        "tables": [dataclasses.asdict(table) for table in tables],
    }
    print(title, content["about"], sep="\n")
    for table in tables:
        print(f"\n{table.title}")
        lines = cells(table.rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for head, *others in lines:
            numbers = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
            print("  ".join(["", head.ljust(widths[0]), *numbers]).rstrip())
    if OUT.value:
        out = Path(OUT.value)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, content)


def whole_numbers(flag: "flags.FlagHolder[list[str] | None]") -> list[int]:
    """Values of a flag that lists numbers of at least 1.

    Raises:
        InputError: other values, or none.
    """
    try:
        values = [int(text) for text in flag.value or []]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise InputError(f"--{flag.name} lists whole numbers of at least 1; got {flag.value}.")
    return values


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Text of a header line and of every row."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [columns, *([_text(row.get(column)) for column in columns] for row in rows)]


def _text(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def environment() -> dict[str, Any]:
    """What ncen_tf says of its own, the peers' versions, the processor and its memory."""
    found: dict[str, Any] = describe_environment()
    for peer in PEERS:
        try:
            found[peer] = metadata.version(peer)
        except metadata.PackageNotFoundError:
            found[peer] = "not installed"
    if found["torch"] != "not installed":
        importlib.import_module("benchmarks.peers.devices").torch_device()
        found["torch threads"] = importlib.import_module("torch").get_num_threads()
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    found["processor"] = facts.get("model name", "unknown")
    kinds = [
        kind
        for kind in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        if kind in facts.get("flags", "").split()
    ]
    found["instructions"] = ", ".join(kinds)
    found["memory GiB"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    return found
