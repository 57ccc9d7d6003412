"""Programs that a sweep starts: one Ctrl-C each, locks that they hold on to, their own cores."""

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.commands import Commands, StoppedError, last_line
from ncen_tf.sweep.execution import sole_user
from ncen_tf.sweep.shares import make_shares, part, usable_cores

COUNTS_INTERRUPTS = """
import os, signal, sys, time
count = 0
def note(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, note)
print("own group", os.getpgrp() == os.getpid(), flush=True)
until = time.monotonic() + 60
while not count and time.monotonic() < until:
    time.sleep(0.05)
time.sleep(0.3)
print("interrupts", count)
sys.exit(130)
"""


def wait_for(log: Path, text: str) -> None:
    until = time.monotonic() + 60
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_stopping_interrupts_each_program_once_and_starts_no_more(tmp_path: Path) -> None:
    commands, log, outcome = Commands(), tmp_path / "log.txt", list[type[Exception]]()

    def work() -> None:
        try:
            commands.run([sys.executable, "-c", COUNTS_INTERRUPTS], os.environ, log)
        except StoppedError:
            outcome.append(StoppedError)

    thread = threading.Thread(target=work)
    thread.start()
    wait_for(log, "own group True\n")  # not reached by a terminal's Ctrl-C, so it gets ours alone
    with commands.stopped_by_signals():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):  # as timeout, twice
            os.kill(os.getpid(), number)
        thread.join()
    assert outcome == [StoppedError]
    assert last_line(log) == "interrupts 1"
    with pytest.raises(StoppedError):
        commands.run([sys.executable, "-c", "print('never')"], os.environ, log)
    assert "\nnever" not in log.read_text()


def test_output_of_all_commands_is_in_the_log_with_their_exit_codes(tmp_path: Path) -> None:
    commands, log = Commands(), tmp_path / "log.txt"
    program = (
        "import sys; print(sys.argv[1]); print('\\r 10%\\r 20%', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    )
    codes = [commands.run([sys.executable, "-c", program, code], os.environ, log) for code in ("0", "7")]
    assert codes == [0, 7]
    assert [line for line in log.read_text().splitlines() if line in ("0", "7")] == ["0", "7"]
    assert last_line(log) == "20%"


def test_a_folder_is_locked_while_a_program_of_the_sweep_lives(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with sole_user(tmp_path) as lock:
        commands = Commands(held=[lock])
        program = [sys.executable, "-c", COUNTS_INTERRUPTS]

        def work() -> None:
            with contextlib.suppress(StoppedError):
                commands.run(program, os.environ, log)

        thread = threading.Thread(target=work)
        thread.start()
        wait_for(log, "own group")
        with pytest.raises(InputError, match="in use by another sweep"), sole_user(tmp_path):
            pass
    with pytest.raises(InputError, match="in use by another sweep"), sole_user(tmp_path):
        pass  # the sweep is gone, its program is not
    commands.stop()
    thread.join()
    with sole_user(tmp_path):
        pass


@pytest.mark.parametrize(("count", "parts"), [(16, 4), (7, 3), (2, 2), (5, 1)])
def test_parts_cover_everything_once_and_evenly(count: int, parts: int) -> None:
    items = list(range(count))
    cut = [part(items, index, parts) for index in range(parts)]
    assert [item for piece in cut for item in piece] == items
    assert {len(piece) for piece in cut} <= {count // parts, -(-count // parts)}


def test_shares_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = set(usable_cores())
    assert cores == os.sched_getaffinity(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(f"GPU-{core}" for core in cores))
    shares = make_shares(len(cores))
    if len(cores) > 1:
        assert set().union(*(share.cores or () for share in shares)) == cores
        assert {share.environment["CUDA_VISIBLE_DEVICES"] for share in shares} == {f"GPU-{c}" for c in cores}
    assert make_shares(1)[0].cores is None
    for processes in (0, len(cores) + 1):
        with pytest.raises(InputError, match="--processes is 1 to"):
            make_shares(processes)
