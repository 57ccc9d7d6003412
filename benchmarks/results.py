"""Results of a benchmark: flags that all share, tables, and the JSON file for the page."""

import dataclasses
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmarks.timing import Failure, Outcome, ratio
from ncen_tf.base.environment import describe_environment, processor_flags
from ncen_tf.base.files import replacing
from ncen_tf.base.settings import Settings

PEERS = ("torch", "adversarial-robustness-toolbox", "foolbox", "torchattacks")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
Row = dict[str, str | float | None]
"""Column -> text or number; a column that other rows have may be missing."""


class BenchmarkFlags(Settings):
    """Flags of every benchmark."""

    out: Path | None = Field(None, description="JSON file of the results, for benchmarks.page")
    rounds: int = Field(15, ge=1, description="Number of times that each side is timed, in turn")
    ceiling_side: int = Field(1024, ge=1, description="Size of the matrices that measure the machine")
    ceiling_batch: int = Field(64, ge=1, description="Images in the convolutions that measure the machine")


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of measurements; the first column of each names it."""

    title: str
    rows: Sequence[Row]


def timing_rows(
    outcomes: Mapping[str, Outcome], items: float | None = None, relative_to: str | None = None
) -> list[Row]:
    """Make a row for each side: median and quartiles in milliseconds, images per second.

    Args:
        outcomes: Timings by name.
        items: Number of images that one call processes; ``None`` where there is nothing to count.
        relative_to: Name of the side by whose median the others are divided.
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
                row["images/s"] = items / median
        if relative_to:
            row[f"/ {relative_to}"] = ratio(outcome, outcomes[relative_to])
        rows.append(row)
    return rows


def as_text(rows: Sequence[Row]) -> list[list[str]]:
    """Write a header line and every row as cells of text."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]


def _cell(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def publish(name: str, title: str, about: str, tables: Sequence[Table], flags: BenchmarkFlags) -> None:
    """Print the tables and, with the flag ``out``, write them with a description of the environment.

    Args:
        name: Name of the program.
        title: Title of its section on the page.
        about: What is compared, and how.
        tables: Measurements.
        flags: Flags of the program.
    """
    content = {
        "program": name,
        "title": title,
        "about": " ".join(about.split()),
        "rounds": flags.rounds,
        "environment": environment(),
        "tables": [dataclasses.asdict(table) for table in tables],
    }
    print(title, content["about"], sep="\n")
    for table in tables:
        print(f"\n{table.title}")
        lines = as_text(table.rows)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for head, *others in lines:
            numbers = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
            print("  ".join(["", head.ljust(widths[0]), *numbers]).rstrip())
    if flags.out:
        flags.out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(flags.out) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Describe versions, processor and memory."""
    found: dict[str, Any] = describe_environment()
    for peer in PEERS:
        try:
            found[peer] = metadata.version(peer)
        except metadata.PackageNotFoundError:
            found[peer] = "not installed"
    if found["torch"] != "not installed":
        importlib.import_module("benchmarks.peers.torch_resnet").torch_device()
        found["torch threads"] = importlib.import_module("torch").get_num_threads()
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    found["processor"] = facts.get("model name", "unknown")
    found["instructions"] = ", ".join(name for name in INSTRUCTIONS if name in processor_flags())
    found["TF_ENABLE_ONEDNN_OPTS"] = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "not set")
    found["memory GiB"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    return found
