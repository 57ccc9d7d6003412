"""Programs that are started, logged, and stopped together."""

import contextlib
import math
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SECONDS_OF_ONE_STOP = 1.0
"""Signals so close together are one wish to stop: ``timeout`` signals a program, then its process group."""


class StoppedError(Exception):
    """Ctrl-C: nothing more is started."""


class Commands:
    """Runs commands, from several threads; one Ctrl-C reaches each of them exactly once.

    Args:
        held: file descriptors that stay open in every command, so that locks on them last as long.
    """

    def __init__(self, held: Sequence[int] = ()) -> None:
        self._held = tuple(held)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.RLock()  # a signal may come while the main thread passes one on
        self._last_stop = -math.inf
        self.stopped = False

    def run(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Run a command to its end, its output appended to ``log``, and return its exit code.

        Raises:
            StoppedError: Ctrl-C, before it was started or while it ran.
        """
        with log.open("ab") as stream:
            stream.write(f"$ {' '.join(command)}\n".encode())
            stream.flush()
            # In a process group of its own a terminal's Ctrl-C does not reach it beside ours, which it
            # would take for a second one and stop without saving.
            with self._lock:
                if self.stopped:
                    raise StoppedError
                process = subprocess.Popen(  # noqa: S603
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=stream,
                    env=dict(environment),
                    pass_fds=self._held,
                    process_group=0,
                )
                self._running.add(process)
            exit_code = process.wait()
            with self._lock:
                self._running.remove(process)
        if exit_code and self.stopped:
            raise StoppedError
        return exit_code

    def stop(self) -> None:
        """Start nothing more, and pass Ctrl-C on to what is running; once a second at most."""
        now = time.monotonic()
        if now - self._last_stop < SECONDS_OF_ONE_STOP:
            return
        self._last_stop = now
        with self._lock:
            self.stopped = True
            for process in self._running:
                process.send_signal(signal.SIGINT)

    @contextlib.contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM stop the commands while the block runs, in the main thread."""

        def forward(signum: int, frame: object) -> None:
            self.stop()

        previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def last_line(log: Path) -> str:
    """The last line of a log that is not empty; a progress bar's redrawings count as lines."""
    size = log.stat().st_size
    with log.open("rb") as stream:
        stream.seek(max(0, size - 10_000))
        lines = stream.read().decode(errors="replace").replace("\r", "\n").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
