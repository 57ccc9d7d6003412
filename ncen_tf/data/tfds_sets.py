"""Datasets of tensorflow-datasets: prepared on this machine, from archives, or from a download."""

import logging
import re
import struct
import tempfile
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.read_only_builder import builder_from_files
from tensorflow_datasets.core.registered import DatasetNotFoundError

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Images, Split, unknown_source
from ncen_tf.data.sizing import Sizing, require_memory

logger = logging.getLogger(__name__)

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
ARCHIVE_NAMES = {
    "fashion_mnist": (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ),
    "cifar10": ("cifar-10-binary.tar.gz",),
}

# Debian repacks the archives: the compressed data is the original, but the gzip header has no name and
# another time. tensorflow-datasets checks whole files, so the values of the original headers are put back.
_ORIGINAL_MTIME = {"train": 0x59A7E9DE, "t10k": 0x59A7E9F3}
_FNAME_FLAG = 0x08

PREPARED = "prepared by tensorflow-datasets"
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

    def read(self, split: str, sizing: Sizing) -> Split:
        """Read a split, such as ``train`` or ``train[:10%]``; without a size, all images must have the same.

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
            for batch in tfds.as_numpy(dataset):
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
            pixels: Any = np.concatenate(images)
            return Split(pixels, np.concatenate(labels), self.name, names)
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


def ensure_prepared(name: str, data_dir: Path | None, archive_dir: Path | None) -> str:
    """Prepare FashionMNIST or CIFAR-10 where they are not, and return the kind of source.

    Without an ``archive_dir``, the original archives are looked for where Debian installs them.

    Raises:
        InputError: No source has the dataset, or an archive is not the original.
    """
    tfds.disable_progress_bar()
    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():
        return PREPARED
    folder = Path(builder.data_path).parents[1]
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / f".{name}.lock"):  # tensorflow-datasets fails when two processes prepare
        builder = tfds.builder(name, data_dir=data_dir)
        return PREPARED if builder.is_prepared() else _prepare(builder, name, archive_dir)


def _prepare(builder: Any, name: str, archive_dir: Path | None) -> str:
    debian = [DEBIAN_FASHION_MNIST] if name == "fashion_mnist" else []
    for folder in [archive_dir] if archive_dir else debian:
        if all((folder / file).is_file() for file in ARCHIVE_NAMES[name]):
            logger.info("Preparing %s from the archives in %s", name, folder)
            _prepare_from_archives(builder, name, folder)
            return "official archives"
    logger.info("Downloading %s", name)
    try:
        # tensorflow-datasets retries for minutes; one plain request tells whether there is a network.
        requests.head(next(iter(builder.url_infos)), timeout=20)
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=config)
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        looked = f"none in {archive_dir}" if archive_dir else "none found"
        raise InputError(
            f"{name} is not available: point `data_dir` to a folder of tensorflow-datasets that holds it "
            f"(looked in {builder.data_path}), or `archive_dir` to a folder with "
            f"{', '.join(ARCHIVE_NAMES[name])} ({looked}), or connect this machine to the network for "
            f"the download ({type(error).__name__})."
        ) from error
    return "downloaded by tensorflow-datasets"


def _prepare_from_archives(builder: Any, name: str, folder: Path) -> None:
    """Prepare a dataset from local archives, without a network."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as staging:
        for file in ARCHIVE_NAMES[name]:
            content = (folder / file).read_bytes()
            if name == "fashion_mnist":
                content = with_original_gzip_header(file, content)
            (Path(staging) / file).write_bytes(content)
        config = tfds.download.DownloadConfig(
            manual_dir=staging, force_checksums_validation=True, try_download_gcs=False
        )
        try:
            builder.download_and_prepare(download_dir=Path(staging) / "downloads", download_config=config)
        except NonMatchingChecksumError as error:
            raise InputError(f"An archive in {folder} is not the official one of {name}: {error}") from error


def with_original_gzip_header(file: str, content: bytes) -> bytes:
    """Put name and time back into a gzip header without them; return other content unchanged."""
    if content[:4] != b"\x1f\x8b\x08\x00":
        return content
    mtime = struct.pack("<I", _ORIGINAL_MTIME[file.split("-")[0]])
    name = file.removesuffix(".gz").encode() + b"\0"
    return content[:3] + bytes([_FNAME_FLAG]) + mtime + content[8:10] + name + content[10:]
