"""The paper's learning rate."""


def learning_rate(epoch: int, initial: float, decay_every: int, minimum: float) -> float:
    """Divide by 10 every ``decay_every`` epochs, never below ``minimum`` (Luo et al., section IV-A).

    Args:
        epoch: from 0.
        initial: rate of the first epochs, > 0.
        decay_every: epochs between two decays, >= 1.
        minimum: floor of the schedule; an initial rate below it stays as it is.
    """
    return max(initial * 0.1 ** (epoch // decay_every), min(initial, minimum))
