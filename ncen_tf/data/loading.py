"""Where a dataset's images come from, and class-balanced parts of them."""

import dataclasses
import logging
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ncen_tf.data.datasets import DATASETS, DatasetSpec
from ncen_tf.data.preparation import DataUnavailableError, prepared_builder
from ncen_tf.base.errors import InputError

logger = logging.getLogger(__name__)

EMBEDDED = "fashion_mnist_sample"


@dataclasses.dataclass(frozen=True)
class Split:
    """Images uint8 [N, H, W, C] and labels int32 [N]."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def balanced_prefix(self, examples: int, classes: int) -> "Split":
        """The first ``examples / classes`` images of every class, in the split's order.

        Raises:
            InputError: not a positive multiple of ``classes``, or more than some class has.
        """
        per_class = images_per_class(examples, classes)
        fewest = np.bincount(self.labels, minlength=classes).min()
        if per_class > fewest:
            raise InputError(
                f"{examples} class-balanced examples were asked for; there are at most {fewest * classes}."
            )
        chosen = [np.flatnonzero(self.labels == label)[:per_class] for label in range(classes)]
        indices = np.sort(np.concatenate(chosen))
        return Split(self.images[indices], self.labels[indices])


def images_per_class(examples: int, classes: int) -> int:
    """How many of each class a class-balanced part has.

    Raises:
        InputError: ``examples`` is not a positive multiple of ``classes``.
    """
    per_class, rest = divmod(examples, classes)
    if per_class < 1 or rest:
        raise InputError(
            f"A class-balanced part has a positive multiple of {classes} examples; got {examples}."
        )
    return per_class


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset in memory and the kind of source it was read from; where that lies is only logged."""

    spec: DatasetSpec
    train: Split
    test: Split
    source: str


def load_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    archive_dir: Path | None = None,
    train_examples: int | None = None,
    test_examples: int | None = None,
) -> Dataset:
    """Read a dataset from the first source that has it and log which one that was.

    Sources, in order: prepared by tensorflow-datasets in ``data_dir``; local archives, checked
    against tensorflow-datasets' own checksums and prepared once; tensorflow-datasets' download.
    ``fashion_mnist_sample`` comes with the package.

    Args:
        name: a key of :data:`DATASETS`.
        data_dir: tensorflow-datasets' folder; ``None`` for its default.
        archive_dir: folder with the archives as their authors publish them; for FashionMNIST, Debian's
            package is found without it.
        train_examples: keep a class-balanced prefix of this size; ``None`` keeps all.
        test_examples: the same for the test split.

    Raises:
        DataUnavailableError: no source works.
        InputError: an unknown name, a wrong archive, or an impossible number of examples.
    """
    if name not in DATASETS:
        raise InputError(f"Unknown dataset {name!r}; known: {', '.join(DATASETS)}.")
    spec = DATASETS[name]
    if name == EMBEDDED:
        train, test, source = *_read_embedded(), "embedded in the package"
    else:
        try:
            builder, source = prepared_builder(name, data_dir, archive_dir)
            train, test = (_read_split(builder, spec, split) for split in ("train", "test"))
        except (InputError, OSError, ImportError, MemoryError):
            raise
        except Exception as error:  # tensorflow-datasets has no common class for what damage leads to
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise DataUnavailableError(
                f"{name} in {data_dir or 'the default --data_dir'} is damaged ({what}): "
                "remove its folder there, so that it is prepared anew."
            ) from error
    classes = len(spec.class_names)
    if train_examples is not None:
        train = train.balanced_prefix(train_examples, classes)
    if test_examples is not None:
        test = test.balanced_prefix(test_examples, classes)
    logger.info("%s: %d + %d images, %s", name, len(train), len(test), source)
    return Dataset(spec, train, test, source)


def _read_embedded() -> tuple[Split, Split]:
    file = resources.files("ncen_tf.data") / EMBEDDED / "images.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        splits = [
            Split(arrays[f"{split}_images"][..., np.newaxis], arrays[f"{split}_labels"].astype("i4"))
            for split in ("train", "test")
        ]
    return splits[0], splits[1]


def _read_split(builder: Any, spec: DatasetSpec, split: str) -> Split:
    import tensorflow_datasets as tfds

    arrays = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
    images, labels = arrays["image"], arrays["label"].astype(np.int32)
    if images.dtype != np.uint8 or images.shape != (len(labels), *spec.image_shape) or not len(labels):
        raise ValueError(f"images of shape {images.shape}")
    if labels.min() < 0 or labels.max() >= len(spec.class_names):
        raise ValueError("labels of no class")
    return Split(images, labels)
