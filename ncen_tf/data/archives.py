"""Local archives of a dataset, prepared through tensorflow-datasets' own builders and checksums."""

import struct
import tempfile
from pathlib import Path

from ncen_tf.base.errors import InputError

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

# Debian repacks the gzip headers without the name and with another time; the compressed data is the
# official one. tfds checks whole files, so the official headers' values are put back.
_OFFICIAL_MTIME = {"train": 0x59A7E9DE, "t10k": 0x59A7E9F3}
_FNAME_FLAG = 0x08


def find_archives(name: str, archive_dir: Path | None) -> Path | None:
    """Folder with every archive of a dataset: ``archive_dir``, else Debian's for FashionMNIST."""
    debian = [DEBIAN_FASHION_MNIST] if name == "fashion_mnist" else []
    for folder in [archive_dir] if archive_dir else debian:
        if all((folder / file).is_file() for file in ARCHIVE_NAMES[name]):
            return folder
    return None


def prepare_from_archives(name: str, folder: Path, data_dir: Path | None) -> None:
    """Prepare the official tfds builder from local archives, without a network.

    Args:
        name: ``fashion_mnist`` or ``cifar10``.
        folder: where the archives lie.
        data_dir: where tfds keeps prepared datasets; ``None`` for its default.

    Raises:
        InputError: an archive is not the official one.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    builder = tfds.builder(name, data_dir=data_dir)
    with tempfile.TemporaryDirectory() as staging:
        for file in ARCHIVE_NAMES[name]:
            content = (folder / file).read_bytes()
            if name == "fashion_mnist":
                content = with_official_gzip_header(file, content)
            (Path(staging) / file).write_bytes(content)
        config = tfds.download.DownloadConfig(
            manual_dir=staging, force_checksums_validation=True, try_download_gcs=False
        )
        try:
            builder.download_and_prepare(download_dir=Path(staging) / "downloads", download_config=config)
        except NonMatchingChecksumError as error:
            raise InputError(f"An archive in {folder} is not the official one of {name}: {error}") from error


def with_official_gzip_header(file: str, content: bytes) -> bytes:
    """Put name and time back into a gzip header without them; other content comes back unchanged."""
    if content[:4] != b"\x1f\x8b\x08\x00":
        return content
    mtime = struct.pack("<I", _OFFICIAL_MTIME[file.split("-")[0]])
    name = file.removesuffix(".gz").encode() + b"\0"
    return content[:3] + bytes([_FNAME_FLAG]) + mtime + content[8:10] + name + content[10:]
