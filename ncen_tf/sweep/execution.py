"""A sweep: the cells of a grid in a folder, run on this machine or on a Ray cluster."""

import collections
import contextlib
import itertools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import filelock
from tqdm import tqdm

from ncen_tf.base.environment import signal_handlers
from ncen_tf.base.errors import InputError
from ncen_tf.base.ray_cluster import connected
from ncen_tf.sweep.cell import CellDirectory
from ncen_tf.sweep.grid import SEPARATOR, read_grid
from ncen_tf.sweep.local_processes import divide_machine, run_in_processes
from ncen_tf.sweep.records import CellRecord, format_records


class Sweep:
    """A grid of training runs in a folder.

    Args:
        grid: Grid file, see ``ncen_tf.read_grid``.
        out: Folder of the sweep. Cells that are finished there are kept, and started ones continue.
        data_dir: Folder of tensorflow-datasets.
        archive_dir: Folder with the archives of datasets.

    Raises:
        InputError: The grid cannot be used, or the folder holds something else.

    Examples:
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
        self._stop = threading.Event()
        self._location = {"data_dir": data_dir, "archive_dir": archive_dir}
        self._folders = self._find_folders()

    def describe(self) -> str:
        """List the cells, and how far each of them is."""
        progress = self._progress()
        counts = collections.Counter(progress.values())
        summary = ", ".join(f"{counts[state]} {state}" for state in ("finished", "started", "new"))
        return "\n".join(
            [*(f"{name}: {state}" for name, state in progress.items()), f"{len(progress)} cells: {summary}."]
        )

    def run(
        self, processes: int = 1, *, ray: str | None = None, ray_cpus: float = 1, ray_gpus: float = 0
    ) -> list[CellRecord]:
        """Run the cells that are not finished. A cell that fails is noted, and the others continue.

        Ctrl-C interrupts the running cells, which save; ``interrupted`` is then true.

        Args:
            processes: Number of cells at a time on this machine, each on its own share of the cores.
            ray: Address of a Ray cluster whose workers run the cells instead: ``auto``, ``HOST:PORT``, or
                ``local`` to start one on this machine. Workers that do not see the sweep's folder send a
                cell's files back when it has ended.
            ray_cpus: Number of CPUs of each cell on a Ray cluster, > 0.
            ray_gpus: Number of GPUs of each cell on a Ray cluster, >= 0.

        Returns:
            Records of all finished cells.

        Raises:
            InputError: Too many processes, no cluster or no room on it, or another sweep runs in the folder.
        """
        shares = divide_machine(processes)
        self.out.mkdir(parents=True, exist_ok=True)
        progress = self._progress()
        pairs = zip(self.cells, self._folders, strict=True)
        todo = [(cell, folder) for cell, folder in pairs if progress[folder.name] != "finished"]
        lock = filelock.FileLock(self.out / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(f"{self.out} is in use by another sweep.") from None
        # Ray sets signal handlers when it connects.
        with lock, connected(ray) if ray else contextlib.nullcontext(), signal_handlers(self.interrupt):
            if ray:
                from ncen_tf.sweep.ray_cells import run_on_ray  # Ray is optional

                ended = run_on_ray(todo, ray_cpus, ray_gpus, self._location, self._stop)
            else:
                ended = run_in_processes(todo, shares, self._location, self._stop)
            self._note(len(todo), ended)
        files = [CellDirectory(folder).record for folder in self._folders]
        return [CellRecord.read(file) for file in files if file.is_file()]

    def interrupt(self, *_: object) -> None:
        """Start no further cell, and interrupt the running ones as Ctrl-C does."""
        self._stop.set()

    @property
    def interrupted(self) -> bool:
        """Whether the sweep was asked to stop."""
        return self._stop.is_set()

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

    def _note(self, cells: int, ended: Iterator[tuple[Path, str | None]]) -> None:
        """Show the cells as they end, and keep the reasons of those that failed."""
        interval = 0.1 if sys.stderr.isatty() else 30
        with tqdm(total=cells, unit="cell", mininterval=interval, dynamic_ncols=True) as bar:
            for folder, reason in ended:
                if reason is None:
                    bar.write(f"{folder.name}: finished")
                else:
                    self.failures[folder.name] = reason
                    bar.write(f"FAILED {folder.name}: {reason}")
                bar.update()
