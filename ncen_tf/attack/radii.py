"""Perturbation bounds: those that a user gives, or a default for the size of the images."""

from ncen_tf.attack.attack import Norm
from ncen_tf.base.settings import Settings

ImageShape = tuple[int, int, int]
LARGE = 64
"""Shorter side, in pixels, from which images count as large."""


class Radii(Settings):
    """Perturbation bounds for images in [0, 1]."""

    single_step: tuple[float, ...]
    """Linf, for FGSM and MI-FGSM of the suites ``paper`` and ``released``."""
    iterative: tuple[float, ...]
    """Linf, for PGD and BIM of the same suites."""
    strict: dict[Norm, float]
    """One a norm."""


SMALL_GREY = Radii(single_step=(0.1, 0.3), iterative=(0.1, 0.15), strict={"Linf": 0.1, "L2": 1.5})
"""Those of Luo et al., section IV-A, for FashionMNIST."""
SMALL_COLOUR = Radii(single_step=(0.03, 0.09), iterative=(0.01, 0.02), strict={"Linf": 8 / 255, "L2": 0.5})
"""Those of Luo et al. for CIFAR-10; ``strict``: of RobustBench (Croce et al., 2021, arXiv:2010.09670)."""
LARGE_IMAGES = Radii(single_step=(4 / 255,), iterative=(4 / 255,), strict={"Linf": 4 / 255, "L2": 3.0})
"""Those of ImageNet at 224 x 224: Linf of RobustBench, L2 of Engstrom et al. (2019), robustness package."""


def radii_for(image_shape: ImageShape, eps: float | None = None, norm: Norm | None = None) -> Radii:
    """Return the bounds of a user, or the default for the size of the images.

    Args:
        image_shape: (height, width, channels).
        eps: Bound of every attack; ``None`` takes the default.
        norm: Norm of ``eps``; Linf by default.
    """
    if eps is not None:
        return Radii(single_step=(eps,), iterative=(eps,), strict={norm or "Linf": eps})
    height, width, channels = image_shape
    if min(height, width) >= LARGE:
        return LARGE_IMAGES
    return SMALL_GREY if channels == 1 else SMALL_COLOUR


def describe_shape(image_shape: ImageShape) -> str:
    """Write the size of images, such as ``32 x 32 colour images``."""
    height, width, channels = image_shape
    return f"{height} x {width} {'grey' if channels == 1 else 'colour'} images"


def write_eps(eps: float) -> str:
    """Write a bound as a fraction of 255 where it is one, such as ``8/255``; otherwise as a decimal."""
    numerator = round(eps * 255)
    if 0 < numerator < 255 and abs(eps * 255 - numerator) < 1e-9:
        return f"{numerator}/255"
    return f"{eps:g}"
