"""Steps and projections in the balls that attacks stay in."""

import numpy as np
import numpy.typing as npt

from ncen_tf.attack.attack import Norm

Array = npt.NDArray[np.float32]


def random_start(generator: np.random.Generator, clean: Array, eps: float, norm: Norm) -> Array:
    """Images around the clean ones: uniform in the Linf ball, in uniform directions on the L2 sphere.

    Args:
        generator: to draw from.
        clean: float32 [N, H, W, C] in [0, 1].
        eps: radius.
        norm: of the ball.
    """
    if norm == "Linf":
        change = generator.uniform(-eps, eps, clean.shape).astype(np.float32)
    else:
        change = np.float32(eps) * direction(generator.standard_normal(clean.shape, np.float32), norm)
    return project(clean + change, clean, eps, norm)


def direction(gradient: Array, norm: Norm) -> Array:
    """Steepest ascent by a step of size 1: the sign (Linf) or the unit vector (L2) of each gradient."""
    if norm == "Linf":
        return np.sign(gradient)
    # Scaled first: squares of small gradients vanish in float32.
    largest = np.abs(gradient).max(axis=(1, 2, 3), keepdims=True)
    scaled = gradient / np.maximum(largest, np.finfo(np.float32).tiny)
    return scaled / np.maximum(lengths(scaled), np.float32(1))


def project(x: Array, clean: Array, eps: float, norm: Norm) -> Array:
    """The images moved into the ball and into [0, 1]: float32 [N, H, W, C].

    In L2, x is pulled towards the clean image first and clipped to [0, 1] then, which is in both sets but
    not always the nearest such point (the same as in Croce & Hein's implementation).
    """
    if norm == "Linf":
        x = np.clip(x, clean - np.float32(eps), clean + np.float32(eps))
    else:
        change = x - clean
        x = clean + change * np.minimum(1, np.float32(eps) / np.maximum(lengths(change), 1e-12))
    return np.clip(x, 0, 1)


def lengths(change: Array) -> Array:
    """Euclidean norm of each image: [N, H, W, C] -> [N, 1, 1, 1]."""
    return np.asarray(np.sqrt(np.square(change).sum(axis=(1, 2, 3), keepdims=True)))
