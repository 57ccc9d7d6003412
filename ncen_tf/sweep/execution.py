"""Runs the cells of a grid, several at a time, each in a process of its own."""

import collections
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from pathlib import Path
from typing import TypeVar

import filelock
from tqdm import tqdm

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.cell_process import LOG, CellDirectory, Location, Share, run_in_process
from ncen_tf.sweep.grid import SEPARATOR, GridCell, read_grid
from ncen_tf.sweep.records import CellRecord, format_records

T = TypeVar("T")


class Sweep:
    """A grid of training runs in a folder.

    Args:
        grid: Grid file, see :func:`ncen_tf.read_grid`.
        out: Folder of the sweep. Cells that are finished there are kept, and started ones continue.
        data_dir: Folder of tensorflow-datasets.
        archive_dir: Folder with the archives of datasets.

    Raises:
        InputError: The grid cannot be used, or the folder holds something else.

    Example:
        >>> import ncen_tf
        >>> sweep = ncen_tf.Sweep("configs/grids/smoke.toml", "sweeps/example")
        >>> print(sweep.describe())
        regularizer=none: new
        regularizer=nce: new
        2 cells: 0 finished, 0 started, 2 new.
    """

    def __init__(
        self,
        grid: str | Path,
        out: str | Path,
        *,
        data_dir: str | Path | None = None,
        archive_dir: str | Path | None = None,
    ) -> None:
        self.out = Path(out)
        self.cells = read_grid(grid)
        self.failures: dict[str, str] = {}
        """Reasons why cells failed, by the name of their folder."""
        self.interrupted = False
        self._running: set[multiprocessing.process.BaseProcess] = set()
        self._lock = threading.RLock()  # A signal may come while the main thread holds it.
        self._location: Location = {"data_dir": data_dir, "archive_dir": archive_dir}
        self._folders = self._find_folders()

    def describe(self) -> str:
        """List the cells, and how far each of them is."""
        progress = self._progress()
        counts = collections.Counter(progress.values())
        summary = ", ".join(f"{counts[state]} {state}" for state in ("finished", "started", "new"))
        return "\n".join(
            [*(f"{name}: {state}" for name, state in progress.items()), f"{len(progress)} cells: {summary}."]
        )

    def run(self, processes: int = 1) -> list[CellRecord]:
        """Run the cells that are not finished. A cell that fails is noted, and the others continue.

        Ctrl-C interrupts the running cells, which save; :attr:`interrupted` is then true.

        Args:
            processes: Number of cells at a time, each on its own share of the cores.

        Returns:
            Records of all finished cells.

        Raises:
            InputError: Too many processes, or another sweep runs in the folder.
        """
        shares = divide_machine(processes)
        self.out.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.out / ".lock")
        try:
            with lock.acquire(timeout=0):
                self._run_all(shares)
        except filelock.Timeout:
            raise InputError(f"{self.out} is in use by another sweep.") from None
        files = [CellDirectory(folder).record for folder in self._folders]
        return [CellRecord.read(file) for file in files if file.is_file()]

    def summary(self, records: list[CellRecord]) -> str:
        """Write the results of cells, and the failures, as text."""
        failures = [f"FAILED {name}: {reason}" for name, reason in self.failures.items()]
        return "\n".join([format_records(records), *failures])

    def _find_folders(self) -> list[Path]:
        """Find each cell's folder: the one that trains the same already, or a new one."""
        existing = sorted((self.out / "cells").glob("*/"))
        states = {folder: CellDirectory(folder).state() for folder in existing}
        held = {folder: state.cell for folder, state in states.items() if state}
        folders = []
        for cell in self.cells:
            same = next((folder for folder, other in held.items() if other.trains_the_same(cell)), None)
            names = (f"{cell.name}{SEPARATOR}{n}" if n > 1 else cell.name for n in itertools.count(1))
            # A cell of an earlier version of the grid may have the name.
            free = (self.out / "cells" / name for name in names if self.out / "cells" / name not in held)
            folder = same or next(free)
            held[folder] = cell
            folders.append(folder)
        return folders

    def _progress(self) -> dict[str, str]:
        pairs = zip(self.cells, self._folders, strict=True)
        return {folder.name: CellDirectory(folder).progress(cell) for cell, folder in pairs}

    def interrupt(self) -> None:
        """Start no further cell, and interrupt the running ones as Ctrl-C does."""
        with self._lock:
            if not self.interrupted:
                self.interrupted = True
                for process in self._running:
                    os.kill(process.pid or 0, signal.SIGINT)

    def _run_all(self, shares: list[Share]) -> None:
        progress = self._progress()
        pairs = zip(self.cells, self._folders, strict=True)
        todo = [(cell, folder) for cell, folder in pairs if progress[folder.name] != "finished"]
        interval = 0.1 if sys.stderr.isatty() else 30
        bar = tqdm(total=len(todo), unit="cell", mininterval=interval, dynamic_ncols=True)
        queue = iter(todo)  # The threads share one iterator, so that each cell is run once.
        with self._interrupted_by_signals(), bar, ThreadPoolExecutor(len(shares)) as pool:
            for worker in [pool.submit(self._work, queue, share, bar) for share in shares]:
                worker.result()

    def _work(self, queue: Iterator[tuple[GridCell, Path]], share: Share, bar: "tqdm[None]") -> None:
        """Run cells one after another, each in a new process, until there are no more."""
        # Processes inherit the blocked signal, and unblock it when they have left the terminal's group.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        context = multiprocessing.get_context("spawn")
        for cell, folder in queue:
            process = context.Process(target=run_in_process, args=(cell, folder, share, self._location))
            with self._lock:
                if self.interrupted:
                    return
                process.start()
                self._running.add(process)
            bar.set_postfix_str(folder.name)
            connection.wait([process.sentinel])
            with self._lock:  # multiprocessing collects exit codes whenever a process starts or is joined.
                process.join()
                self._running.remove(process)
            if process.exitcode == 0:
                bar.write(f"{folder.name}: finished")
            elif not self.interrupted:
                self.failures[folder.name] = _reason(process.exitcode, folder / LOG)
                bar.write(f"FAILED {folder.name}: {self.failures[folder.name]}")
            bar.update()

    @contextlib.contextmanager
    def _interrupted_by_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM interrupt the sweep, if this is the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, lambda *_: self.interrupt()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


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
        return [Share()]
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    shares = []
    for index in range(processes):
        environment = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        if len(gpus) >= processes:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(_part(gpus, index, processes))
        own = tuple(_part(cores, index, processes)) if hasattr(os, "sched_setaffinity") else None
        shares.append(Share(cores=own, environment=environment))
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
