"""Programs in sessions of their own, killed whole."""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

LONGEST = 1200.0
"""Seconds after which a program that nobody kills is taken to hang."""
_UNFINISHED = re.compile(r"\.\d+\..*")
_LATEST_WITHIN = 0.02


def start(command: list[str], log: Path, scratch: Path) -> subprocess.Popen[bytes]:
    """Start a program as the leader of a session, its output appended to ``log``."""
    own = {"TMPDIR": str(scratch), "CUDA_VISIBLE_DEVICES": "-1"}
    with log.open("ab") as stream:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether a program ends by itself within that time."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def ends_before_writing(process: subprocess.Popen[bytes], out: Path, draw: random.Random) -> bool:
    """Wait until a program ends, or until a moment when it is writing a file or folder below ``out``."""
    while process.poll() is None:
        if any(unfinished(out)):
            return ends_within(process, draw.uniform(0, _LATEST_WITHIN))
        time.sleep(0.001)
    return True


def unfinished(out: Path) -> Iterator[Path]:
    """Temporary files and folders, by the names that ``ncen_tf.base.files`` gives them."""
    for folder, folders, files in os.walk(out):
        for name in (*folders, *files):
            if _UNFINISHED.fullmatch(name):
                yield Path(folder, name)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a program and all that it has started, process groups of their own included."""
    while members := _session(process.pid):
        for member in members:
            try:
                os.kill(member, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.poll()
    process.wait()


def _session(leader: int) -> list[int]:
    """Processes of a session, but for those that are dead already."""
    members = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state parent group session ...; the name may hold anything
            state, _, _, session = file.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state not in "ZX":
            members.append(int(file.parent.name))
    return members
