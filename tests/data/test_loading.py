"""Where images come from, and class-balanced parts of them."""

import gzip
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.data.loading import load_data
from ncen_tf.data.tfds_sets import ARCHIVE_NAMES, DEBIAN_FASHION_MNIST, with_original_gzip_header
from tests.conftest import ROOT

needs_archives = pytest.mark.skipif(
    not DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's dataset-fashion-mnist is not installed"
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FashionMNIST prepared from Debian's archives, as on a user's first run."""
    data_dir = tmp_path_factory.mktemp("tfds")
    dataset = load_data("fashion_mnist", data_dir=data_dir)
    assert dataset.source == "official archives"
    return data_dir


def test_embedded_images_are_balanced_and_real() -> None:
    dataset = load_data("fashion_mnist_sample")
    assert dataset.train.images.shape == (6000, 28, 28, 1)
    assert dataset.test.images.shape == (1000, 28, 28, 1)
    assert set(np.bincount(dataset.train.labels)) == {600}
    assert set(np.bincount(dataset.test.labels)) == {100}
    # A nearest class mean already tells most of them apart: these are pictures with the right labels.
    flat = dataset.train.images.reshape(6000, -1) / 255.0
    means = np.stack([flat[dataset.train.labels == label].mean(0) for label in range(10)])
    test = dataset.test.images.reshape(1000, -1) / 255.0
    nearest = ((test[:, None] - means) ** 2).sum(2).argmin(1)
    assert (nearest == dataset.test.labels).mean() > 0.6


@needs_archives
def test_archives_are_prepared_once_and_then_found(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ncen_tf"):
        dataset = load_data("fashion_mnist", data_dir=prepared)
    assert dataset.source == "prepared by tensorflow-datasets"
    assert str(prepared) in caplog.text
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    raw = gzip.decompress((DEBIAN_FASHION_MNIST / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    archived = np.frombuffer(raw, np.uint8).reshape(-1, 784)
    # tfds shuffles, so compare the two as sets of images
    assert {i.tobytes() for i in dataset.test.images} == {i.tobytes() for i in archived}


@needs_archives
def test_two_processes_that_need_a_dataset_at_once_both_get_it(tmp_path: Path) -> None:
    """As two cells of a sweep on a new machine."""
    program = (
        "import sys; from pathlib import Path; from ncen_tf.data.loading import load_data; "
        "print(len(load_data('fashion_mnist', data_dir=Path(sys.argv[1])).train))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "new")]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [process.communicate(timeout=300) for process in both]
    assert [stdout.split()[-1:] for stdout, _ in ends] == [["60000"]] * 2, ends


@needs_archives
def test_embedded_images_are_the_balanced_prefix_of_the_official_ones(prepared: Path) -> None:
    official = load_data("fashion_mnist", data_dir=prepared, train_examples=6000, test_examples=1000)
    embedded = load_data("fashion_mnist_sample")
    for split in ("train", "test"):
        first, second = getattr(official, split), getattr(embedded, split)
        np.testing.assert_array_equal(first.images, second.images)
        np.testing.assert_array_equal(first.labels, second.labels)


@needs_archives
def test_a_changed_archive_is_refused(tmp_path: Path) -> None:
    for name in ARCHIVE_NAMES["fashion_mnist"]:
        content = bytearray((DEBIAN_FASHION_MNIST / name).read_bytes())
        if name.startswith("t10k-labels"):
            content[2000] ^= 1
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="not the official one"):
        load_data("fashion_mnist", data_dir=tmp_path / "tfds", archive_dir=tmp_path)


def test_official_headers_come_back_unchanged() -> None:
    official = b"\x1f\x8b\x08\x08" + b"rest"
    assert with_original_gzip_header("train-images-idx3-ubyte.gz", official) == official


def test_without_any_source_the_three_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(InputError) as caught:
        load_data("cifar10", data_dir=tmp_path, archive_dir=tmp_path)
    for way in ("`data_dir`", "`archive_dir`", "cifar-10-binary.tar.gz", "network"):
        assert way in str(caught.value)
