"""Time several ways to do one thing in turn, in one run, so that other load affects all alike."""

import dataclasses
import gc
import logging
import sys
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

Name = TypeVar("Name", bound=Hashable)
Run = Callable[[], Any]
Candidate = Callable[[], Run]
"""Makes one side ready and returns the function that is timed."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """The time of one side."""

    first: float
    """Seconds until the end of the first call: imports, tracing and compiling are included."""
    seconds: tuple[float, ...]
    """Seconds of a call, for each round."""
    result: Any
    """What the last call returned."""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, median and upper quartile of the seconds."""
        lower, median, upper = np.percentile(self.seconds, [25, 50, 75])
        return float(lower), float(median), float(upper)

    @property
    def median(self) -> float:
        return self.quartiles[1]


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why one side could not be timed: it is not installed, or its first call failed."""

    reason: str


Outcome = Timing | Failure


def interleaved(candidates: Mapping[Name, Candidate], rounds: int, *, calls: int = 1) -> dict[Name, Outcome]:
    """Time every candidate once per round, after one call that does not count.

    Args:
        candidates: What makes each side ready, by its name.
        rounds: Number of rounds, >= 1.
        calls: Number of calls in a row that are timed together, for short calls.
    """
    # Every candidate is traced once, and TensorFlow warns about that as if it were retracing.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    outcomes: dict[Name, Outcome] = {}
    ready: dict[Name, Run] = {}
    first: dict[Name, float] = {}
    for name, make in tqdm(candidates.items(), desc="getting ready", disable=None):
        started = time.perf_counter()
        try:
            ready[name] = make()
            ready[name]()
            synchronize()
        except Exception as error:  # a peer may fail in any way; its row shows how
            ready.pop(name, None)
            reason = " ".join(str(error).split())[:300]
            outcomes[name] = Failure(f"{type(error).__name__}: {reason}")
        first[name] = time.perf_counter() - started
    seconds: dict[Name, list[float]] = {name: [] for name in ready}
    results: dict[Name, Any] = {}
    gc.collect()
    for _ in tqdm(range(rounds), desc="timing", unit="round", disable=None):
        for name, run in ready.items():
            started = time.perf_counter()
            for _ in range(calls):
                results[name] = run()
            synchronize()
            seconds[name].append((time.perf_counter() - started) / calls)
    for name in ready:
        outcomes[name] = Timing(first[name], tuple(seconds[name]), results[name])
    return {name: outcomes[name] for name in candidates}


def synchronize() -> None:
    """Wait until every GPU is done."""
    tensorflow, torch = sys.modules.get("tensorflow"), sys.modules.get("torch")
    if tensorflow is not None and tensorflow.config.list_logical_devices("GPU"):
        tensorflow.test.experimental.sync_devices()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(numerator: Outcome, denominator: Outcome) -> float | None:
    """Divide two medians; ``None`` where a side failed."""
    if isinstance(numerator, Failure) or isinstance(denominator, Failure):
        return None
    return numerator.median / denominator.median
