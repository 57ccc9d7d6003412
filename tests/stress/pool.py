"""Cases, each read in a forked process of its own, and the rules for what may happen there."""

import importlib
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from ncen_tf.base.errors import InputError
from tests.conftest import ROOT
from tests.stress.mutations import mutate

MOST_MEMORY, ADDRESS_SPACE = 2 << 30, 8 << 30
"""Bytes by which a case may grow, and bytes that its process can allocate, libraries included."""
MOST_SECONDS, LONGEST = 60, 600
"""Processor time, and wall-clock time for a process that waits."""
FORBIDDEN = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "socket.connect")
"""Audit events of CPython."""


class Case(NamedTuple):
    """The files of a kind with one of them damaged, or hostile files that were made by hand."""

    kind: str
    """A key of `kinds.KINDS`, or `module:function` of a reader."""
    number: int = 0
    """Chooses the damage; 0 leaves the files as they are."""
    hostile: str = ""
    """Name of the hostile files, which must be refused."""
    seed: int = 0

    def write(self, seeds: Path, folder: Path) -> None:
        """Write the files into a folder; `kinds.write_seeds` made `seeds`."""
        source = Path("hostile", self.kind, self.hostile) if self.hostile else self.kind
        shutil.copytree(seeds / source, folder, dirs_exist_ok=True)
        if self.number and not self.hostile:
            random = Random(f"{self.seed} {self.kind} {self.number}")
            file = random.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
            if random.randrange(25) == 0 and self.kind != "archive":  # it would be downloaded
                file.unlink()
            else:
                file.write_bytes(mutate(random, file.name, file.read_bytes()))


class Outcome(NamedTuple):
    """The result of a case."""

    status: str
    """`accepted`, `refused`, `failed`, `died` or `hung`."""
    message: str = ""
    memory: int = 0
    """Growth of resident memory in bytes, at its peak."""
    events: tuple[str, ...] = ()
    """Forbidden actions, such as starting a process."""

    def faults(self, case: Case) -> list[str]:
        """List what is wrong with the result; empty if nothing is."""
        found = list(self.events)
        if self.status in ("failed", "died", "hung"):
            found.append(f"{self.status}: {self.message}")
        if self.status == "accepted" and case.hostile:
            found.append(f"hostile file accepted: {case.hostile}")
        if self.status == "refused" and not (self.message and self.message.isprintable()):
            found.append(f"refused, but not in one printable line: {self.message!r}")
        if self.memory > MOST_MEMORY:
            found.append(f"took {self.memory / 2**30:.1f} GiB")
        return found


def run_cases(cases: Iterable[Case], seeds: Path, longest: float = LONGEST) -> Iterator[tuple[Case, Outcome]]:
    """Read each case in a process of its own, one per core at a time, for `longest` seconds at most."""
    # The processes are forked from a server that has imported everything and started no thread.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.stress.kinds"])

    def run(case: Case) -> tuple[Case, Outcome]:
        with tempfile.TemporaryDirectory(prefix="stress-") as folder:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_read_case, args=(case, seeds, Path(folder), theirs))
            process.start()
            theirs.close()
            try:
                if not ours.poll(longest):
                    return case, Outcome("hung", f"no result after {longest:g} s")
                return case, Outcome(*ours.recv())
            except EOFError:
                process.join()
                lines = Path(folder, "log.txt").read_text(errors="replace").splitlines()
                return case, Outcome("died", f"exit code {process.exitcode}: {' | '.join(lines[-3:])[-500:]}")
            finally:
                process.kill()
                process.join()
                ours.close()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(run, cases)


def _read_case(case: Case, seeds: Path, folder: Path, connection: Connection) -> None:
    module, _, function = case.kind.partition(":")
    kinds: Any = importlib.import_module(module if function else "tests.stress.kinds")
    reader = getattr(kinds, function) if function else kinds.KINDS[case.kind].reader
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    case.write(seeds, folder / "case")
    for name in ("tmp", "outside"):
        (folder / name).mkdir()
    (folder / "outside" / "secret.bin").write_bytes(bytes(4096))
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")
    os.chdir(folder / "outside")
    events: list[str] = []
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_SECONDS, MOST_SECONDS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, message = "accepted", ""
    _watch_python(folder, events)
    try:
        reader(folder / "case")
    except InputError as error:
        status, message = "refused", str(error)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if str(ROOT) in f.filename]
        status, message = "failed", f"{type(error).__name__} at {places[-1]}: {error}"[:500]
    for file in Path(folder, "outside").iterdir():  # what native code did there
        if file.name != "secret.bin" or file.read_bytes() != bytes(4096):
            events.append(f"wrote {file.name}")
    growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    connection.send((status, message, growth, tuple(dict.fromkeys(events))))
    connection.close()
    os._exit(0)  # no time for destructors


def _watch_python(folder: Path, events: list[str]) -> None:
    """Record what Python code does and no reader may do."""
    writable = (*(f"{folder}/{name}" for name in ("case", "tmp", "log.txt")), "/dev/", "/proc/")

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            events.append(f"{event} {arguments!r}"[:200])
        elif event == "marshal.loads" and "importlib" not in sys._getframe(1).f_code.co_filename:
            events.append("marshal.loads: code is made of data")
        elif event == "open" and isinstance(arguments[0], str) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            path = os.path.realpath(arguments[0])
            events.extend([] if path.startswith(writable) else [f"write {path}"])

    sys.addaudithook(hook)
