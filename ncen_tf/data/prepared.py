"""Datasets of tensorflow-datasets: read where prepared, otherwise prepared from archives or a download."""

import contextlib
import logging
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from ncen_tf.base.errors import InputError

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

Arrays = dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]]


def read_prepared(
    name: str, image_shape: tuple[int, int, int], data_dir: Path | None, archive_dir: Path | None
) -> tuple[Arrays, str]:
    """Read a dataset of tensorflow-datasets, preparing it first if needed.

    Args:
        name: ``fashion_mnist`` or ``cifar10``.
        image_shape: (height, width, channels) that its images must have.
        data_dir: Folder of tensorflow-datasets; its default folder if ``None``.
        archive_dir: Folder with the original archives; ``None`` looks where Debian installs them.

    Returns:
        Images uint8 [N, H, W, C] and labels int32 [N] of the splits ``train`` and ``test``, and the kind of
        source they came from.

    Raises:
        InputError: No source has the dataset, an archive is not the original, or what is prepared is damaged.
    """
    try:
        builder, source = _prepared_builder(name, data_dir, archive_dir)
        return {split: _read_split(builder, split, image_shape) for split in ("train", "test")}, source
    except (InputError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # tensorflow-datasets has no common class of errors for damaged files.
        what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(
            f"{name} in {data_dir or 'the default `data_dir`'} is damaged ({what}): remove its folder there, "
            "so that it is prepared again."
        ) from error


def _read_split(
    builder: Any, split: str, image_shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    arrays = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, shuffle_files=False))
    images, labels = arrays["image"], arrays["label"].astype(np.int32)
    if images.dtype != np.uint8 or images.shape != (len(labels), *image_shape) or not len(labels):
        raise ValueError(f"images of shape {images.shape}")
    if labels.min() < 0 or labels.max() >= builder.info.features["label"].num_classes:
        raise ValueError("labels of no class")
    return images, labels


def _prepared_builder(name: str, data_dir: Path | None, archive_dir: Path | None) -> tuple[Any, str]:
    tfds.disable_progress_bar()
    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():
        logger.info("Reading %s from %s", name, builder.data_path)
        return builder, "prepared by tensorflow-datasets"
    with _lock(Path(builder.data_path).parents[1], name):
        return _prepare(name, data_dir, archive_dir)


@contextlib.contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process prepares this dataset, because tensorflow-datasets fails when two do."""
    lock = filelock.FileLock(folder / f".{name}.lock")
    # A folder that cannot be written fails later, with the reason; some file systems have no locks.
    with contextlib.suppress(OSError, NotImplementedError):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _prepare(name: str, data_dir: Path | None, archive_dir: Path | None) -> tuple[Any, str]:
    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():  # Another process prepared it while this one waited for the lock.
        return builder, "prepared by tensorflow-datasets"
    archives = _find_archives(name, archive_dir)
    if archives:
        logger.info("Preparing %s from the archives in %s", name, archives)
        _prepare_from_archives(builder, name, archives)
        return builder, "official archives"
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
    return builder, "downloaded by tensorflow-datasets"


def _find_archives(name: str, archive_dir: Path | None) -> Path | None:
    """Return ``archive_dir``, or Debian's folder for FashionMNIST, if it holds every archive."""
    debian = [DEBIAN_FASHION_MNIST] if name == "fashion_mnist" else []
    for folder in [archive_dir] if archive_dir else debian:
        if all((folder / file).is_file() for file in ARCHIVE_NAMES[name]):
            return folder
    return None


def _prepare_from_archives(builder: Any, name: str, folder: Path) -> None:
    """Prepare a dataset from local archives, without a network.

    Raises:
        InputError: An archive is not the original.
    """
    with tempfile.TemporaryDirectory() as staging:
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
