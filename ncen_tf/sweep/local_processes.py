"""Cells of a sweep on this machine, each in a process of its own, on its share of the cores and GPUs."""

import multiprocessing
import os
import signal
import sys
import threading
import typing
from collections.abc import Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.cell import CellDirectory, Location, run_logged
from ncen_tf.sweep.grid import GridCell

T = TypeVar("T")
Process: TypeAlias = multiprocessing.process.BaseProcess

FAILED = 2
INTERRUPTED = 130
SECONDS_BETWEEN_LOOKS = 0.2
"""How often a sweep looks whether it is to stop."""


class Share(NamedTuple):
    """Part of the machine that one process may use."""

    cores: list[int] | None
    """Logical cores, or ``None`` for all."""
    environment: dict[str, str]
    """Environment variables, such as the GPUs."""


def run_in_processes(
    cells: Sequence[tuple[GridCell, Path]], shares: list[Share], location: Location, stop: threading.Event
) -> Iterator[tuple[Path, str | None]]:
    """Run cells in their folders, one at a time on each share of the machine.

    When ``stop`` is set, no further cell starts, and the running ones are interrupted as by Ctrl-C.

    Yields:
        The folder of each cell that has ended, and why it failed, or ``None``.
    """
    context = multiprocessing.get_context("spawn")
    waiting, free = list(cells), list(shares)
    running: dict[int, tuple[Process, Path, Share]] = {}
    is_interrupted = False
    while running or (waiting and not stop.is_set()):
        while waiting and free and not stop.is_set():
            cell, folder = waiting.pop(0)
            share = free.pop(0)
            process: Process = context.Process(target=_run, args=(cell, folder, share, location))
            process.start()
            running[process.sentinel] = process, folder, share
        if stop.is_set() and not is_interrupted:
            is_interrupted = True
            for process, _, _ in running.values():
                os.kill(process.pid or 0, signal.SIGINT)
        for sentinel in connection.wait(list(running), timeout=SECONDS_BETWEEN_LOOKS):
            process, folder, share = running.pop(typing.cast(int, sentinel))
            process.join()
            free.append(share)
            if process.exitcode == 0:
                yield folder, None
            elif not is_interrupted:
                yield folder, _reason(process.exitcode, CellDirectory(folder).log)


def _run(cell: GridCell, folder: Path, share: Share, location: Location) -> None:
    """Run a cell in this process, which ends with exit code 0, 2 (it failed) or 130 (interrupted and saved).

    It stops as after Ctrl-C when the process that started it has ended.
    """
    # In a process group of its own, a terminal's Ctrl-C reaches this process only through the sweep, once.
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    if share.cores is not None:
        os.sched_setaffinity(0, share.cores)
    os.environ.update(share.environment)
    try:
        sys.exit(FAILED if run_logged(cell, folder, location) else 0)
    except KeyboardInterrupt:
        print("Interrupted; the same sweep continues here.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _stop_with_parent() -> None:
    """Wait for the end of the sweep's process, and interrupt this one: two sweeps must not train one cell."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)


def _reason(exit_code: int | None, log: Path) -> str:
    """Say why a cell failed: the signal, or the last line of its log."""
    if exit_code is not None and exit_code < 0:
        return f"ended by {signal.Signals(-exit_code).name}"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return last.removeprefix("error: ")


def divide_machine(processes: int) -> list[Share]:
    """Divide this machine's cores, and the GPUs that ``CUDA_VISIBLE_DEVICES`` lists, among processes.

    With more processes than GPUs, the processes share all GPUs and take memory as they need it.

    Raises:
        InputError: Fewer than one process, or more than cores.
    """
    cores = _usable_cores()
    if not 1 <= processes <= len(cores):
        raise InputError(
            f"`processes` must be between 1 and {len(cores)}, the number of cores, got {processes}."
        )
    if processes == 1:
        return [Share(None, {})]
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    shares = []
    for index in range(processes):
        environment = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        if len(gpus) >= processes:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(_part(gpus, index, processes))
        own = _part(cores, index, processes) if hasattr(os, "sched_setaffinity") else None
        shares.append(Share(own, environment))
    return shares


def _part(items: list[T], index: int, parts: int) -> list[T]:
    """Cut a list into parts of nearly equal length, and return one of them."""
    return items[len(items) * index // parts : len(items) * (index + 1) // parts]


def _usable_cores() -> list[int]:
    """List the logical cores that this process may use, ordered by socket and physical core."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    return sorted(os.sched_getaffinity(0), key=lambda core: (*_topology(core), core))


def _topology(core: int) -> tuple[int, int]:
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text())
    except (OSError, ValueError):
        return 0, core
