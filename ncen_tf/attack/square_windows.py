"""What Square Attack starts from and proposes in the L2 ball (Andriushchenko et al., 2020, section 3.4).

A change is made of windows, each with a bump above and a dent below, or side by side. A proposal takes the
budget from one window and spends it on another. Windows are at the same place in all images of a batch.
"""

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.balls import lengths

Array = npt.NDArray[np.float32]

_SIGNS = np.array([-1, 1], np.float32)
_TINY = np.float32(1e-12)
_LEAST_SIDE = 3


def tiles(generator: np.random.Generator, clean: Array, eps: float) -> Array:
    """Images covered with 5 x 5 windows of random signs, at distance eps: float32 [N, H, W, C]."""
    count, height, width, channels = clean.shape
    side = max(min(height, width) // 5, 1)
    top, left = height % side // 2, width % side // 2
    change = np.zeros_like(clean)
    for row in range(top, height - side + 1, side):
        for column in range(left, width - side + 1, side):
            signs = generator.choice(_SIGNS, size=(count, 1, 1, channels))
            change[:, row : row + side, column : column + side] = signs * window(generator, side)
    return _at_distance(clean, change, eps)


def moved(generator: np.random.Generator, clean: Array, best: Array, eps: float, side: int) -> Array:
    """Proposals (Algorithm 3 of the paper): float32 [N, H, W, C] at distance eps.

    Args:
        generator: to draw places and signs from.
        clean: float32 [N, H, W, C] in [0, 1].
        best: the images so far.
        eps: radius.
        side: of the windows; the next odd number within the image is taken.
    """
    count, height, width, channels = clean.shape
    side = min(max(side, _LEAST_SIDE) // 2 * 2 + 1, height, width)
    change = best - clean
    gains, loses = (_place(generator, height - side, width - side, side) for _ in range(2))
    unused = np.maximum(np.float32(eps**2) - np.square(lengths(change)), 0)
    spent = np.zeros((1, height, width, 1), bool)
    spent[gains] = spent[loses] = True
    available = np.square(change * spent).sum(axis=(1, 2), keepdims=True) + unused / channels
    signs = generator.choice(_SIGNS, size=(count, 1, 1, channels))
    bump = _unit(change[gains]) + signs * window(generator, side)
    change[loses] = 0
    change[gains] = _unit(np.asarray(bump, np.float32)) * np.sqrt(available)
    return _at_distance(clean, change, eps)


def window(generator: np.random.Generator, side: int) -> Array:
    """A bump and a dent of unit length together, side by side at random: [side, side, 1]."""
    upper = _bump(side // 2, side)
    both = np.concatenate([upper, -_bump(side - side // 2, side)])
    both /= np.linalg.norm(both)
    return (both.T if generator.random() < 0.5 else both)[..., np.newaxis]


def _bump(height: int, width: int) -> Array:
    """Falls off from the centre: sum of 1 / (j + 1)^2 over j from the distance to it on; unit length."""
    rows = np.abs(np.arange(height) - height // 2)[:, np.newaxis]
    columns = np.abs(np.arange(width) - width // 2)
    shares = 1 / np.square(np.arange(max(height, width) // 2 + 1, dtype=np.float32) + 1)
    bump = np.cumsum(shares[::-1])[::-1][np.maximum(rows, columns)]
    return np.asarray(bump / max(np.linalg.norm(bump), _TINY), np.float32)


def _place(generator: np.random.Generator, rows: int, columns: int, side: int) -> tuple[slice, slice, slice]:
    row, column = int(generator.integers(rows + 1)), int(generator.integers(columns + 1))
    return slice(None), slice(row, row + side), slice(column, column + side)


def _unit(windows: Array) -> Array:
    """Each channel of each window at unit length: [N, h, w, C]."""
    return np.asarray(windows / (np.sqrt(np.square(windows).sum(axis=(1, 2), keepdims=True)) + _TINY))


def _at_distance(clean: Array, change: Array, eps: float) -> Array:
    return np.clip(clean + change * np.float32(eps) / (lengths(change) + _TINY), 0, 1)
