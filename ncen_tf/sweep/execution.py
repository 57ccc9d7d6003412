"""Runs what is left of a plan, several cells at a time."""

import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.commands import Commands, StoppedError, last_line
from ncen_tf.sweep.plan import PlannedCell
from ncen_tf.sweep.shares import Share


class StageFailedError(Exception):
    """A program of a cell did not do its work; the message says which and why."""


class Execution:
    """Runs cells; one that fails is noted and passed over.

    Args:
        commands: what runs programs; when it is stopped, no further cell is begun.
        location: flags that say where datasets are.
    """

    def __init__(self, commands: Commands, location: tuple[str, ...]) -> None:
        self.failures: dict[str, str] = {}
        """Why cells failed, by name."""
        self._commands = commands
        self._location = location

    def run(self, cells: Sequence[PlannedCell], shares: Sequence[Share]) -> None:
        """Run the pending stages of cells, as many cells at a time as there are shares of the machine."""
        todo = iter(list(cells))  # a list's iterator gives each cell to one thread only
        stages = sum(len(cell.pending) for cell in cells)
        with (
            _progress_bar(stages) as bar,
            ThreadPoolExecutor(len(shares)) as pool,
            self._commands.stopped_by_signals(),
        ):
            workers = [pool.submit(self._work, todo, share, bar) for share in shares]
            wait(workers)
        for worker in workers:
            worker.result()

    def _work(self, todo: Iterator[PlannedCell], share: Share, bar: "tqdm[None]") -> None:
        if share.cores is not None:
            os.sched_setaffinity(0, share.cores)  # this thread's, and so that of all that it starts
        environment = os.environ | {"PYTHONUNBUFFERED": "1"} | share.environment
        for cell in todo:
            left = len(cell.pending)
            try:
                cell.directory.begin(cell.pending)
                for stage in cell.pending:
                    bar.set_postfix_str(f"{cell.name}: {stage.name}")
                    self._run_stage(cell, stage.command(self._location), stage.name, environment)
                    left -= 1
                    bar.update()
                record = cell.directory.write_record(cell.stages)
                bar.write(f"{cell.name}: ACE {record['run']['test']['ace']:.4f}")
            except StoppedError:
                return
            except (StageFailedError, InputError, OSError) as error:
                self.failures[cell.name] = str(error)
                bar.write(f"FAILED {cell.name}: {error}")
                bar.update(left)

    def _run_stage(self, cell: PlannedCell, command: list[str], name: str, env: dict[str, str]) -> None:
        started, finished = time.monotonic(), False
        try:
            exit_code = self._commands.run(command, env, cell.directory.log)
            finished = exit_code == 0
        finally:
            cell.directory.book(name, time.monotonic() - started, finished)
        if not finished:
            how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
            raise StageFailedError(f"{name} ended with {how}: {last_line(cell.directory.log)}")


@contextlib.contextmanager
def sole_user(out: Path) -> Iterator[int]:
    """Hold a lock on a sweep's folder, and give its file descriptor.

    Programs that inherit the descriptor hold the lock too: a training that outlives a killed sweep keeps
    the next one from training into the same run.

    Raises:
        InputError: another sweep, or a program that it started, is at work there.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{out} is in use by another sweep, or by a program that one left.") from error
        yield lock.fileno()


def _progress_bar(total: int) -> "tqdm[None]":
    """A bar with an estimate from the mean time of a stage; a log file gets a line every half minute."""
    interval = 0.1 if sys.stderr.isatty() else 30
    return tqdm(
        total=total,
        unit="stage",
        smoothing=0,
        mininterval=interval,
        maxinterval=interval,
        dynamic_ncols=True,
    )
