"""Before TensorFlow connects the workers: all are there, want the same, and know how far the run is.

TensorFlow waits for a missing worker without end and without listening to Ctrl-C. So the workers first
meet here, on the chief's address: each says what it was asked to do, and the chief sends each the run's
state, as only the chief needs to reach the run directory. The connections are then kept as lifelines.
"""

import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.workers.cluster import Cluster
from ncen_tf.workers.messages import receive, send

logger = logging.getLogger(__name__)

WAIT_SECONDS = 600.0
SECONDS_BETWEEN_ATTEMPTS = 0.5
ANSWER_SECONDS = 10.0
LONGEST_CALL, LONGEST_FILE = 1 << 20, 1 << 32
_CALL = {"index", "cluster", "version", "flags"}
_NO_ANSWER = (OSError, EOFError, json.JSONDecodeError, UnicodeDecodeError)


def hold_roll_call(
    cluster: Cluster, flags: dict[str, str], folder: Path, files: list[Path], wait: float = WAIT_SECONDS
) -> dict[int, socket.socket]:
    """The chief's part: wait for all the others, then send them the run's state.

    Args:
        cluster: whom to wait for.
        flags: what this run was asked to do.
        folder: the run directory.
        files: what to send of it.
        wait: seconds until all have to be there.

    Returns:
        Connections to the others.

    Raises:
        InputError: a worker that does not come, or that was asked to do something else.
    """
    deadline = time.monotonic() + wait
    present: dict[int, socket.socket] = {}
    with _listen(cluster) as server:
        while missing := [index for index in range(1, len(cluster.addresses)) if index not in present]:
            names = " and ".join(map(cluster.name, missing))
            logger.info("Waiting for %s", names)
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except TimeoutError as error:
                raise InputError(f"After {wait:g} seconds there is no sign of {names}.") from error
            caller = _read_call(connection)
            if caller is None or caller["index"] not in range(1, len(cluster.addresses)):
                connection.close()
                continue
            present[caller["index"]] = connection
            differing = _differences(caller, _own_call(cluster, flags))
            if differing:
                refusal = f"{cluster.name(caller['index'])} differs from the chief: {differing}."
                _tell(present.values(), {"refusal": refusal})
                raise InputError(refusal)
    _tell(
        present.values(),
        {"files": [file.relative_to(folder).as_posix() for file in files]},
        [file.read_bytes() for file in files],
    )
    return present


def answer_roll_call(
    cluster: Cluster, flags: dict[str, str], folder: Path, wait: float = WAIT_SECONDS
) -> dict[int, socket.socket]:
    """Any other worker's part: report to the chief and put the run's state into ``folder``.

    Args:
        cluster: where the chief is, and who calls.
        flags: what this process was asked to do.
        folder: an empty folder.
        wait: seconds until the chief has to answer.

    Returns:
        The connection to the chief.

    Raises:
        InputError: no answer, or a refusal.
    """
    deadline = time.monotonic() + wait
    logger.info("Waiting for the chief at %s", cluster.addresses[0])
    while time.monotonic() < deadline:
        # A chief that is killed and started again meanwhile is called again.
        try:
            connection, header = _call_chief(cluster, flags, deadline)
            contents = [receive(connection, LONGEST_FILE) for _ in header.get("files", ())]
        except _NO_ANSWER:
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)
            continue
        if "refusal" in header:
            raise InputError(str(header["refusal"]))
        # Not above: a folder that cannot be written is no chief that does not answer.
        for name, content in zip(header["files"], contents, strict=True):
            _store(folder, name, content)
        connection.settimeout(None)
        return {0: connection}
    raise InputError(f"After {wait:g} seconds the chief at {cluster.addresses[0]} does not answer.")


def _own_call(cluster: Cluster, flags: dict[str, str]) -> dict[str, Any]:
    return {
        "index": cluster.index,
        "cluster": ",".join(cluster.addresses),
        "version": ncen_tf.__version__,
        "flags": flags,
    }


def _differences(caller: dict[str, Any], chief: dict[str, Any]) -> str:
    def facts(call: dict[str, Any]) -> dict[str, Any]:
        flags = {f"--{name}": value for name, value in call["flags"].items()}
        return flags | {name: call[name] for name in ("cluster", "version")}

    its, own = facts(caller), facts(chief)
    return "; ".join(
        f"{name} is {its.get(name, 'not set')}, the chief's is {own.get(name, 'not set')}"
        for name in sorted({*its, *own})
        if its.get(name) != own.get(name)
    )


def _listen(cluster: Cluster) -> socket.socket:
    port = int(cluster.addresses[0].rpartition(":")[2])
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise InputError(f"The chief's port {port} cannot be used: {error.strerror}.") from error


def _call_chief(
    cluster: Cluster, flags: dict[str, str], deadline: float
) -> tuple[socket.socket, dict[str, Any]]:
    host, _, port = cluster.addresses[0].rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS)
    connection.settimeout(max(deadline - time.monotonic(), 0.001))
    send(connection, json.dumps(_own_call(cluster, flags)).encode())
    return connection, json.loads(receive(connection, LONGEST_CALL))


def _read_call(connection: socket.socket) -> dict[str, Any] | None:
    """What a caller says; ``None`` for a stranger, a port scanner for example."""
    connection.settimeout(ANSWER_SECONDS)
    with contextlib.suppress(*_NO_ANSWER):
        call = json.loads(receive(connection, LONGEST_CALL))
        connection.settimeout(None)
        if isinstance(call, dict) and isinstance(call.get("flags"), dict) and call.keys() == _CALL:
            return call
    return None


def _tell(
    connections: Iterable[socket.socket], header: dict[str, Any], contents: Iterable[bytes] = ()
) -> None:
    for connection in connections:
        # One that has gone meanwhile is missed soon enough: by its lifeline, or when TensorFlow connects.
        with contextlib.suppress(OSError):
            for content in (json.dumps(header).encode(), *contents):
                send(connection, content)


def _store(folder: Path, name: str, content: bytes) -> None:
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise InputError(f"The chief sent a file named {name!r}, which lies outside the run directory.")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
