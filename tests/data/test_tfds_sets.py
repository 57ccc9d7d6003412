"""Datasets of tensorflow-datasets that are prepared: which splits, features and sizes are read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from ncen_tf.base.errors import InputError
from ncen_tf.data.loading import DataFlags, load_data

Features = dict[str, Any]
COLOUR = tfds.features.Image(shape=(6, 4, 3))
KIND = tfds.features.ClassLabel(names=["cat", "dog", "eel"])


def store(data_dir: Path, name: str, features: Features, splits: dict[str, list[Features]]) -> None:
    """Write a dataset as tensorflow-datasets does, without code that belongs to it."""
    feature_dict = tfds.features.FeaturesDict(features)

    def dataset(rows: list[Features]) -> tf.data.Dataset:
        spec = {key: tf.TensorSpec(feature.shape, feature.dtype) for key, feature in feature_dict.items()}
        return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=spec)

    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        data_dir=data_dir,
        split_datasets={split: dataset(rows) for split, rows in splits.items()},
        features=feature_dict,
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`animals` has images of 0 to 29 and of 100 to 108, class number modulo 3; others lack something."""
    folder = tmp_path_factory.mktemp("tfds")

    def rows(numbers: range, height: int = 6) -> list[Features]:
        return [
            {"image": np.full((height, 4, 3), number, np.uint8), "label": number % 3, "id": number}
            for number in numbers
        ]

    with_id = {"image": COLOUR, "label": KIND, "id": tfds.features.Scalar(np.int64)}
    store(folder, "animals", with_id, {"train": rows(range(30)), "validation": rows(range(100, 109))})
    free = {"image": tfds.features.Image(shape=(None, None, 3)), "label": KIND}
    sizes = [{"image": row["image"], "label": row["label"]} for n in (6, 8) for row in rows(range(9), n)]
    store(folder, "sizes", free, {"train": sizes})
    store(folder, "numbers", {"value": tfds.features.Scalar(np.int64)}, {"train": [{"value": 1}]})
    return folder


def test_images_classes_and_splits_of_a_prepared_dataset(data_dir: Path) -> None:
    data = load_data("animals", data_dir=data_dir)
    assert (data.name, data.class_names, data.image_shape) == ("animals", ("cat", "dog", "eel"), (6, 4, 3))
    assert data.source == "prepared by tensorflow-datasets"
    for split, numbers in ((data.train, range(30)), (data.test, range(100, 109))):
        assert sorted(split.images[:, 0, 0, 0]) == list(numbers)
        np.testing.assert_array_equal(split.labels, split.images[:, 0, 0, 0] % 3)
    same = load_data(data_dir / "animals" / "1.0.0")
    np.testing.assert_array_equal(same.test.images, data.test.images)


def test_splits_can_be_chosen(data_dir: Path) -> None:
    two = load_data("animals", data_dir=data_dir, split=("train[:20]", "train[20:]"))
    assert (len(two.train), len(two.test)) == (20, 10)
    one = load_data("animals", data_dir=data_dir, split=("validation",), test_fraction=0.34)
    assert (len(one.train), len(one.test)) == (6, 3)
    flags = DataFlags(dataset="animals", data_dir=data_dir, split=("train",))
    assert len(flags.load_test()) == 30
    assert len(DataFlags(dataset="animals", data_dir=data_dir).load_test()) == 9
    for split, says in ((("test",), "has train, validation, got 'test'"), (("train",) * 3, "one or two")):
        with pytest.raises(InputError, match=says):
            load_data("animals", data_dir=data_dir, split=split)


def test_images_of_different_sizes_need_a_size(data_dir: Path) -> None:
    with pytest.raises(InputError, match=r"different shapes .* set `image_size`"):
        load_data("sizes", data_dir=data_dir)
    test = load_data("sizes", data_dir=data_dir, image_size=(5,), test_fraction=1.0).test
    assert test.images.shape == (18, 5, 5, 3)


def test_what_has_no_images_or_is_not_prepared_is_refused(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="numbers is no dataset of images with a class: it has value"):
        load_data("numbers", data_dir=data_dir)
    with pytest.raises(
        InputError, match=f'cifar100 is not prepared .* "tfds build cifar100 --data_dir {tmp_path}"'
    ):
        load_data("cifar100", data_dir=tmp_path)
    with pytest.raises(InputError, match="'cats_of_my_own' is none and does not exist"):
        load_data("cats_of_my_own", data_dir=tmp_path)
    write = tmp_path / "a.npz"
    np.savez(write, images=np.zeros((4, 2, 2, 1), np.uint8), labels=[0, 1, 0, 1])
    with pytest.raises(InputError, match="`split` is for datasets of tensorflow-datasets"):
        load_data(write, split=("train",))


def test_damaged_files_are_named(data_dir: Path, tmp_path: Path) -> None:
    tf.io.gfile.makedirs(str(tmp_path / "animals"))
    for file in (data_dir / "animals" / "1.0.0").iterdir():
        content = file.read_bytes()
        target = tmp_path / "animals" / "1.0.0" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content[: len(content) // 2] if "tfrecord" in file.name else content)
    with pytest.raises(InputError, match=r"animals in .* is damaged"):
        load_data("animals", data_dir=tmp_path)
