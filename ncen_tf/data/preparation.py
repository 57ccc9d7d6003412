"""Datasets of tensorflow-datasets: prepared ones found, others made from archives or a download."""

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ncen_tf.data.archives import ARCHIVE_NAMES, find_archives, prepare_from_archives
from ncen_tf.base.errors import InputError

logger = logging.getLogger(__name__)


class DataUnavailableError(InputError):
    """No source of a dataset works; the message names what the user can do."""


def prepared_builder(name: str, data_dir: Path | None, archive_dir: Path | None) -> tuple[Any, str]:
    """A builder of tensorflow-datasets whose data are there, and where these came from.

    Args:
        name: ``fashion_mnist`` or ``cifar10``.
        data_dir: where tfds keeps prepared datasets; ``None`` for its default.
        archive_dir: where to look for the official archives; ``None`` for where Debian has them.

    Raises:
        DataUnavailableError: no source works.
        InputError: an archive is not the official one.
    """
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():
        logger.info("Reading %s from %s", name, builder.data_path)
        return builder, "prepared by tensorflow-datasets"
    with _sole_preparer(Path(builder.data_path).parents[1], name):
        # Once more: another process may have prepared it meanwhile.
        return _prepare(name, data_dir, archive_dir)


@contextlib.contextmanager
def _sole_preparer(folder: Path, name: str) -> Iterator[None]:
    """Wait until no other process prepares this dataset: tfds fails when two do."""
    with contextlib.ExitStack() as stack:
        # A folder that cannot be written cannot be prepared in either; some file systems have no locks.
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context((folder / f".{name}.lock").open("a")), fcntl.LOCK_EX)
        yield


def _prepare(name: str, data_dir: Path | None, archive_dir: Path | None) -> tuple[Any, str]:
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    builder = tfds.builder(name, data_dir=data_dir)
    if builder.is_prepared():
        return builder, "prepared by tensorflow-datasets"
    archives = find_archives(name, archive_dir)
    if archives:
        logger.info("Preparing %s from the archives in %s", name, archives)
        prepare_from_archives(name, archives, data_dir)
        return tfds.builder(name, data_dir=data_dir), "official archives"
    logger.info("Downloading %s", name)
    try:
        # tfds retries for minutes; one plain request tells at once whether there is a network.
        requests.head(next(iter(builder.url_infos)), timeout=20)
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=config)
    except (OSError, tfds.download.DownloadError, NonMatchingChecksumError) as error:
        looked = f"none in {archive_dir}" if archive_dir else "none found"
        raise DataUnavailableError(
            f"{name} is not available: point --data_dir at a tensorflow-datasets folder that holds it "
            f"(looked in {builder.data_path}), or --archive_dir at a folder with "
            f"{', '.join(ARCHIVE_NAMES[name])} ({looked}), or connect this machine to the network for "
            f"the download ({type(error).__name__})."
        ) from error
    return builder, "downloaded by tensorflow-datasets"
