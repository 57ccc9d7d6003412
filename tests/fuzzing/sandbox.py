"""Shows fuzzed files to a worker process and judges what came of it."""

import contextlib
import ctypes
import dataclasses
import json
import os
import select
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzzing.case import OUTSIDE, SECRET, Case, Files, read_files

ROOT = Path(__file__).parents[2]
MOST_MEMORY = 2 << 30
MOST_SECONDS = 60.0

_CREATE, _OPEN, _READ, _MODIFY, _DELETE, _MOVED, _FOLDER = 0x100, 0x20, 0x1, 0x2, 0x200, 0xC0, 1 << 30
_EVENT = struct.Struct("iIII")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a reader made of a case."""

    outcome: str
    """``accepted``, ``refused``, ``failed``, ``died`` or ``too slow``."""
    message: str
    memory: int
    """Bytes by which resident memory grew at most."""
    seconds: float
    """Of processor time."""
    faults: tuple[str, ...]
    """What is wrong with it; empty if nothing is."""


class Sandbox:
    """A folder for cases, its surroundings under watch, and a worker that is started again when it dies."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._case, self._temporary = self._root / "case", self._root / "temporary"
        self._log = self._temporary / "worker.log"
        self._surroundings = [self._root / OUTSIDE, self._root / "cwd"]
        for folder in (*self._surroundings, self._temporary):
            folder.mkdir(parents=True)
        for folder in self._surroundings:
            (folder / SECRET).write_bytes(bytes(4096))
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @property
    def secret(self) -> Path:
        """A file that no case may make anyone read or write."""
        return self._root / OUTSIDE / SECRET

    def seeds(self) -> dict[str, Files]:
        """Files of every format that its reader accepts."""
        self.show("seeds", Case({}))
        return {folder.name: read_files(folder) for folder in sorted(self._case.iterdir())}

    def show(self, name: str, case: Case) -> Outcome:
        """Let the reader of a format read a case.

        Args:
            name: a key of ``tests.fuzzing.readers.registry.READERS``.
            case: what it reads.
        """
        process = self._process or self._start()
        shutil.rmtree(self._case, ignore_errors=True)
        case.write(self._case)
        with _watched(self._root, self._surroundings) as touched:
            assert process.stdin is not None
            process.stdin.write(json.dumps({"format": name, "folder": str(self._case)}) + "\n")
            process.stdin.flush()
            answer = self._answer(process)
            faults = [f"touched {path}" for path in touched()]
        faults += answer.pop("events", [])
        outcome = Outcome(**answer, faults=())
        return dataclasses.replace(outcome, faults=(*faults, *_faults(outcome, case)))

    def _answer(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], MOST_SECONDS)
        line = process.stdout.readline() if ready else ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        outcome = "died" if ready else "too slow"
        self._stop()
        log = self._log.read_text(errors="replace").splitlines()
        fatal = [line for line in log if "Check failed" in line] or log[-3:]
        message = f"exit code {process.returncode}: {' | '.join(fatal)[-500:]}"
        return {"outcome": outcome, "message": message, "memory": 0, "seconds": 0.0}

    def _start(self) -> "subprocess.Popen[str]":
        environment = {
            **os.environ,
            "TMPDIR": str(self._temporary),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.fuzzing.worker"],
                cwd=self._root / "cwd",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError(f"The worker does not start: {self._log.read_text()[-1000:]}")
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None


def _faults(outcome: Outcome, case: Case) -> Iterator[str]:
    if outcome.outcome in ("failed", "died", "too slow"):
        yield f"{outcome.outcome}: {outcome.message}"
    if outcome.outcome == "accepted" and case.must_be_refused:
        yield "accepted what must be refused"
    if outcome.outcome == "refused" and not (outcome.message and outcome.message.isprintable()):
        yield f"refused, but not in one printable line: {outcome.message!r}"
    if outcome.memory > MOST_MEMORY:
        yield f"took {outcome.memory / 2**30:.1f} GiB"


@contextlib.contextmanager
def _watched(root: Path, surroundings: list[Path]) -> Iterator[Any]:
    """Give a function that tells what was touched meanwhile, by native code too: Linux's inotify."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    try:
        names = {}
        changed = _CREATE | _MODIFY | _DELETE | _MOVED
        for folder, mask in ((root, changed), *((s, changed | _OPEN | _READ) for s in surroundings)):
            names[libc.inotify_add_watch(descriptor, os.fsencode(folder), mask)] = folder

        def touched() -> list[str]:
            found: dict[str, None] = {}
            with contextlib.suppress(BlockingIOError):
                while events := os.read(descriptor, 65536):
                    while events:
                        watch, mask, _, length = _EVENT.unpack_from(events)
                        name = (
                            events[_EVENT.size : _EVENT.size + length].rstrip(b"\0").decode(errors="replace")
                        )
                        if not mask & _FOLDER:
                            found[f"{names[watch].name if watch in names else '?'}/{name}"] = None
                        events = events[_EVENT.size + length :]
            return list(found)

        yield touched
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def temporary_sandbox() -> Iterator[Sandbox]:
    """A sandbox in a folder that is removed afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="fuzzing-") as folder,
        Sandbox(Path(folder) / "sandbox") as sandbox,
    ):
        yield sandbox
