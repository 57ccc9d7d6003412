"""Connection to a Ray cluster, and files that travel to its workers."""

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings


class RayFlags(Settings):
    """Settings of every program that runs on a Ray cluster."""

    ray: str | None = Field(
        default=None,
        description="Address of a Ray cluster that does the work: auto, HOST:PORT, or local for this machine",
    )
    ray_cpus: float = Field(default=1, gt=0, description="Number of CPUs of each worker on a Ray cluster")
    ray_gpus: float = Field(default=0, ge=0, description="Number of GPUs of each worker on a Ray cluster")


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a Ray cluster for the time of a ``with`` block.

    A connection that the caller has opened already is used, and stays open.

    Args:
        address: ``auto`` for the cluster of this machine, ``HOST:PORT`` or ``ray://HOST:PORT`` for another
            one, or ``local`` to start one on this machine alone.

    Raises:
        InputError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray  # takes a second, and is optional
    except ImportError as error:
        raise InputError("`ray` needs the package Ray: pip install 'ncen-tf[ray]'.") from error
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise InputError(
            f"No Ray cluster answers at {address!r} ({' '.join(str(error).split())[:200]}): start one with "
            "`ray start --head`, or set `ray` to its address."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def require_room(cpus: float, gpus: float) -> int:
    """Count the workers that the cluster has room for at a time.

    Args:
        cpus: Number of CPUs of each worker, > 0.
        gpus: Number of GPUs of each worker, >= 0.

    Raises:
        InputError: No node has room for one: the workers would wait for ever.
    """
    import ray  # takes a second, and is optional

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = [
        min(node.get("CPU", 0) // cpus, node.get("GPU", 0) // gpus if gpus else math.inf) for node in nodes
    ]
    if not any(room):
        raise InputError(
            f"No node of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs: set `ray_cpus` and `ray_gpus`."
        )
    return int(sum(room))


def environment(cpus: float) -> dict[str, dict[str, str]]:
    """Return a Ray runtime environment with the kernels of this process and as many threads as CPUs."""
    threads = str(max(1, int(cpus)))
    names = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    variables = dict.fromkeys(names, threads) | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if (onednn := os.environ.get("TF_ENABLE_ONEDNN_OPTS")) is not None:
        variables["TF_ENABLE_ONEDNN_OPTS"] = onednn
    return {"env_vars": variables}


def read_files(folder: Path, files: Iterable[Path]) -> dict[str, bytes]:
    """Read files of a folder, by their paths in it."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files if file.is_file()}


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, by their paths in it."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
