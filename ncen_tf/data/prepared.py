"""FashionMNIST and CIFAR-10, prepared for tensorflow-datasets from archives or a download."""

import contextlib
import logging
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
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

PREPARED = "prepared by tensorflow-datasets"


def ensure_prepared(name: str, data_dir: Path | None, archive_dir: Path | None) -> str:
    """Prepare FashionMNIST or CIFAR-10 where they are not.

    Args:
        name: ``fashion_mnist`` or ``cifar10``.
        data_dir: Folder of tensorflow-datasets; its default folder if ``None``.
        archive_dir: Folder with the original archives; ``None`` looks where Debian installs them.

    Returns:
        The kind of source that it was prepared from.

    Raises:
        InputError: No source has the dataset, or an archive is not the original.
    """
    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():
        return PREPARED
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


def _prepare(name: str, data_dir: Path | None, archive_dir: Path | None) -> str:
    tfds.disable_progress_bar()
    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():  # Another process prepared it while this one waited for the lock.
        return PREPARED
    archives = _find_archives(name, archive_dir)
    if archives:
        logger.info("Preparing %s from the archives in %s", name, archives)
        _prepare_from_archives(builder, name, archives)
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
