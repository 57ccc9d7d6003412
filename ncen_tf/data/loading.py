"""Datasets by name, from a folder, a CSV, an ``.npz`` file or arrays."""

import logging
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings
from ncen_tf.data.archives import read_npz
from ncen_tf.data.dataset import CLASS_NAMES, IMAGE_SHAPES, Dataset, Split
from ncen_tf.data.folders import read_classes, read_folder

logger = logging.getLogger(__name__)

TEST_FRACTION = 0.2
_TESTS = ("test", "val")


def load_data(
    source: str | Path | tuple[npt.NDArray[Any], npt.NDArray[Any]],
    *,
    data_dir: Path | str | None = None,
    archive_dir: Path | str | None = None,
    image_size: tuple[int, ...] = (),
    classes: Path | str | None = None,
    test_fraction: float | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """Read a dataset into memory and log where it came from.

    FashionMNIST and CIFAR-10 are looked for in this order: prepared by tensorflow-datasets in ``data_dir``;
    the original archives in ``archive_dir``, which are checked against the checksums of tensorflow-datasets
    and prepared once; the download of tensorflow-datasets. ``fashion_mnist_sample`` is part of this package.

    Args:
        source: ``fashion_mnist``, ``cifar10``, or ``fashion_mnist_sample``: the first 6,000 training and
            1,000 test images of FashionMNIST, class-balanced. Or images of your own: a folder of class
            folders, a folder with ``train`` and ``test`` (or ``val``) folders of those, a folder with
            ``labels.csv``, the path of such a file, an ``.npz`` file with ``images`` and ``labels``, or a
            pair of such arrays.
        data_dir: Folder of tensorflow-datasets; its default folder if ``None``.
        archive_dir: Folder with the archives as their authors publish them. Those of Debian's package
            ``dataset-fashion-mnist`` are found without it.
        image_size: (height, width), or one number for both, that image files are resized and cut to.
        classes: File with the name of a class in each line, in the order of a model's outputs; by default the
            classes of files are in alphabetical order.
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
    if isinstance(source, str) and source in CLASS_NAMES:
        if image_size or classes or test_fraction is not None:
            raise InputError(
                f"`image_size`, `classes` and `test_fraction` are for images of your own, not for {source}."
            )
        train, test, origin = _read_named(source, data_dir, archive_dir)
    else:
        train, test, origin = _read_own(source, image_size, classes, test_fraction)
    if train_examples is not None:
        train = train.sample(train_examples)
    if test_examples is not None:
        test = test.sample(test_examples)
    logger.info(
        "%s: %d + %d images of %d classes, %s",
        test.name,
        len(train),
        len(test),
        len(test.class_names),
        origin,
    )
    height, width, channels = test.images.shape[1:]
    return Dataset(test.name, test.class_names, (height, width, channels), train, test, origin)


def hold_out(split: Split, test_fraction: float) -> tuple[Split, Split]:
    """Divide images into training and test images, at random with a fixed seed, class by class.

    Args:
        split: The images.
        test_fraction: Share of each class that is tested, in (0, 1]; at least one image of each class.

    Raises:
        InputError: ``test_fraction`` is out of range.
    """
    if not 0 < test_fraction <= 1:
        raise InputError(f"`test_fraction` must be above 0 and at most 1, got {test_fraction}.")
    tested = np.zeros(len(split), bool)
    rng = np.random.default_rng(0)
    for label in range(len(split.class_names)):
        rows = rng.permutation(np.flatnonzero(split.labels == label))
        tested[rows[: max(1, round(test_fraction * len(rows)))]] = True
    return split[np.flatnonzero(~tested)], split[np.flatnonzero(tested)]


def _read_own(
    source: str | Path | tuple[npt.NDArray[Any], npt.NDArray[Any]],
    image_size: tuple[int, ...],
    classes: Path | str | None,
    test_fraction: float | None,
) -> tuple[Split, Split, str]:
    names = read_classes(Path(classes)) if classes else None
    size = _two_numbers(image_size)
    whole: Split | None = None
    if isinstance(source, tuple):
        whole, origin = Split(*source, class_names=names or ()), "arrays"
    else:
        path = Path(source)
        if not path.exists():
            raise InputError(
                f"`dataset` must be one of {', '.join(CLASS_NAMES)}, a folder of images, a CSV or an .npz "
                f"file; {str(source)!r} is none and does not exist."
            )
        origin = f"read from {path}"
        tests = [path / name for name in _TESTS if (path / name).is_dir()]
        if path.is_dir() and (path / "train").is_dir() and tests:
            train = read_folder(path / "train", size, names)
            test = read_folder(tests[0], size, names or train.class_names)
            if train.images.shape[1:] != test.images.shape[1:]:
                raise InputError(
                    f"{path / 'train'} has images of shape {train.images.shape[1:]}, {tests[0]} of "
                    f"{test.images.shape[1:]}: set `image_size`, and use one kind of images, grey or colour."
                )
            if test_fraction is not None:
                raise InputError(f"{path} has test images of its own: leave `test_fraction` out.")
            name = path.resolve().name
            return (
                Split(train.images, train.labels, name, train.class_names),
                Split(test.images, test.labels, name, train.class_names),
                origin,
            )
        if path.suffix == ".npz":
            if size:
                raise InputError("`image_size` is for image files, not for an .npz file.")
            whole = read_npz(path, names)
        else:
            whole = read_folder(path, size, names)
    if len(whole.class_names) < 2:
        raise InputError(f"{origin} has images of one class only: a classifier needs two.")
    fraction = TEST_FRACTION if test_fraction is None else test_fraction
    return *hold_out(whole, fraction), f"{origin}, {fraction:.0%} of each class held out for testing"


def _read_named(
    name: str, data_dir: Path | str | None, archive_dir: Path | str | None
) -> tuple[Split, Split, str]:
    if name == "fashion_mnist_sample":
        file = resources.files("ncen_tf.data") / name / "images.npz"
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {
                split: (stored[f"{split}_images"][..., np.newaxis], stored[f"{split}_labels"])
                for split in ("train", "test")
            }
        origin = "embedded in the package"
    else:
        # tensorflow-datasets takes a second to import, and only these datasets need it.
        from ncen_tf.data.prepared import read_prepared

        arrays, origin = read_prepared(
            name,
            IMAGE_SHAPES[name],
            Path(data_dir) if data_dir else None,
            Path(archive_dir) if archive_dir else None,
        )
    train, test = (Split(*arrays[split], name, CLASS_NAMES[name]) for split in ("train", "test"))
    return train, test, origin


def _two_numbers(image_size: tuple[int, ...]) -> tuple[int, int] | None:
    if not image_size:
        return None
    if len(image_size) > 2 or min(image_size) < 1:
        raise InputError(f"`image_size` must be one or two numbers above 0, got {list(image_size)}.")
    return image_size[0], image_size[-1]


class SourceSettings(Settings):
    """What decides the images that a program reads."""

    dataset: str = Field(
        default="fashion_mnist",
        description="Name of the dataset (fashion_mnist, fashion_mnist_sample, cifar10), or path of a folder "
        "of class folders, a CSV of names and labels, or an .npz file",
    )
    image_size: tuple[int, ...] = Field(
        default=(), description="Height and width, or one number for both, that image files are brought to"
    )
    classes: Path | None = Field(
        default=None, description="File of class names, one a line, in the order of the model's outputs"
    )
    test_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Share of your own images held out for testing (default: 0.2 to train, all to attack)",
    )

    def source_arguments(self) -> dict[str, Any]:
        """Return these settings as arguments of :func:`load_data`."""
        names = ("image_size", "classes", "test_fraction")
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
        own = self.dataset not in CLASS_NAMES and not (Path(self.dataset) / "train").is_dir()
        if own and self.test_fraction is None:
            return self.model_copy(update={"test_fraction": 1.0}).load(test_examples=examples).test
        return self.load(test_examples=examples).test
