"""How a campaign's cases are shared out."""


def share(total: int, weights: dict[str, int]) -> dict[str, int]:
    """Cases for each name by its weight, rounded up: as many as asked for in all, or a few more."""
    return {name: -(-total * weight // sum(weights.values())) for name, weight in weights.items()}
