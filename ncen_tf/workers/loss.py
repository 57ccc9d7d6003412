"""What a worker does when another one is gone: say so, and end."""

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from ncen_tf.workers.cluster import Cluster

WORKER_LOST = 75
"""Exit code: EX_TEMPFAIL of sysexits.h, to be tried again."""


class LostWorkerError(Exception):
    """Another worker has ended or cannot be reached; what was saved can be resumed."""


def describe_loss(cluster: Cluster, lost: Iterable[int]) -> str:
    """One sentence about workers that may be gone."""
    return (
        f"The connection to {' or '.join(map(cluster.name, lost))} is lost: it has ended, as its own output "
        "may tell, or cannot be reached. The same commands on all workers resume from the newest checkpoint."
    )


def leave(sentence: str, scratch: Path | None = None) -> NoReturn:
    """End this process at once: an orderly shutdown of TensorFlow would wait for the lost worker.

    Args:
        sentence: printed on stderr.
        scratch: a folder to delete.
    """
    print(f"\nerror: {sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(WORKER_LOST)
