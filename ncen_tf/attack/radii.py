"""Perturbation bounds: those that a user gives, or a default for the size of the images."""

from ncen_tf.attack.attack import Norm
from ncen_tf.base.settings import Settings
from ncen_tf.data.dataset import ImageKind, ImageShape, image_kind


class Radii(Settings):
    """Perturbation bounds for images in [0, 1]."""

    single_step: tuple[float, ...]
    """Linf, for FGSM and MI-FGSM of the suites ``paper`` and ``released``."""
    iterative: tuple[float, ...]
    """Linf, for PGD and BIM of the same suites."""
    strict: dict[Norm, float]
    """One a norm."""


RADII: dict[ImageKind, Radii] = {
    # Luo et al., section IV-A, for FashionMNIST.
    "small grey images": Radii(
        single_step=(0.1, 0.3), iterative=(0.1, 0.15), strict={"Linf": 0.1, "L2": 1.5}
    ),
    # Luo et al. for CIFAR-10; ``strict``: RobustBench (Croce et al., 2021, arXiv:2010.09670).
    "small colour images": Radii(
        single_step=(0.03, 0.09), iterative=(0.01, 0.02), strict={"Linf": 8 / 255, "L2": 0.5}
    ),
    # ImageNet at 224 x 224: Linf of RobustBench, L2 of Engstrom et al. (2019), robustness package.
    "large images": Radii(single_step=(4 / 255,), iterative=(4 / 255,), strict={"Linf": 4 / 255, "L2": 3.0}),
}


def radii_for(image_shape: ImageShape, eps: float | None = None, norm: Norm | None = None) -> Radii:
    """Return the bounds of a user, or the default for the size of the images.

    Args:
        image_shape: (height, width, channels).
        eps: Bound of every attack; ``None`` takes the default.
        norm: Norm of ``eps``; Linf by default.
    """
    if eps is not None:
        return Radii(single_step=(eps,), iterative=(eps,), strict={norm or "Linf": eps})
    return RADII[image_kind(image_shape)]


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
