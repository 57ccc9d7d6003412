"""A bound on what the process may allocate, for work of unknown appetite."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def limited_memory(room: int) -> Iterator[None]:
    """Let allocations of the whole process fail once it has ``room`` bytes more than now.

    The limit is Linux's RLIMIT_DATA; elsewhere there is none.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    lines = Path("/proc/self/status").read_text().splitlines()
    taken = next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:")), 0)
    limits = [limit for limit in (before, most) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([taken + room, *limits]), most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))
