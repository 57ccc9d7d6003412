"""Datasets in memory, read from a name, files or arrays."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Dataset, Split
from ncen_tf.data.folders import read_classes
from ncen_tf.data.sizing import Resize, Sizing
from ncen_tf.data.sources import open_source

logger = logging.getLogger(__name__)

TEST_FRACTION = 0.2


def load_data(
    source: Any,
    *,
    data_dir: Path | str | None = None,
    archive_dir: Path | str | None = None,
    split: tuple[str, ...] = (),
    image_size: tuple[int, ...] = (),
    resize: Resize = "antialias",
    crop_fraction: float = 1.0,
    classes: Path | str | None = None,
    test_fraction: float | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """Read a dataset into memory and log where it came from.

    FashionMNIST and CIFAR-10 are looked for in this order: prepared by tensorflow-datasets in ``data_dir``;
    the original archives in ``archive_dir``, which are checked against the checksums of tensorflow-datasets
    and prepared once; the download of tensorflow-datasets. Its other datasets must be prepared.

    Args:
        source: ``fashion_mnist``, ``cifar10``, or another image classification dataset of tensorflow-datasets
            (``cifar100``, ``name/config``, or the folder with its files); ``fashion_mnist_sample``, the first
            6,000 training and 1,000 test images of FashionMNIST, class-balanced. Or images of your own: a
            folder of class folders, a folder with ``train`` and ``test`` (or ``val``) folders of those, a
            folder with ``labels.csv``, the path of such a file, an ``.npz`` file, a pair of arrays of images
            and labels, two such pairs to train and test on, or a ``tf.data.Dataset`` of images and labels.
        data_dir: Folder of tensorflow-datasets; its default folder if ``None``.
        archive_dir: Folder with the archives as their authors publish them. Those of Debian's package
            ``dataset-fashion-mnist`` are found without it.
        split: Splits of tensorflow-datasets, such as ``("train[:80%]", "train[80%:]")`` to train and test on,
            or one that is divided by ``test_fraction``; by default ``train``, and ``test`` or ``validation``.
        image_size: (height, width), or one number for both, that images are resized and cut to.
        resize: Interpolation. ``antialias`` is bilinear with antialiasing, and ``bicubic`` has it too, as in
            PIL and torchvision; ``bilinear`` has none, as in tf.image.resize and OpenCV.
        crop_fraction: Share of height and width that is kept at the centre; 0.875 is 224 of 256 pixels.
        classes: File with the name of a class in each line, in the order of a model's outputs; by default the
            classes of files are in alphabetical order, or in numeric order if all are numbers.
        test_fraction: Share of each class that is held out as test images, in (0, 1], where the source has no
            test images of its own; 0.2 by default. With 1, all images are test images.
        train_examples: Keep the first images of each class, this many in all; ``None`` keeps all images.
        test_examples: The same for the test split.

    Raises:
        InputError: The source is unknown or cannot be read, an archive is not the original, or there are too
            few images.

    Examples:
        >>> import ncen_tf
        >>> data = ncen_tf.load_data("fashion_mnist_sample", test_examples=200)
        >>> data.test.images.shape, data.class_names[:2]
        ((200, 28, 28, 1), ('T-shirt/top', 'Trouser'))
        >>> own = ncen_tf.load_data((data.test.images, data.test.labels))
        >>> len(own.train), len(own.test)
        (160, 40)
    """
    opened = open_source(
        source,
        Sizing(image_size=image_size, resize=resize, crop_fraction=crop_fraction),
        Path(data_dir) if data_dir else None,
        Path(archive_dir) if archive_dir else None,
        split,
    )
    named = read_classes(Path(classes)) if classes else None
    origin, test = opened.origin, opened.test()
    if opened.train is None:
        fraction = TEST_FRACTION if test_fraction is None else test_fraction
        train, test = hold_out(_with_classes(test, named or test.class_names), fraction)
        origin = f"{origin}, {fraction:.0%} of each class held out for testing"
    else:
        if test_fraction is not None:
            raise InputError(f"{test.name} has test images of its own: leave `test_fraction` out.")
        train = opened.train()
        class_names = named or max(train.class_names, test.class_names, key=len)
        train, test = (_with_classes(part, class_names) for part in (train, test))
        if train.images.shape[1:] != test.images.shape[1:]:
            raise InputError(
                f"{test.name} has training images of shape {train.images.shape[1:]} and test images of shape "
                f"{test.images.shape[1:]}: set `image_size`, and use one kind of images, grey or colour."
            )
    if train_examples is not None:
        train = train.sample(train_examples)
    if test_examples is not None:
        test = test.sample(test_examples)
    counts = len(train), len(test), len(test.class_names)
    logger.info("%s: %d + %d images of %d classes, %s", test.name, *counts, origin)
    return Dataset(train, test, origin)


def hold_out(split: Split, test_fraction: float) -> tuple[Split, Split]:
    """Divide images into training and test images, at random with a fixed seed, class by class.

    At least one image of each class is for testing.

    Raises:
        InputError: ``test_fraction`` is not in (0, 1], or below 1 and no image is left to train on.
    """
    if not 0 < test_fraction <= 1:
        raise InputError(f"`test_fraction` must be above 0 and at most 1, got {test_fraction}.")
    tested = np.zeros(len(split), bool)
    rng = np.random.default_rng(0)
    for label in range(len(split.class_names)):
        rows = rng.permutation(np.flatnonzero(split.labels == label))
        tested[rows[: max(1, round(test_fraction * len(rows)))]] = True
    if test_fraction < 1 and tested.all():
        raise InputError(
            f"{split.name} has too few images to hold some of them out for testing, {len(split)} of "
            f"{len(split.class_names)} classes: give two or more of each class, or set `test_fraction` to 1 "
            "to test on all of them."
        )
    return split[np.flatnonzero(~tested)], split[np.flatnonzero(tested)]


def _with_classes(split: Split, class_names: tuple[str, ...]) -> Split:
    """Number the classes as ``class_names`` does; names of classes that are only numbers are replaced."""
    if not len(split):
        raise InputError(f"{split.name} has no images.")
    if len(class_names) < 2:
        raise InputError(
            f"{split.name} has images of one class only, {class_names[0]!r}: a classifier needs two."
        )
    old = split.class_names
    if old == class_names:
        return split
    if old == tuple(map(str, range(len(old)))) and not set(old) & set(class_names):
        return Split(split.images, split.labels, split.name, class_names)
    used = set(split.labels.tolist())
    unknown = [name for number, name in enumerate(old) if number in used and name not in class_names]
    if unknown:
        raise InputError(f"{split.name} has images of {unknown[0]!r}, which `classes` does not name.")
    numbers = np.array([class_names.index(name) if name in class_names else -1 for name in old])
    return Split(split.images, numbers[split.labels], split.name, class_names)


class SourceSettings(Sizing):
    """What decides the images that a program reads."""

    dataset: str = Field(
        default="fashion_mnist",
        description="Name of a dataset of tensorflow-datasets (fashion_mnist, cifar10, cifar100, ...), or "
        "path of a folder of class folders, a CSV of names and labels, or an .npz file",
    )
    split: tuple[str, ...] = Field(
        default=(),
        description="Splits of tensorflow-datasets to train and test on, or one (default: train, and test or "
        "validation)",
    )
    classes: Path | None = Field(
        default=None, description="File of class names, one a line, in the order of the model's outputs"
    )
    test_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of images without test images of their own that is held out for testing (default: "
        "0.2 to train, all to attack)",
    )

    def source_arguments(self) -> dict[str, Any]:
        """Return these settings as arguments of :func:`load_data`."""
        names = SourceSettings.model_fields.keys() - {"dataset"}
        return {"source": self.dataset} | {name: getattr(self, name) for name in names}


class DataFlags(SourceSettings):
    """Settings of every program that reads a dataset."""

    data_dir: Path | None = Field(
        default=None, description="Folder of tensorflow-datasets (default: its own)"
    )
    archive_dir: Path | None = Field(
        default=None, description="Folder with the original archives of the dataset"
    )

    def load(self, train_examples: int | None = None, test_examples: int | None = None) -> Dataset:
        """Read the dataset with :func:`load_data`."""
        return load_data(
            **self.source_arguments(),
            data_dir=self.data_dir,
            archive_dir=self.archive_dir,
            train_examples=train_examples,
            test_examples=test_examples,
        )

    def load_test(self, examples: int | None = None) -> Split:
        """Read the test images; all images of a source without them, unless ``test_fraction`` is given."""
        if self.test_fraction is not None:
            return self.load(test_examples=examples).test
        test = open_source(self.dataset, self, self.data_dir, self.archive_dir, self.split).test()
        test = _with_classes(test, read_classes(self.classes) if self.classes else test.class_names)
        return test if examples is None else test.sample(examples)
