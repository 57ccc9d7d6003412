"""The processes that train one ensemble together, as ``TF_CONFIG`` names them."""

import dataclasses
import json
import os
from typing import Any

from ncen_tf.base.errors import InputError

VARIABLE = "TF_CONFIG"
EXAMPLE = '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}'


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the workers are and which of them this process is."""

    addresses: tuple[str, ...]
    """``host:port`` of each worker; the first is the chief, which alone writes the run directory."""
    index: int
    has_chief_task: bool = False
    """Whether the first is a task of type ``chief``, and only the others are of type ``worker``."""

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def name(self, index: int) -> str:
        """A worker as messages name it."""
        return f"worker {index} ({self.addresses[index]})"

    def index_of(self, kind: str, task: int) -> int:
        """The worker that TensorFlow calls ``/job:kind/task:task``."""
        return task + (self.has_chief_task and kind == "worker")

    @classmethod
    def from_environment(cls) -> "Cluster":
        """Read ``TF_CONFIG``, in the form that TensorFlow documents: tasks ``chief`` and ``worker``.

        Raises:
            InputError: the variable is missing, is no JSON, or does not describe a cluster.
        """
        text = os.environ.get(VARIABLE)
        if not text:
            raise InputError(f"--strategy=multi_worker needs the environment variable {VARIABLE}: {EXAMPLE}.")
        try:
            return cls._parse(json.loads(text))
        except json.JSONDecodeError as error:
            raise InputError(f"{VARIABLE} is not JSON ({error}): it should look like {EXAMPLE}.") from error

    @classmethod
    def _parse(cls, content: Any) -> "Cluster":
        cluster, task = (_part(content, name) for name in ("cluster", "task"))
        unknown = sorted(cluster.keys() - {"chief", "worker"})
        if unknown or not cluster:
            raise InputError(
                f"{VARIABLE}: a cluster has tasks of type 'worker', and one 'chief' at most; "
                f"got {', '.join(map(repr, unknown)) or 'none'}."
            )
        addresses: list[str] = []
        own = None
        for kind in ("chief", "worker"):
            listed = cluster.get(kind, [])
            if not isinstance(listed, list) or (kind == "chief" and len(listed) > 1):
                raise InputError(f"{VARIABLE}: {kind!r} is a list of addresses, one for 'chief'.")
            if task.get("type") == kind and task.get("index") in range(len(listed)):
                own = len(addresses) + int(task["index"])
            addresses += [_address(entry) for entry in listed]
        if own is None:
            raise InputError(
                f"{VARIABLE}: the cluster lists no task of type {task.get('type')!r} "
                f"and index {task.get('index')!r}."
            )
        if len(set(addresses)) < len(addresses):
            raise InputError(f"{VARIABLE}: an address is listed twice in {', '.join(addresses)}.")
        return cls(tuple(addresses), own, bool(cluster.get("chief")))


def _part(content: Any, name: str) -> dict[str, Any]:
    part = content.get(name) if isinstance(content, dict) else None
    if not isinstance(part, dict):
        raise InputError(f"{VARIABLE} has no {name!r}: it should look like {EXAMPLE}.")
    return part


def _address(entry: object) -> str:
    host, _, port = entry.rpartition(":") if isinstance(entry, str) else ("", "", "")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(f"{VARIABLE}: an address is 'host:port' with a port up to 65535; got {entry!r}.")
    return f"{host}:{port}"
