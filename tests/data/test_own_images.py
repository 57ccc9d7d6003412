"""Images of a user: class folders, CSV, npz and arrays, and what is refused of them."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ncen_tf.base.errors import InputError
from ncen_tf.data.loading import load_data
from ncen_tf.data.sizing import require_memory


def write(file: Path, pixels: np.ndarray | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 4), 10, np.uint8) if pixels is None else pixels).save(file)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Class `cat` has images of 10 to 19, class `dog` of 100 to 109."""
    for name, start in (("cat", 10), ("dog", 100)):
        for number in range(10):
            write(tmp_path / "pets" / name / f"{number}.png", np.full((6, 4), start + number, np.uint8))
    return tmp_path / "pets"


def test_class_folders_are_split_by_class_and_all_are_tested_with_a_fraction_of_1(folder: Path) -> None:
    data = load_data(folder)
    assert (data.name, data.class_names, data.image_shape) == ("pets", ("cat", "dog"), (6, 4, 1))
    assert np.bincount(data.train.labels).tolist() == [8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    values = np.concatenate([data.train.images[:, 0, 0, 0], data.test.images[:, 0, 0, 0]])
    assert sorted(values) == [*range(10, 20), *range(100, 110)]
    np.testing.assert_array_equal(values >= 100, np.concatenate([data.train.labels, data.test.labels]))
    assert len(load_data(folder, test_fraction=1.0).test) == 20


def test_one_image_of_each_class_cannot_be_divided(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write(tmp_path / "pets" / name / "0.png")
    with pytest.raises(InputError, match=r"pets has too few images.*2 of 2 classes: give two or more"):
        load_data(tmp_path / "pets")
    assert len(load_data(tmp_path / "pets", test_fraction=1.0).test) == 2
    write(tmp_path / "pets" / "cat" / "1.png")
    assert len(load_data(tmp_path / "pets").train) == 1


def test_a_file_orders_the_classes_and_must_name_them_all(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "classes.txt"
    file.write_text("dog\nbird\ncat\n")
    data = load_data(folder, classes=file, test_fraction=1.0)
    assert data.class_names == ("dog", "bird", "cat")
    assert set(data.test.labels[data.test.images[:, 0, 0, 0] >= 100]) == {0}
    file.write_text("cat\nbird\n")
    with pytest.raises(InputError, match="images of 'dog', which `classes` does not name"):
        load_data(folder, classes=file)


def test_a_csv_and_an_npz_give_the_same_images(folder: Path, tmp_path: Path) -> None:
    rows = [f"{file.relative_to(folder)},{file.parent.name}" for file in folder.rglob("*.png")]
    (folder / "labels.csv").write_text("\n".join(["filename,class", *rows]))
    from_csv = load_data(folder / "labels.csv", test_fraction=1.0).test
    archive = tmp_path / "pets.npz"
    np.savez(archive, images=from_csv.images, labels=from_csv.labels, class_names=["cat", "dog"])
    from_npz = load_data(archive, test_fraction=1.0).test
    np.testing.assert_array_equal(from_csv.images, from_npz.images)
    assert from_npz.class_names == ("cat", "dog")
    (folder / "labels.csv").write_text("file,kind\na.png,cat\n")
    with pytest.raises(InputError, match=r"needs a column .* label or class.* it has file, kind"):
        load_data(folder)


def test_files_of_every_kind_are_converted(tmp_path: Path) -> None:
    deep = np.full((6, 4), 25700, np.uint16)
    for number in range(2):
        write(tmp_path / "a" / f"deep{number}.png", deep)
    write(tmp_path / "b" / "clear.png", np.zeros((6, 4, 4), np.uint8))
    Image.new("CMYK", (4, 6), (0, 255, 255, 0)).save(tmp_path / "b" / "print.jpg")
    test = load_data(tmp_path, test_fraction=1.0).test
    assert test.images.shape == (4, 6, 4, 3)
    assert (test.images[test.labels == 0] == 100).all()
    clear, red = sorted(test.images[test.labels == 1], key=lambda image: -int(image.sum()))
    assert (clear == 255).all()
    assert red[..., 0].min() > 240
    assert red[..., 1:].max() < 15


def test_a_gif_of_grey_colours_is_grey(tmp_path: Path) -> None:
    values = np.array([[0, 3], [90, 255]], np.uint8)
    for folder, pixels in (("grey", values), ("red", np.stack([values, values, values // 2], -1))):
        for name in ("a", "b"):
            path = tmp_path / folder / name / "1.gif"
            path.parent.mkdir(parents=True)
            Image.fromarray(pixels).quantize(colors=4).save(path)
            assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(
        load_data(tmp_path / "grey", test_fraction=1.0).test.images, [values[..., np.newaxis]] * 2
    )
    assert load_data(tmp_path / "red", test_fraction=1.0).test.images.shape == (2, 2, 2, 3)


def test_damaged_and_animated_files_are_named_and_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "cat" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    frames = [Image.new("L", (4, 6), value) for value in (0, 200)]
    frames[0].save(folder / "dog" / "moving.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING, "ncen_tf"):
        assert len(load_data(folder, test_fraction=1.0).test) == 20
    assert "2 files are left out" in caplog.text
    assert "torn.jpg" in caplog.text
    assert "moving.gif (animated, 2 frames)" in caplog.text


def test_images_are_brought_to_one_size(folder: Path) -> None:
    write(folder / "cat" / "wide.png", np.tile(np.repeat([[0, 90, 255]], 8, 1).astype(np.uint8), (8, 1)))
    with pytest.raises(InputError, match=r"different sizes .* set `image_size`"):
        load_data(folder)
    test = load_data(folder, image_size=(4,), test_fraction=1.0).test
    assert test.images.shape == (21, 4, 4, 1)
    assert any((image[:, 1:3] == 90).all() for image in test.images)  # the middle of the wide one


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    for source, says in (
        (tmp_path / "none", "fashion_mnist_sample, cifar10.* is none and does not exist"),
        (tmp_path, "has no class folders with images"),
    ):
        with pytest.raises(InputError, match=says):
            load_data(source)
    write(tmp_path / "folder" / "only" / "a.png")
    with pytest.raises(InputError, match="one class only, 'only'"):
        load_data(tmp_path / "folder")
    archive = tmp_path / "a.npz"
    for arrays, says in (
        ({"x": np.zeros(3)}, "no arrays images and labels.* it has x"),
        ({"images": np.array([None]), "labels": np.zeros(1)}, "holds pickled objects"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8), "labels": np.zeros(2, int)}, "1 or 3 channels"),
        ({"images": np.zeros((0, 4, 4, 1), np.uint8), "labels": np.zeros(0, int)}, "has no images"),
        (
            {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array([0, 10**9])},
            "below 100000, got 10{9}",
        ),
    ):
        np.savez(archive, **arrays)
        with pytest.raises(InputError, match=says):
            load_data(archive)
    (tmp_path / "folder" / "labels.csv").write_text("filename,label\nonly/a.png,123456789012\n")
    with pytest.raises(InputError, match="class numbers must be below 100000, got 123456789012"):
        load_data(tmp_path / "folder")
    with pytest.raises(InputError, match="`test_fraction` must be above 0"):
        load_data((np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 0, 1])), test_fraction=0.0)


def test_parts_of_an_npz_are_those_to_train_and_test_on(tmp_path: Path) -> None:
    pixels, labels = np.arange(24, dtype=np.uint8).reshape(6, 2, 2), np.array([[0], [1], [2], [0], [1], [2]])
    for image, label in (("x_{}", "y_{}"), ("{}_images", "{}_labels")):
        arrays = {image.format("train"): pixels, label.format("train"): labels}
        arrays |= {image.format("test"): pixels[:2], label.format("test"): labels[:2]}
        np.savez(tmp_path / "parts.npz", **arrays)  # type: ignore[arg-type]
        data = load_data(tmp_path / "parts.npz")
        assert (len(data.train), len(data.test), data.class_names) == (6, 2, ("0", "1", "2"))
        np.testing.assert_array_equal(data.train.images[..., 0], pixels)
    from_pairs = load_data(((pixels[..., None], labels[:, 0]), (pixels[:2, ..., None], labels[:2, 0])))
    np.testing.assert_array_equal(from_pairs.train.images, data.train.images)
    assert load_data(tmp_path / "parts.npz", image_size=(4, 3)).image_shape == (4, 3, 1)


def test_a_tf_dataset_is_read_whether_it_is_batched_or_not() -> None:
    pixels, labels = np.arange(48, dtype=np.uint8).reshape(6, 2, 4, 1), np.arange(6) % 2
    dataset = tf.data.Dataset.from_tensor_slices((pixels, labels))
    for source in (dataset, dataset.batch(4)):
        test = load_data(source, test_fraction=1.0).test
        np.testing.assert_array_equal(test.images, pixels)
        np.testing.assert_array_equal(test.labels, labels)
    for source, says in ((dataset.repeat(), "without end"), (dataset.map(lambda x, _: x), "pairs of images")):
        with pytest.raises(InputError, match=says):
            load_data(source)


def test_folders_that_are_numbers_are_in_numeric_order(tmp_path: Path) -> None:
    for number in range(11):
        write(tmp_path / "digits" / str(number) / "a.png", np.full((2, 2), number, np.uint8))
    test = load_data(tmp_path / "digits", test_fraction=1.0).test
    np.testing.assert_array_equal(test.labels, test.images[:, 0, 0, 0])


def test_more_images_than_the_memory_holds_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"20 images of 300000 x 300000 x 1 take 3600.0 GB .* `image_size`"):
        require_memory(20, (300_000, 300_000, 1))
