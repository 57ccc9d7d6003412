"""Loss of a worker, seen by a real process that is killed, and by one that says farewell."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from queue import Empty, Queue

import pytest

from ncen_tf.workers.lifeline import lifelines
from tests.conftest import ROOT

OTHER = """
import socket, sys, time
from ncen_tf.workers.lifeline import lifelines
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
with lifelines({0: connection}, lambda lost: None):
    print("here", flush=True)
    sys.stdin.readline()
    if sys.argv[2] == "fail":
        raise SystemExit("failed")
"""


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def start(server: socket.socket, end: str) -> tuple[subprocess.Popen[str], socket.socket]:
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER, str(server.getsockname()[1]), end],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    connection, _ = server.accept()
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    return process, connection


def test_a_killed_worker_is_reported(server: socket.socket) -> None:
    process, connection = start(server, "succeed")
    lost: Queue[int] = Queue()
    with lifelines({3: connection}, lost.put):
        process.kill()
        assert lost.get(timeout=10) == 3
    process.communicate()


@pytest.mark.parametrize("end", ["succeed", "fail"])
def test_a_worker_that_leaves_its_block_is_not_lost(server: socket.socket, end: str) -> None:
    process, connection = start(server, end)
    lost: Queue[int] = Queue()
    with lifelines({3: connection}, lost.put):
        process.communicate("\n", timeout=60)
        with pytest.raises(Empty):
            lost.get(timeout=0.2)
