"""Programs that are killed with SIGKILL at random moments and started again, beside uninterrupted ones."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import psutil

from ncen_tf.base.errors import InputError
from tests.conftest import ROOT
from tests.stress.comparison import damages, differences, unfinished

LONGEST = 1200.0
"""Seconds after which a program that nobody kills counts as hung."""
KILLS_PER_TRIAL = 6
"""Then a program may finish: kills before anything is saved would never let it end."""
WEIGHTS = {"train": 2, "export": 2, "attack": 2, "sweep": 1}
"""Shares of the kills; one start of sweep takes as long as three others."""
SUITE = Path(__file__).with_name("attack.toml")
GRID = """
dataset = "fashion_mnist_sample"
architecture = "resnet8,resnet8"
regularizer = "none"
train_examples = 40
test_examples = 20
batch_size = 9
epochs = 1
deterministic = true
export = { formats = ["onnx"] }
attack = [{ suite = "quick", examples = 20 }]
"""
COMMANDS = {
    "train": "--dataset=fashion_mnist_sample --architecture=resnet8,resnet8 --regularizer=none --epochs=2 "
    "--train_examples=40 --test_examples=20 --batch_size=9 --checkpoint_every=2 --deterministic "
    "--run_dir={0}/train/out/run",
    # A kill after the export is complete, but before the program ends, leaves a whole export.
    "export": "--run={0}/train/expected/run --out={0}/export/out/export --overwrite",
    "attack": "--target={0}/export/expected/export --dataset=fashion_mnist_sample --num_examples=20 "
    f"--suite={SUITE} --save_adversarials --out={{0}}/attack/out/report",
    "sweep": "--grid={0}/grid.toml --out={0}/sweep/out/sweep",
}
"""Flags of each program; {0} is the folder of the campaign, which has the expected output of those before."""


@dataclasses.dataclass
class Task:
    """A program in a folder of its own below the folder of a campaign, and figures about its kills."""

    program: str
    campaign: dataclasses.InitVar[Path]
    seconds: float = 0.0
    """Duration of the uninterrupted run; the moments of kills are drawn from it."""
    moments: list[float] = dataclasses.field(default_factory=list)
    """Seconds from starts to kills."""
    while_writing: int = 0
    """Kills that left a file or folder with a temporary name."""
    trials: int = 0
    faults: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self, campaign: Path) -> None:
        self._folder = campaign / self.program
        self._out, self._expected = self._folder / "out", self._folder / "expected"
        flags = COMMANDS[self.program].format(campaign).split()
        self._command = [sys.executable, "-m", f"ncen_tf.{self.program}", *flags]
        (self._folder / "tmp").mkdir(parents=True)
        (campaign / "grid.toml").write_text(GRID)

    def run_to_end(self) -> None:
        """Run the program without interruption and keep its output as the expected one."""
        print(f"{self.program}: uninterrupted run", file=sys.stderr)
        started = time.monotonic()
        process = self._start()
        try:
            if not _ends_within(process, LONGEST) or process.returncode:
                raise InputError(f"{self.program} fails without a kill: {self._last_line()}")
        finally:
            kill_session(process)
        self._out.rename(self._expected)
        self.seconds = time.monotonic() - started

    def run_with_kills(self, kills: int, seed: int) -> None:
        """Kill the program several times, over as many trials from an empty folder to its end as it takes."""
        random = Random(f"{seed} {self.program}")
        while len(self.moments) < kills and self.trials < kills + 10:
            self.trials += 1
            found = self._trial(random, min(KILLS_PER_TRIAL, kills - len(self.moments)))
            self.faults += [f"{self.program}, trial {self.trials}: {fault}" for fault in found]
            if found:
                self._out.rename(self._folder / f"trial-{self.trials}")
            shutil.rmtree(self._out, ignore_errors=True)

    def _trial(self, random: Random, kills: int) -> list[str]:
        found: list[str] = []
        process = self._start()
        try:
            for _ in range(kills):
                started = time.monotonic()
                if _ends_within(process, random.uniform(0, self.seconds)):
                    break
                # Saving takes a small part of the time: every third kill waits for it.
                if len(self.moments) % 3 == 2 and _ends_before_writing(process, self._out, random):
                    break
                kill_session(process)
                self.moments.append(time.monotonic() - started)
                self.while_writing += any(unfinished(self._out))
                found += [f"after kill {len(self.moments)}: {fault}" for fault in damages(self._out)]
                print(f"{self.program}: kill {len(self.moments)}", file=sys.stderr)
                process = self._start()
            if not _ends_within(process, LONGEST):
                return [*found, f"does not end within {LONGEST:g} seconds"]
        finally:
            kill_session(process)
        if process.returncode:
            return [*found, f"exit code {process.returncode}: {self._last_line()}"]
        return found + damages(self._out) + differences(self._expected, self._out)

    def _start(self) -> "subprocess.Popen[bytes]":
        """Start the program as the leader of a session; its output is appended to a log."""
        env = os.environ | {"TMPDIR": str(self._folder / "tmp"), "CUDA_VISIBLE_DEVICES": "-1"}
        with (self._folder / "log.txt").open("ab") as log:
            streams: Any = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            return subprocess.Popen(self._command, cwd=ROOT, env=env, start_new_session=True, **streams)

    def _last_line(self) -> str:
        return (self._folder / "log.txt").read_text(errors="replace").strip().rpartition("\n")[2]


def run_campaign(campaign: Path, kills: int, seed: int) -> list[Task]:
    """Kill all programs, each as often as its weight says; the files of faulty trials stay in the folder."""
    tasks, left, weights = [], kills, sum(WEIGHTS.values())
    for program, weight in WEIGHTS.items():
        tasks.append(Task(program, campaign))
        tasks[-1].run_to_end()
        share = round(left * weight / weights)
        tasks[-1].run_with_kills(share, seed)
        left, weights = left - share, weights - weight
    return tasks


def _ends_within(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _ends_before_writing(process: "subprocess.Popen[bytes]", out: Path, random: Random) -> bool:
    """Wait until a program ends, or until shortly after it began to write a file or folder."""
    while process.poll() is None:
        if any(unfinished(out)):
            return _ends_within(process, random.uniform(0, 0.02))
        time.sleep(0.001)
    return True


def kill_session(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL a program and all processes that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        processes = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, signal.SIGKILL)
        for each in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        psutil.wait_procs(processes, 10)
    process.wait()
