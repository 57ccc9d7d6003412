"""Ctrl-C that waits until the work in hand can be saved."""

import contextlib
import signal
from collections.abc import Iterator


class InterruptedRunError(Exception):
    """Ctrl-C: what was done is saved and can be resumed."""


class Interrupt:
    """Whether Ctrl-C was pressed."""

    requested = False


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Let Ctrl-C wait for the end of the step; a second one interrupts at once."""
    interrupt = Interrupt()

    def request(signum: int, frame: object) -> None:
        interrupt.requested = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, request)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, previous)
