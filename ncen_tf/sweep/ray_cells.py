"""Cells of a sweep as tasks on a Ray cluster."""

import os
import tempfile
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import filelock
import ray

from ncen_tf.base.files import replacing
from ncen_tf.base.ray_cluster import environment, read_files, require_room, write_files
from ncen_tf.sweep.cell import CellDirectory, Location, run_logged
from ncen_tf.sweep.grid import GridCell
from ncen_tf.sweep.local_processes import SECONDS_BETWEEN_LOOKS

RETRIES = 3
"""How often a cell is run again whose worker or node is lost: it may be the cell that ends its worker."""
SECONDS_TO_SAVE = 120
"""Time for interrupted cells to save."""


class _Storage(NamedTuple):
    """The folder that the sweep was started in, and a file by which a worker can tell that it sees it."""

    folder: Path
    file: Path
    token: str

    def is_here(self) -> bool:
        try:
            return self.file.read_text() == self.token
        except OSError:
            return False


Ended = tuple[str | None, dict[str, bytes]]
"""Why a cell has failed or ``None``, and the files of its folder, if the worker does not see the sweep's."""


def run_on_ray(
    cells: Sequence[tuple[GridCell, Path]],
    cpus: float,
    gpus: float,
    location: Location,
    stop: threading.Event,
) -> Iterator[tuple[Path, str | None]]:
    """Run cells as tasks on the Ray cluster that this process is connected to, each in a new process.

    A worker that sees the sweep's folder works there: if it is lost, or the sweep interrupted, the cell goes
    on from its last checkpoint. Any other worker gets a copy of the folder, and sends the files back at
    the end; if it is lost, its cell starts from that copy again.

    ``cpus`` and ``gpus`` are those of each cell; ``stop`` and what is yielded are those of
    :func:`~ncen_tf.sweep.local_processes.run_in_processes`.

    Raises:
        InputError: The cluster has no room for a cell.
    """
    if not cells:
        return
    require_room(cpus, gpus)
    file = cells[0][1].parents[1] / ".ray"
    storage = _Storage(Path.cwd(), file.absolute(), uuid.uuid4().hex)
    file.write_text(storage.token)
    task = ray.remote(
        num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, max_calls=1, runtime_env=environment(cpus)
    )(_run_here)
    pending = {
        task.remote(cell, folder, _files(folder), _suites(cell), location, storage): folder
        for cell, folder in cells
    }
    try:
        while pending and not stop.is_set():
            ended, _ = ray.wait(list(pending), timeout=SECONDS_BETWEEN_LOOKS)
            for reference in ended:
                yield _receive(reference, pending.pop(reference))
    finally:
        for reference in pending:
            ray.cancel(reference)
        if pending:
            ray.wait(list(pending), num_returns=len(pending), timeout=SECONDS_TO_SAVE)


def _receive(reference: "ray.ObjectRef[Ended]", folder: Path) -> tuple[Path, str | None]:
    """Take what a worker sends: the files of a cell, its record last."""
    try:
        reason, files = ray.get(reference)
    except ray.exceptions.RayError as error:
        return folder, f"its worker ended {RETRIES + 1} times: {' '.join(str(error).split())[-300:]}"
    record = CellDirectory(folder).record
    content = files.pop(record.name, None)
    write_files(folder, files)
    if content is not None:
        with replacing(record) as temporary:
            temporary.write_bytes(content)
    return folder, reason


def _run_here(
    cell: GridCell,
    folder: Path,
    files: dict[str, bytes],
    suites: dict[str, bytes],
    location: Location,
    storage: _Storage,
) -> Ended:
    """Run a cell in this process, a worker's, which ends afterwards."""
    if storage.is_here():
        os.chdir(storage.folder)
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock", timeout=SECONDS_TO_SAVE):  # a lost worker may be ending
            return run_logged(cell, folder, location), {}
    with tempfile.TemporaryDirectory(prefix="ncen_tf-cell-") as copy:
        os.chdir(copy)
        write_files(Path(), suites)
        here = Path(folder.name)
        write_files(here, files)
        return run_logged(cell, here, location), _files(here)


def _files(folder: Path) -> dict[str, bytes]:
    """Read all files of a cell's folder but hidden ones, which are locks and temporary files."""
    return read_files(folder, [file for file in folder.rglob("*") if not file.name.startswith(".")])


def _suites(cell: GridCell) -> dict[str, bytes]:
    """Read the suite files that a cell names by paths below the current folder."""
    paths = [Path(attack.suite) for attack in cell.attacks if attack.suite_sha256]
    return read_files(Path(), [path for path in paths if not (path.is_absolute() or ".." in path.parts)])
