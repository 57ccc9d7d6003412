"""Kills a program at random moments, starts it again until it completes, and judges what is there."""

import dataclasses
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.commands import last_line
from tests.killing.comparison import differences
from tests.killing.intact import faults
from tests.killing.processes import LONGEST, ends_before_writing, ends_within, kill_session, start, unfinished
from tests.killing.tasks import Task

KILLS_A_TRIAL = 6
"""Then a trial is left alone: kills that come before anything is saved would never let it end."""
TRIALS_WITHOUT_KILLS = 10
"""At most: a start may end before its moment comes."""


@dataclasses.dataclass
class Tally:
    """What came of the kills of a program."""

    program: str
    seconds: float
    """That it takes undisturbed; moments are drawn up to it."""
    moments: list[float] = dataclasses.field(default_factory=list)
    """Seconds from a start to its kill."""
    kills_while_writing: int = 0
    """Those that left something half written under a temporary name."""
    trials: int = 0
    resumes: int = 0
    """Starts after a kill."""
    left_in_tmpdir: int = 0
    """Entries; libraries use it, and a killed process cannot clear up."""
    faults: list[str] = dataclasses.field(default_factory=list)

    @property
    def outcome(self) -> str:
        return "as undisturbed" if not self.faults else f"{len(self.faults)} faults"

    def as_json(self) -> dict[str, Any]:
        """The figures, rounded."""
        return dataclasses.asdict(self) | {
            "seconds": round(self.seconds, 1),
            "kills": len(self.moments),
            "moments": [round(moment, 2) for moment in self.moments],
            "outcome": self.outcome,
        }


class Campaign:
    """Trials of tasks, each from an empty folder to its completion.

    Args:
        seed: of all moments.
        killed: called after each kill.
    """

    def __init__(self, seed: int, killed: Callable[[], object]) -> None:
        self._seed = seed
        self._killed = killed

    def run_undisturbed(self, task: Task) -> float:
        """Run a task to its end and keep its output as the one to compare with; the seconds it took.

        Raises:
            InputError: it failed.
        """
        started = time.monotonic()
        process = self._start(task)
        try:
            if not ends_within(process, LONGEST) or process.returncode:
                raise InputError(f"Undisturbed, {task.program} fails: see {self._log(task)}.")
        finally:
            kill_session(process)
        task.out.rename(task.undisturbed)
        return time.monotonic() - started

    def run(self, task: Task, seconds: float, kills: int) -> Tally:
        """Kill a task ``kills`` times in all, over as many trials as that takes.

        Args:
            task: whose undisturbed output is there.
            seconds: that the undisturbed run took.
            kills: at least 1.
        """
        draw = random.Random(f"{self._seed} {task.program}")
        tally = Tally(task.program, seconds)
        while len(tally.moments) < kills and tally.trials < kills + TRIALS_WITHOUT_KILLS:
            found = self._trial(task, tally, draw, min(KILLS_A_TRIAL, kills - len(tally.moments)))
            tally.trials += 1
            if found:
                tally.faults += [f"trial {tally.trials}: {fault}" for fault in found]
                task.out.rename(task.out.with_name(f"trial-{tally.trials}"))
            shutil.rmtree(task.out, ignore_errors=True)
        tally.left_in_tmpdir = len(list(self._scratch(task).iterdir()))
        return tally

    def _trial(self, task: Task, tally: Tally, draw: random.Random, most_kills: int) -> list[str]:
        found: list[str] = []
        process = self._start(task)
        try:
            for number in range(most_kills):
                started = time.monotonic()
                if ends_within(process, draw.uniform(0, tally.seconds)):
                    if number == 0:  # the machine is less busy than it was
                        tally.seconds = time.monotonic() - started
                    break
                # Saving takes little of the time: every third kill waits for it.
                if len(tally.moments) % 3 == 2 and ends_before_writing(process, task.out, draw):
                    break
                kill_session(process)
                tally.moments.append(time.monotonic() - started)
                tally.kills_while_writing += any(unfinished(task.out))
                found += [f"after kill {len(tally.moments)}: {fault}" for fault in faults(task.out)]
                self._killed()
                process = self._start(task)
                tally.resumes += 1
            if not ends_within(process, LONGEST):
                return [*found, f"a start does not end within {LONGEST:g} seconds"]
        finally:
            kill_session(process)
        if process.returncode:
            return [*found, f"exit code {process.returncode}: {last_line(self._log(task))}"]
        return found + faults(task.out) + differences(task.undisturbed, task.out)

    def _start(self, task: Task) -> subprocess.Popen[bytes]:
        task.out.parent.mkdir(parents=True, exist_ok=True)
        self._scratch(task).mkdir(exist_ok=True)
        return start(task.command, self._log(task), self._scratch(task))

    def _log(self, task: Task) -> Path:
        return task.out.with_name("log.txt")

    def _scratch(self, task: Task) -> Path:
        return task.out.with_name("tmp")
