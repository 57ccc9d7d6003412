"""Times several ways of doing one thing in one run, in turn, so that a drifting machine hits all alike."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from ncen_tf.environment import describe_environment

ROUNDS = 15


def interleaved_medians(candidates: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each candidate over :data:`ROUNDS` rounds, after two uncounted calls."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
        run()
    for _ in range(ROUNDS):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def print_medians(title: str, medians: dict[str, float]) -> None:
    """A table with each candidate's ratio to the first, then the same as JSON with the environment."""
    first = next(iter(medians.values()))
    print(f"{title} (medians of {ROUNDS}, interleaved)")
    for name, seconds in medians.items():
        print(f"  {name:<44} {1000 * seconds:10.2f} ms   {seconds / first:6.2f} x")
    print(json.dumps({"title": title, "seconds": medians, "environment": describe_environment()}))
