"""Sources of labelled images: names, folders, CSV and ``.npz`` files, arrays, ``tf.data.Dataset``."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ncen_tf.base.errors import InputError
from ncen_tf.data.archives import npz_parts, read_npz
from ncen_tf.data.dataset import CLASS_NAMES, Dataset, Split, unknown_source
from ncen_tf.data.folders import list_images, read_labelled
from ncen_tf.data.sizing import Sizing

_TFDS_NAME = re.compile(r"\w+([/:][\w.-]+)*")

Read = Callable[[int | None], Split]
"""Read the first images, or all of them."""


@dataclass(frozen=True)
class Source:
    """Labelled images that can be read.

    Attributes:
        origin: Kind of source, for records.
        test: Reads the test images, or all images of a source that has no training images.
        train: Reads the training images.
    """

    origin: str
    test: Read
    train: Read | None = None


def open_source(
    source: Any, sizing: Sizing, data_dir: Path | None, archive_dir: Path | None, split: tuple[str, ...]
) -> Source:
    """Find labelled images without reading them; arguments are those of :func:`ncen_tf.load_data`.

    Raises:
        InputError: The source is unknown or not there.
    """
    if not isinstance(source, str | Path):
        return _open_arrays(source, sizing)
    name, path = str(source), Path(source)
    if name == "fashion_mnist_sample":
        return _open_sample(sizing)
    in_folder = (path / "dataset_info.json").is_file()
    if name in CLASS_NAMES or in_folder or (not path.exists() and _TFDS_NAME.fullmatch(name)):
        # tensorflow-datasets takes a second to import, and only its datasets need it.
        from ncen_tf.data import prepared, tfds_sets

        is_official = name in CLASS_NAMES and not split
        origin = prepared.ensure_prepared(name, data_dir, archive_dir) if is_official else prepared.PREPARED
        found = tfds_sets.PreparedSet(path if in_folder else name, data_dir)
        *train, test = [partial(found.read, part, sizing) for part in found.splits(split)]
        return Source(origin, test, train[0] if train else None)
    if split:
        raise InputError(f"`split` is for datasets of tensorflow-datasets, and {name} is none.")
    if not path.exists():
        raise InputError(unknown_source(name))
    if path.suffix == ".npz":
        return _open_npz(path, sizing)
    return _open_folder(path, sizing)


def test_images(data: Any) -> Split:
    """Return the test images of what a user calls data.

    Args:
        data: A split, a dataset, or a source of :func:`ncen_tf.load_data`. All images of a source without
            test images are test images.

    Raises:
        InputError: The source is unknown or cannot be read.
    """
    if isinstance(data, Split):
        return data
    if isinstance(data, Dataset):
        return data.test
    return open_source(data, Sizing(), None, None, ()).test(None)


def _open_sample(sizing: Sizing) -> Source:
    def read(part: str, limit: int | None) -> Split:
        file = resources.files("ncen_tf.data") / "fashion_mnist_sample" / "images.npz"
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            images, labels = stored[f"{part}_images"][..., np.newaxis], stored[f"{part}_labels"]
        name = "fashion_mnist_sample"
        return _sized(Split(images, labels, name, CLASS_NAMES[name]), sizing, limit)

    return Source("embedded in the package", partial(read, "test"), partial(read, "train"))


def _open_arrays(source: Any, sizing: Sizing) -> Source:
    if hasattr(source, "as_numpy_iterator"):
        return Source("tf.data", lambda limit: _sized(_read_tf_data(source), sizing, limit))
    pairs = list(source) if isinstance(source, tuple | list) else []
    if not (pairs and isinstance(pairs[0], tuple | list)):
        pairs = [pairs]
    if len(pairs) > 2 or any(len(pair) != 2 for pair in pairs):
        raise InputError(
            "Arrays of images must be a pair of images and labels, or two such pairs to train and to test on."
        )

    def read(pair: tuple[Any, Any], limit: int | None) -> Split:
        return _sized(Split(*pair), sizing, limit)

    readers = [partial(read, pair) for pair in pairs]
    return Source("arrays", readers[-1], readers[0] if len(readers) == 2 else None)


def _read_tf_data(dataset: Any) -> Split:
    """Read pairs of an image and a label, or batches of them, of a ``tf.data.Dataset``."""
    if not isinstance(dataset.element_spec, tuple) or len(dataset.element_spec) != 2:
        raise InputError("`source`: a tf.data.Dataset must give pairs of images and labels.")
    if dataset.cardinality() == -1:
        raise InputError("`source`: the tf.data.Dataset repeats without end: leave `repeat` out.")
    images, labels = [], []
    for image, label in dataset.as_numpy_iterator():
        batch = np.ndim(image) == 4
        images.append(image if batch else image[np.newaxis])
        labels.append(label if batch else np.asarray(label)[np.newaxis])
    shapes = sorted({image.shape[1:] for image in images})
    if len(shapes) != 1:
        raise InputError(
            f"`source`: the tf.data.Dataset has images of shapes {shapes[0]} and {shapes[1]}."
            if shapes
            else "`source`: the tf.data.Dataset is empty."
        )
    names = tuple(getattr(dataset, "class_names", ()))
    return Split(np.concatenate(images), np.concatenate(labels), "tf.data", names)


def _open_npz(file: Path, sizing: Sizing) -> Source:
    parts = npz_parts(file)
    readers = {part: partial(_read_npz, file, names, sizing) for part, names in parts.items()}
    origin = f"read from {file}"
    tests = [readers[part] for part in ("test", "val") if part in readers]
    if "train" in readers and tests:
        return Source(origin, tests[0], readers["train"])
    return Source(origin, next(iter(readers.values())))


def _read_npz(file: Path, names: tuple[str, str], sizing: Sizing, limit: int | None) -> Split:
    return _sized(read_npz(file, *names), sizing, limit)


def _open_folder(path: Path, sizing: Sizing) -> Source:
    tests = [path / name for name in ("test", "val") if (path / name).is_dir()]
    name, origin = path.resolve().stem, f"read from {path}"
    if path.is_dir() and (path / "train").is_dir() and tests:
        labelled, classes = list_images(path / "train")
        tested, _ = list_images(tests[0])
        return Source(
            origin,
            partial(read_labelled, tested, classes, sizing, name),
            partial(read_labelled, labelled, classes, sizing, name),
        )
    return Source(origin, partial(read_labelled, *list_images(path), sizing, name))


def _sized(split: Split, sizing: Sizing, limit: int | None) -> Split:
    images = sizing.fit_arrays(split.images[:limit])
    return Split(images, split.labels[:limit], split.name, split.class_names)
