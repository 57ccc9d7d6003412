"""Random numbers of each image, which do not depend on the batch that it is attacked in."""

import hashlib
import math

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]

_GOLDEN, _FIRST, _SECOND = (
    np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def image_keys(images: npt.NDArray[np.float32], purpose: str, seed: int) -> Keys:
    """Hash each image with a seed: float32 [N, H, W, C] -> uint64 [N].

    Args:
        images: The clean images.
        purpose: What the numbers are for, such as the name of an attack.
        seed: At least 0.
    """
    prefix = f"{purpose} {seed} ".encode()
    digests = (hashlib.blake2b(prefix + image.tobytes(), digest_size=8).digest() for image in images)
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def uniforms(keys: Keys, draw: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Compute random numbers in [0, 1) by SplitMix64 (Steele et al., 2014): float64 [N, *shape].

    Args:
        keys: [N], from :func:`image_keys`.
        draw: Number of this draw: equal keys and draws give equal numbers.
        shape: Of the numbers of one image, fewer than 2^32.
    """
    positions = np.arange(math.prod(shape), dtype=np.uint64) + (np.uint64(draw) << np.uint64(32))
    bits = _mix(keys[:, np.newaxis] + _mix(positions))
    return np.asarray((bits >> np.uint64(11)) * 2.0**-53, np.float64).reshape(len(keys), *shape)


def signs(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Turn uniform numbers into -1 and 1 with equal probability."""
    return np.where(numbers < 0.5, np.float32(-1), np.float32(1))


def places(numbers: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.intp]:
    """Turn uniform numbers into integers in [0, count)."""
    return (numbers * count).astype(np.intp)


def normals(keys: Keys, draw: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Compute standard normal random numbers (Box & Muller, 1958): float32 [N, *shape]."""
    first, second = np.moveaxis(uniforms(keys, draw, (2, *shape)), 1, 0)
    return (np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second)).astype(np.float32)


def _mix(values: Keys) -> Keys:
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
