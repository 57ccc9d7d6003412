"""Messages over a TCP connection: eight bytes that say how long it is, then the message."""

import socket


def send(connection: socket.socket, content: bytes) -> None:
    """Send one message."""
    connection.sendall(len(content).to_bytes(8) + content)


def receive(connection: socket.socket, longest: int) -> bytes:
    """Wait for one message.

    Raises:
        EOFError: the other side has gone, or sends what cannot be a message of ``longest`` bytes at most.
        OSError: the connection is broken, or the time it was given is over.
    """
    size = int.from_bytes(_receive_exactly(connection, 8))
    if size > longest:
        raise EOFError
    return _receive_exactly(connection, size)


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(min(size - len(received), 1 << 20))
        if not part:
            raise EOFError
        received += part
    return bytes(received)
