"""Datasets in memory: images, labels and class names."""

import logging
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from ncen_tf.base.errors import InputError

logger = logging.getLogger(__name__)

Images = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
ImageShape = tuple[int, int, int]
"""(height, width, channels)."""
ImageKind = Literal["small grey images", "small colour images", "large images"]
MOST_CLASSES = 100_000
LARGE = 64
"""Shorter side, in pixels, from which images count as large."""

_FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "fashion_mnist": _FASHION_MNIST_CLASSES,
    "fashion_mnist_sample": _FASHION_MNIST_CLASSES,
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}


def image_kind(image_shape: ImageShape) -> ImageKind:
    """Return the kind of images, by which perturbation bounds and settings of training are chosen."""
    if min(image_shape[:2]) >= LARGE:
        return "large images"
    return "small grey images" if image_shape[2] == 1 else "small colour images"


def unknown_source(source: object) -> str:
    """Write the error message for what is no dataset."""
    return (
        f"`dataset` must be a name of tensorflow-datasets ({', '.join(CLASS_NAMES)}, cifar100, ...), a "
        f"folder of images, a CSV or an .npz file; {str(source)!r} is none and does not exist."
    )


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Args:
        images: uint8 [N, H, W, C], or floats in [0, 1], which are kept as float32; C is 1 or 3. [N, H, W] is
            taken for grey images.
        labels: Integer class numbers [N] or [N, 1].
        name: Name of the dataset, for reports.
        class_names: Name of each class; by default the class numbers.

    Raises:
        InputError: The arrays do not have these types, shapes and ranges, or a label has no class name.

    Examples:
        >>> import ncen_tf, numpy as np
        >>> images, labels = np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, 0, 1])
        >>> split = ncen_tf.Split(images, labels, class_names=("cat", "dog"))
        >>> len(split[:3]), split.float_images().dtype
        (3, dtype('float32'))
        >>> sorted(split.sample(2, seed=0).labels.tolist())
        [0, 1]
    """

    images: Images
    labels: npt.NDArray[np.int32]
    name: str = "arrays"
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        images, labels = _check_images(np.asarray(self.images)), np.asarray(self.labels)
        if labels.shape[1:] == (1,):
            labels = labels[:, 0]
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise InputError(
                f"`labels` must be integers [{len(images)}], got {labels.dtype} {list(labels.shape)}."
            )
        smallest, largest = (int(labels.min()), int(labels.max())) if len(labels) else (0, -1)
        if largest >= MOST_CLASSES:
            raise InputError(f"`labels` must be class numbers below {MOST_CLASSES}, got {largest}.")
        class_names = tuple(self.class_names) or tuple(str(number) for number in range(largest + 1))
        if smallest < 0 or largest >= len(class_names):
            raise InputError(
                f"`labels` must be from 0 to {len(class_names) - 1}, got {smallest} to {largest}."
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32, copy=False))
        object.__setattr__(self, "class_names", class_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Self:
        return type(self)(self.images[rows], self.labels[rows], self.name, self.class_names)

    def float_images(self) -> npt.NDArray[np.float32]:
        """Return the images as float32 in [0, 1]."""
        if self.images.dtype == np.float32:
            return self.images.astype(np.float32, copy=False)
        return self.images.astype(np.float32) / np.float32(255)

    def sample(self, examples: int, seed: int | None = None) -> Self:
        """Draw images, as many of each class as the numbers allow, and keep their order.

        Where ``examples`` is not a multiple of the number of classes, or a class has too few images, other
        classes give more, and what was drawn is logged.

        Args:
            examples: Number of images, from 1 to that of the split.
            seed: Of a random choice; ``None`` takes the first images of each class.

        Raises:
            InputError: There are fewer images than ``examples``, or ``examples`` is less than 1.
        """
        if not 1 <= examples <= len(self):
            raise InputError(
                f"`examples` must be from 1 to {len(self)}, the number of images, got {examples}."
            )
        quotas = _equal_shares(np.bincount(self.labels, minlength=len(self.class_names)), examples)
        if quotas.min() != quotas.max():
            of_classes = f"{quotas.min()} to {quotas.max()} of each class"
            logger.info("Drew %d of %d images: %s", examples, len(self), of_classes)
        rows = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        rows = rows[np.argsort(self.labels[rows], kind="stable")]
        labels = self.labels[rows]
        place_in_class = np.arange(len(rows)) - np.searchsorted(labels, labels)
        return self[np.sort(rows[place_in_class < quotas[labels]])]


def _check_images(images: npt.NDArray[Any]) -> Images:
    """Refuse what are no images, and make floats float32."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    if images.ndim != 4 or images.shape[3] not in (1, 3) or images.dtype.kind not in "uf":
        raise InputError(
            f"`images` must be uint8 or floats [N, H, W, C] with 1 or 3 channels, got {images.dtype} "
            f"{list(images.shape)}."
        )
    if images.dtype.kind == "f":
        images = images.astype(np.float32, copy=False)
        if images.size and not (images.min() >= 0 and images.max() <= 1):  # False for a NaN
            raise InputError(
                f"`images` of type float must be in [0, 1], got {images.min():g} to {images.max():g}: divide "
                "[0, 255] by 255, and map [-1, 1] by (x + 1) / 2."
            )
    elif images.dtype != np.uint8:
        raise InputError(f"`images` must be uint8 or floats in [0, 1], got {images.dtype}.")
    return np.ascontiguousarray(images)


def _equal_shares(sizes: npt.NDArray[np.intp], examples: int) -> npt.NDArray[np.intp]:
    """Divide a number of examples among classes as equally as their sizes allow."""
    shares, left = np.zeros_like(sizes), examples
    for place, label in enumerate(np.argsort(sizes, kind="stable")):
        shares[label] = min(sizes[label], left // (len(sizes) - place))
        left -= shares[label]
    return shares


@dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    Args:
        train: Training images.
        test: Test images, of the same shape and classes.
        source: Kind of source that the images were read from.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample")
        >>> data.name, data.image_shape, len(data.train), data.source
        ('fashion_mnist_sample', (28, 28, 1), 6000, 'embedded in the package')
    """

    train: Split
    test: Split
    source: str

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.test.name

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.test.class_names

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels)."""
        height, width, channels = self.test.images.shape[1:]
        return height, width, channels
