"""Times several ways of doing one thing in one run, in turn, so that a drifting machine hits all alike."""

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
"""Makes one side ready; what it gives back is timed."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """What one side took."""

    first: float
    """Seconds to get ready and through the first call: imports, tracing and compiling are in here."""
    seconds: tuple[float, ...]
    """Of a call, for each round."""
    result: Any
    """What the last call gave back."""

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the seconds."""
        lower, median, upper = np.percentile(self.seconds, [25, 50, 75])
        return float(lower), float(median), float(upper)

    @property
    def median(self) -> float:
        return self.quartiles[1]


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why one side could not be timed: not installed, or an exception in its first call."""

    reason: str


Outcome = Timing | Failure


def interleaved(candidates: Mapping[Name, Candidate], rounds: int, *, calls: int = 1) -> dict[Name, Outcome]:
    """Time every candidate once a round, after one call that does not count.

    Args:
        candidates: name -> what makes it ready.
        rounds: times that each is timed, >= 1.
        calls: made in a row each time; for runs so short that what came before them would be felt.
    """
    # Every candidate is traced once, which TensorFlow takes for retracing and warns of.
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
        except Exception as error:  # a peer may fail in any way, and its row says how
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
    """Wait until every GPU has done what it was asked for."""
    tensorflow, torch = sys.modules.get("tensorflow"), sys.modules.get("torch")
    if tensorflow is not None and tensorflow.config.list_logical_devices("GPU"):
        tensorflow.test.experimental.sync_devices()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(numerator: Outcome, denominator: Outcome) -> float | None:
    """Of two medians; ``None`` where a side failed."""
    if isinstance(numerator, Failure) or isinstance(denominator, Failure):
        return None
    return numerator.median / denominator.median
