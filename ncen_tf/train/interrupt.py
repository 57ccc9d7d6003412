"""Ctrl-C, or a scheduler's SIGTERM, that waits until the work in hand can be saved."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator


class InterruptedRunError(Exception):
    """Ctrl-C or SIGTERM: what was done is saved and can be resumed."""


SECONDS_OF_ONE_WISH = 0.1
"""Signals so close together are one: ``timeout`` signals a program, and at once its process group."""
_WAIT = b"\nStopping: the run is saved after this step. Once more stops at once, without saving.\n"


class Interrupt:
    """Whether this process was asked to stop."""

    requested = False


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Let Ctrl-C and SIGTERM wait until the run can be saved, and say so; a second one interrupts at once."""
    interrupt = Interrupt()

    def request(signum: int, frame: object) -> None:
        interrupt.requested = True
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        # Past Python's buffer, which the interrupted code may be in the middle of.
        with contextlib.suppress(OSError):
            os.write(2, _WAIT)
        time.sleep(SECONDS_OF_ONE_WISH)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        restore()
