"""Each process's own part of the machine."""

import dataclasses
import os
from pathlib import Path
from typing import TypeVar

from ncen_tf.base.errors import InputError

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process of a sweep may use; ``None`` and an empty table leave it everything."""

    cores: frozenset[int] | None
    environment: dict[str, str]


def make_shares(processes: int) -> list[Share]:
    """Divide this machine's cores, and the GPUs that ``CUDA_VISIBLE_DEVICES`` lists, among processes.

    With more processes than GPUs, the processes share all GPUs and take memory as they need it.

    Raises:
        InputError: fewer than one process, or more than cores.
    """
    cores = usable_cores()
    if not 1 <= processes <= len(cores):
        raise InputError(f"--processes is 1 to {len(cores)}, the cores it may use; got {processes}.")
    if processes == 1:
        return [Share(None, {})]
    pinned = hasattr(os, "sched_setaffinity")
    gpus = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    shares = []
    for index in range(processes):
        environment = {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        if len(gpus) >= processes:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(part(gpus, index, processes))
        own = frozenset(part(cores, index, processes)) if pinned else None
        shares.append(Share(own, environment))
    return shares


def usable_cores() -> list[int]:
    """Logical cores that this process may use; those of one physical core, and of one socket, adjoin."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    return sorted(os.sched_getaffinity(0), key=lambda core: (*_topology(core), core))


def part(items: list[_T], index: int, parts: int) -> list[_T]:
    """Part ``index`` of a list cut into ``parts`` of nearly equal length."""
    return items[len(items) * index // parts : len(items) * (index + 1) // parts]


def _topology(core: int) -> tuple[int, int]:
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/topology")
    try:
        return int((folder / "physical_package_id").read_text()), int((folder / "core_id").read_text())
    except (OSError, ValueError):
        return 0, core
