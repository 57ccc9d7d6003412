"""Image classification datasets that tensorflow-datasets has prepared on this machine."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import builder_from_files
from tensorflow_datasets.core.registered import DatasetNotFoundError

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Images, Split, unknown_source
from ncen_tf.data.memory import require_memory
from ncen_tf.data.sizing import Sizing

logger = logging.getLogger(__name__)

_TESTS = ("test", "validation", "val")
_BATCH = 256


class PreparedSet:
    """A prepared dataset of images that belong to one of several classes.

    Args:
        name: ``name``, ``name/config`` or ``name/config:version``; or the folder with its files.
        data_dir: Folder of tensorflow-datasets; its default folder if ``None``.

    Raises:
        InputError: It is not prepared, or has no images with classes.
    """

    def __init__(self, name: str | Path, data_dir: Path | None) -> None:
        tfds.disable_progress_bar()
        try:
            if isinstance(name, Path):
                self.builder = tfds.builder_from_directory(name)
            else:
                self.builder = builder_from_files(name, data_dir=data_dir)
        except DatasetNotFoundError:
            if re.split("[/:]", str(name))[0] not in tfds.list_builders(with_community_datasets=False):
                raise InputError(unknown_source(name)) from None
            where = f" --data_dir {data_dir}" if data_dir else ""
            raise InputError(
                f"{name} is not prepared in {data_dir or 'the default `data_dir`'}: on a machine with a "
                f'network, run "tfds build {name}{where}" once.'
            ) from None
        self.name = self.builder.info.full_name.rsplit("/", 1)[0]
        self.image, self.label = _keys(self.name, self.builder.info)
        logger.info("Reading %s from %s", self.name, self.builder.data_path)

    def splits(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Name the split of all images, or those to train and to test on.

        Raises:
            InputError: One of ``chosen`` is not there, or there are more than two.
        """
        known = [name for name, split in self.builder.info.splits.items() if split.num_examples]
        if len(chosen) > 2:
            raise InputError(f"`split` must be one or two (to train and test on), got {','.join(chosen)}.")
        for one in chosen:
            try:
                self.builder.info.splits[one]
            except Exception as error:  # tensorflow-datasets has no common class of errors.
                raise InputError(f"`split`: {self.name} has {', '.join(known)}, got {one!r}.") from error
        tests = [name for name in _TESTS if name in known]
        return chosen or (("train", tests[0]) if "train" in known and tests else tuple(known[:1]))

    def read(self, split: str, sizing: Sizing, limit: int | None = None) -> Split:
        """Read a split.

        Args:
            split: Its name, or an expression such as ``train[:10%]``.
            sizing: The size that images are brought to; without one, all must have the same.
            limit: Number of images; ``None`` for all.

        Raises:
            InputError: Files are damaged, sizes differ, the memory is too small, or these are no images.
        """
        features = self.builder.info.features
        fixed = None not in features[self.image].shape
        try:
            dataset = self.builder.as_dataset(
                split=split,
                shuffle_files=False,
                decoders=tfds.decode.PartialDecoding({self.image: True, self.label: True}),
            ).batch(_BATCH if fixed else 1)
            images: list[Images] = []
            labels = []
            for batch in tfds.as_numpy(dataset.take(limit or -1)):
                images.append(sizing.fit_arrays(batch[self.image]))
                labels.append(batch[self.label])
                shape = images[-1].shape[1:]
                if len(images) == 1:
                    count = self.builder.info.splits[split].num_examples
                    require_memory(count, shape, images[0].itemsize)
                elif shape != images[0].shape[1:]:
                    raise InputError(
                        f"{self.name} has images of different shapes ({images[0].shape[1:]}, {shape}): set "
                        "`image_size`."
                    )
            names = tuple(features[self.label].names)
            pixels: Any = np.concatenate(images)[:limit]
            return Split(pixels, np.concatenate(labels)[:limit], self.name, names)
        except (InputError, OSError, ImportError, MemoryError):
            raise
        except Exception as error:  # tensorflow-datasets has no common class of errors for damaged files.
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise InputError(
                f"{self.name} in {self.builder.data_path} is damaged ({what}): remove this folder and "
                "prepare it again."
            ) from error


def _keys(name: str, info: Any) -> tuple[str, str]:
    """Find the names of image and class among the features."""
    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    usual = info.supervised_keys or ("image", "label")
    images = [key for key in images if key == usual[0]] or images
    labels = [key for key in labels if key == usual[1]] or labels
    if len(images) != 1 or len(labels) != 1:
        raise InputError(
            f"{name} is no dataset of images with a class: it has {', '.join(features) or 'no features'}."
        )
    return images[0], labels[0]
