"""What every benchmark gives out: tables for people, the same as JSON for the page."""

import dataclasses
import importlib
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.table import Table, cells
from ncen_tf.base.environment import describe_environment
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import write_json

PEERS = ("torch", "adversarial-robustness-toolbox", "foolbox", "torchattacks")

OUT = flags.DEFINE_string("out", None, "JSON file of the results, for benchmarks.page")
ROUNDS = flags.DEFINE_integer("rounds", 15, "times that each side is timed, in turn", lower_bound=1)


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
