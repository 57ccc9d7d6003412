"""Sources of labelled images: names, folders, CSV and ``.npz`` files, arrays, ``tf.data.Dataset``."""

import re
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import CLASS_NAMES, Dataset, Split, unknown_source
from ncen_tf.data.folders import list_images, read_labelled
from ncen_tf.data.sizing import Sizing
from ncen_tf.untrusted.zip import check_zip, read_npz

_TFDS_NAME = re.compile(r"\w+([/:][\w.-]+)*")
_NPZ_WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"))
_NPZ_PARTS = (("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("images_{}", "labels_{}"), ("X_{}", "y_{}"))

Read = Callable[[], Split]


class Source(NamedTuple):
    """Labelled images that can be read."""

    origin: str
    """Kind of source, for records."""
    test: Read
    """Reads the test images, or all images of a source that has no training images."""
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
        from ncen_tf.data import tfds_sets

        is_official = name in CLASS_NAMES and not split
        origin = tfds_sets.ensure_prepared(name, data_dir, archive_dir) if is_official else tfds_sets.PREPARED
        found = tfds_sets.PreparedSet(path if in_folder else name, data_dir)
        *train, test = [partial(found.read, part, sizing) for part in found.splits(split)]
        return Source(origin, test, train[0] if train else None)
    if split:
        raise InputError(f"`split` is for datasets of tensorflow-datasets, and {name} is none.")
    if not path.exists():
        raise InputError(unknown_source(name))
    return (_open_npz if path.suffix == ".npz" else _open_folder)(path, sizing)


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
    return open_source(data, Sizing(), None, None, ()).test()


def _open_sample(sizing: Sizing) -> Source:
    def read(part: str) -> Split:
        file = resources.files("ncen_tf.data") / "fashion_mnist_sample" / "images.npz"
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            images, labels = stored[f"{part}_images"][..., np.newaxis], stored[f"{part}_labels"]
        return _sized(sizing, images, labels, "fashion_mnist_sample", CLASS_NAMES["fashion_mnist_sample"])

    return Source("embedded in the package", partial(read, "test"), partial(read, "train"))


def _open_arrays(source: Any, sizing: Sizing) -> Source:
    if hasattr(source, "as_numpy_iterator"):
        return Source("tf.data", lambda: _read_tf_data(source, sizing))
    pairs = list(source) if isinstance(source, tuple | list) else []
    if not (pairs and isinstance(pairs[0], tuple | list)):
        pairs = [pairs]
    if len(pairs) > 2 or any(len(pair) != 2 for pair in pairs):
        raise InputError(
            "Arrays of images must be a pair of images and labels, or two such pairs to train and to test on."
        )
    *train, test = [partial(_sized, sizing, *pair) for pair in pairs]
    return Source("arrays", test, train[0] if train else None)


def _read_tf_data(dataset: Any, sizing: Sizing) -> Split:
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
    if not shapes:
        raise InputError("`source`: the tf.data.Dataset is empty.")
    if len(shapes) > 1:
        raise InputError(f"`source`: the tf.data.Dataset has images of shapes {shapes[0]} and {shapes[1]}.")
    names = tuple(getattr(dataset, "class_names", ()))
    return _sized(sizing, np.concatenate(images), np.concatenate(labels), "tf.data", names)


def _open_npz(file: Path, sizing: Sizing) -> Source:
    """Find the arrays of images and labels in a file: those to train and to test on, or all of them."""
    stored = [name.removesuffix(".npy") for name in check_zip(file)]
    known = {
        part: [(images.format(part), labels.format(part)) for images, labels in _NPZ_PARTS]
        for part in ("train", "test", "val")
    }
    found = {
        part: partial(_read_npz, file, sizing, "class_names" in stored, *pair)
        for part, pairs in (known | {"all": [*_NPZ_WHOLE]}).items()
        for pair in reversed(pairs)
        if {*pair} <= {*stored}
    }
    if not found:
        raise InputError(
            f"{file} has no arrays images and labels, or x_train, y_train, x_test and y_test; it has "
            f"{', '.join(stored) or 'none'}."
        )
    origin, test = f"read from {file}", found.get("test", found.get("val"))
    if "train" in found and test:
        return Source(origin, test, found["train"])
    return Source(origin, next(iter(found.values())))


def _read_npz(file: Path, sizing: Sizing, has_names: bool, images: str, labels: str) -> Split:
    arrays = read_npz(file, {images, labels, "class_names"} if has_names else {images, labels})
    names = tuple(map(str, arrays.get("class_names", ())))
    return _sized(sizing, arrays[images], arrays[labels], file.stem, names)


def _open_folder(path: Path, sizing: Sizing) -> Source:
    tests = [path / name for name in ("test", "val") if (path / name).is_dir()]
    name, origin = path.resolve().stem, f"read from {path}"
    if (path / "train").is_dir() and tests:
        labelled, classes = list_images(path / "train")
        tested, _ = list_images(tests[0])
        test, train = (partial(read_labelled, part, classes, sizing, name) for part in (tested, labelled))
        return Source(origin, test, train)
    return Source(origin, partial(read_labelled, *list_images(path), sizing, name))


def _sized(
    sizing: Sizing, images: Any, labels: Any, name: str = "arrays", class_names: tuple[str, ...] = ()
) -> Split:
    split = Split(images, labels, name, class_names)
    return Split(sizing.fit_arrays(split.images), split.labels, split.name, split.class_names)
