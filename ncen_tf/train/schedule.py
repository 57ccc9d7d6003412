"""Learning rates over a training run."""

import math


def stepped_rate(epoch: int, initial: float, decay_every: int, minimum: float) -> float:
    """Divide by 10 every ``decay_every`` epochs, never below ``minimum`` (Luo et al., section IV-A).

    Args:
        epoch: from 0.
        initial: rate of the first epochs, > 0.
        decay_every: epochs between two decays, >= 1.
        minimum: floor of the schedule; an initial rate below it stays as it is.
    """
    return max(initial * 0.1 ** (epoch // decay_every), min(initial, minimum))


def cosine_rate(done: float, initial: float, minimum: float) -> float:
    """Half a cosine from ``initial`` down to ``minimum`` (Loshchilov and Hutter, 2017, Eq. 5, no restarts).

    Args:
        done: part of all steps that has been taken, in [0, 1].
        initial: rate of the first step, > 0.
        minimum: rate at the end; an initial rate below it stays as it is.
    """
    low = min(initial, minimum)
    return low + 0.5 * (initial - low) * (1 + math.cos(math.pi * done))
