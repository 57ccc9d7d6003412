"""FashionMNIST with a few black images: as archives, and as tensorflow-datasets keeps it."""

from pathlib import Path

import numpy as np

from tests.fuzzing.case import Case


def archives() -> dict[str, bytes]:
    import gzip
    import struct

    from ncen_tf.data.prepared import ARCHIVE_NAMES

    images = struct.pack(">4I", 2051, 10, 28, 28) + bytes(7840)
    labels = struct.pack(">2I", 2049, 10) + bytes(range(10))
    return {
        name: gzip.compress(images if "images" in name else labels, mtime=0)
        for name in ARCHIVE_NAMES["fashion_mnist"]
    }


def write_prepared(folder: Path) -> None:
    """A dataset as tensorflow-datasets keeps it, with a few images."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    # Archives that are refused keep a damaged dataset from being looked for on the network.
    Case(archives()).write(folder)
    builder = tfds.builder("fashion_mnist", data_dir=folder)
    path = Path(builder.data_path)
    path.mkdir(parents=True)
    png = tf.io.encode_png(np.zeros((28, 28, 1), np.uint8)).numpy()
    splits = []
    for split in ("train", "test"):
        with tf.io.TFRecordWriter(str(path / f"fashion_mnist-{split}.tfrecord-00000-of-00001")) as writer:
            for label in range(10):
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png]))
                number = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
                features = tf.train.Features(feature={"image": image, "label": number})
                writer.write(tf.train.Example(features=features).SerializeToString())
        template = tfds.core.ShardedFileTemplate(
            data_dir=path, dataset_name="fashion_mnist", split=split, filetype_suffix="tfrecord"
        )
        splits.append(
            tfds.core.SplitInfo(name=split, shard_lengths=[10], num_bytes=1000, filename_template=template)
        )
    builder.info.set_splits(tfds.core.SplitDict(splits))
    builder.info.write_to_directory(path)
