"""The process that reads fuzzed files: what it does wrong, and its death, harm nobody else.

Says ``ready``, takes ``{"format": NAME, "folder": PATH}``, a line each; answers each with what came of it.
The format ``seeds`` has the seeds of all formats written instead.
"""

import contextlib
import importlib
import json
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ncen_tf.base.errors import InputError

ROOM = 4 << 30
"""Bytes that may be allocated beyond what the process has; more fails, so that the machine stays usable."""
ROOT = Path(__file__).parents[2]


class Watch:
    """Collects what Python code does and no reader of files may do; there is one a process."""

    FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect")

    def __init__(self) -> None:
        self.events: list[str] = []
        self.folder = "/"
        """May be written to."""
        self._temporary = (tempfile.gettempdir(), "/dev/", f"/proc/{os.getpid()}/")
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in self.FORBIDDEN:
            self.events.append(f"{event} {arguments!r}"[:200])
        elif event == "marshal.loads" and "importlib" not in sys._getframe(1).f_code.co_filename:
            self.events.append("marshal.loads: code is made of data")
        elif event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and self._is_outside(arguments[0]):
            self.events.append(f"write {arguments[0]}")

    def _is_outside(self, path: object) -> bool:
        """Whether a path, which may also be an open file's number, must not be written to."""
        return isinstance(path, str) and not os.path.realpath(path).startswith(
            (self.folder, *self._temporary)
        )


def answer(request: dict[str, str], watch: Watch) -> dict[str, Any]:
    """Read the files of a request."""
    from tests.fuzzing.misdeeds import MISDEEDS
    from tests.fuzzing.readers.registry import READERS
    from tests.fuzzing.seeds.writing import write_seeds

    readers = {**READERS, **MISDEEDS, "seeds": write_seeds}
    watch.events, watch.folder = [], request["folder"]
    before, started = memory("VmRSS"), time.process_time()
    outcome: dict[str, Any] = {"outcome": "accepted", "message": ""}
    with limited_memory():
        try:
            readers[request["format"]](Path(request["folder"]))
        except InputError as error:
            outcome = {"outcome": "refused", "message": str(error)}
        except Exception as error:
            place = [
                frame for frame in traceback.extract_tb(error.__traceback__) if "ncen_tf" in frame.filename
            ]
            where = f"{Path(place[-1].filename).relative_to(ROOT)}:{place[-1].lineno}" if place else "?"
            outcome = {"outcome": "failed", "message": f"{type(error).__name__} at {where}: {error}"[:500]}
    seconds = time.process_time() - started
    return {**outcome, "memory": memory("VmHWM") - before, "seconds": seconds, "events": watch.events}


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let allocations beyond :data:`ROOM` fail, and start the record of the peak anew."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    Path("/proc/self/clear_refs").write_text("5")
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + ROOM, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def memory(what: str) -> int:
    """Bytes, of a line of ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    importlib.import_module("tensorflow")  # whatever the machine is busy with, no case is blamed for this
    print("ready", file=answers, flush=True)
    watch = Watch()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), watch)), file=answers, flush=True)


if __name__ == "__main__":
    main()
