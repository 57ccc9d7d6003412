from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import tensor_bundle_pb2

from ncen_tf.train.checkpoint_index import check_index, read_index
from tests.fuzzing.checkpoint_mutations import read_table, write_table

KEY = b"weights/0/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Of a checkpoint with tensors of several types and sizes, none included."""
    values = [np.ones((3, 4), np.float32), np.arange(5), np.float16(2), np.zeros((0, 7), np.float64), True]
    prefix = tmp_path / "state"
    tf.train.Checkpoint(weights=[tf.Variable(value) for value in values]).write(str(prefix))
    return prefix


def test_the_index_is_what_tensorflow_reads(prefix: Path) -> None:
    read = {key: [dim.size for dim in entry.shape.dim] for key, entry in read_index(prefix).items()}
    assert read == dict(tf.train.list_variables(str(prefix)))
    check_index(prefix)


def test_an_index_of_many_blocks_is_read_whole(tmp_path: Path) -> None:
    prefix = tmp_path / "state"
    variables = {f"{number:04}{'x' * 500}": tf.Variable(number) for number in range(2000)}
    tf.train.Checkpoint(**variables).write(str(prefix))
    assert prefix.with_suffix(".index").stat().st_size > 2**18  # a block of TensorFlow's
    assert read_index(prefix).keys() == dict(tf.train.list_variables(str(prefix))).keys()
    check_index(prefix)


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": 0},
        {"dtype": 99},
        {"size": 44},
        {"size": -48},
        {"offset": 2**40},
        {"offset": -1},
        {"shard_id": 7},
        {"shape": {"dim": [{"size": 2**40}, {"size": 4}]}},
        {"shape": {"dim": [{"size": -3}, {"size": -4}]}},
        {"shape": {"unknown_rank": True}},
        {"slices": [{"extent": [{}]}]},
    ],
    ids=str,
)
def test_entries_that_cannot_be_are_refused(prefix: Path, change: dict[str, object]) -> None:
    index = prefix.with_suffix(".index")
    entries = read_table(index.read_bytes())
    entry = tensor_bundle_pb2.BundleEntryProto.FromString(entries[KEY])
    for name in change:
        entry.ClearField(name)
    entry.MergeFrom(tensor_bundle_pb2.BundleEntryProto(**change))
    index.write_bytes(write_table(entries | {KEY: entry.SerializeToString()}))
    with pytest.raises((ValueError, TypeError, OSError)):
        check_index(prefix)


def test_bytes_that_are_no_entry_are_refused_with_a_right_checksum(prefix: Path) -> None:
    index = prefix.with_suffix(".index")
    for key in (KEY, b""):
        content = read_table(index.read_bytes())
        index.write_bytes(write_table(content | {key: b"\xff\xff"}))
        with pytest.raises(ValueError, match="damaged"):
            check_index(prefix)
        index.write_bytes(write_table(content))
        check_index(prefix)
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(ValueError, match="no index"):
        check_index(prefix)
