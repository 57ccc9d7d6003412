"""Signals that wait for the end of a step."""

import os
import signal
import subprocess
import sys

import pytest

from ncen_tf.train.interrupt import deferred_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_interrupts(number: signal.Signals) -> None:
    class SecondError(Exception):
        pass

    def second(signum: int, frame: object) -> None:
        raise SecondError

    before = signal.signal(number, second)
    try:
        with deferred_interrupt() as interrupt:
            assert not interrupt.requested
            # As timeout does.
            twice = f"import os, time\nfor _ in 'ab': os.kill({os.getpid()}, {number:d}); time.sleep(0.01)"
            subprocess.run([sys.executable, "-c", twice], check=True)
            assert interrupt.requested
            with pytest.raises(SecondError):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is second
    finally:
        signal.signal(number, before)
