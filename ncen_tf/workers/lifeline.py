"""Tells at once when another worker is killed.

TensorFlow notices too, but only in its next exchange with that worker, and then it can take half a minute
until its error arrives. The kernel closes a killed process's connections at once.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping

FAREWELL = b"."


@contextlib.contextmanager
def lifelines(connections: Mapping[int, socket.socket], on_loss: Callable[[int], None]) -> Iterator[None]:
    """Watch connections to other workers for the duration of the block.

    A worker that leaves its block, whether it succeeded or not, says farewell and is not lost.

    Args:
        connections: by the worker's index; closed in the end.
        on_loss: called in a thread of its own, with the index of a worker that went without a farewell.
    """
    ended = threading.Event()

    def watch(index: int, connection: socket.socket) -> None:
        farewell = b""
        with contextlib.suppress(OSError):
            farewell = connection.recv(len(FAREWELL))
        if not (farewell or ended.is_set()):
            on_loss(index)

    for index, connection in connections.items():
        threading.Thread(target=watch, args=(index, connection), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        for connection in connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(FAREWELL)
                connection.close()
