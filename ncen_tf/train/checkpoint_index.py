"""The index of a TensorFlow checkpoint, read before TensorFlow does.

An entry that is no entry, though its checksum is right, ends TensorFlow's process. The index is a table of
LevelDB's format (github.com/google/leveldb, doc/table_format.md): blocks of sorted keys with shared prefixes,
an index of the blocks, and a footer that says where that is.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import tensor_bundle_pb2

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER, _TRAILER = 48, 5


def check_index(prefix: Path) -> None:
    """Refuse an index whose entries TensorFlow would not survive, or that claim more than is stored.

    Args:
        prefix: of the checkpoint's files.

    Raises:
        OSError: the index or the tensors' file is missing.
        ValueError: a damaged index.
    """
    for key, entry in read_index(prefix).items():
        data = prefix.with_name(f"{prefix.name}.data-{entry.shard_id:05}-of-00001")
        sizes = [dim.size for dim in entry.shape.dim]
        dtype = tf.as_dtype(entry.dtype)
        if entry.slices or entry.shape.unknown_rank or any(size < 0 for size in sizes):
            raise ValueError(f"{key} is not one whole tensor")
        if dtype != tf.string and entry.size != math.prod(sizes) * dtype.size:
            raise ValueError(f"{key} has {entry.size} bytes, which is not its shape")
        if min(entry.offset, entry.size) < 0 or entry.offset + entry.size > data.stat().st_size:
            raise ValueError(f"{key} lies beyond the end of {data.name}")


def read_index(prefix: Path) -> dict[str, tensor_bundle_pb2.BundleEntryProto]:
    """What a checkpoint says of each tensor, by its key.

    Raises:
        OSError: there is no index.
        ValueError: it is damaged.
    """
    content = prefix.with_name(f"{prefix.name}.index").read_bytes()
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or not footer.endswith(_MAGIC):
        raise ValueError("no index of a checkpoint")
    entries = {}
    try:
        _, _, at = _block_place(footer, 0)
        for _, place in _block(content, *_block_place(footer, at)[:2]):
            for key, value in _block(content, *_block_place(place, 0)[:2]):
                if key:
                    entries[key.decode()] = tensor_bundle_pb2.BundleEntryProto.FromString(value)
                else:
                    tensor_bundle_pb2.BundleHeaderProto.FromString(value)
    except (DecodeError, IndexError, struct.error) as error:
        raise ValueError("a damaged index") from error
    return entries


def _block_place(content: bytes, at: int) -> tuple[int, int, int]:
    """Where a block begins, its size, and where reading goes on."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return offset, size, at


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    block = content[offset : offset + size + _TRAILER]
    if len(block) < size + _TRAILER or block[size]:
        raise ValueError("a block that is cut off or compressed")
    (restarts,) = struct.unpack_from("<I", block, size - 4)
    key, at, end = b"", 0, size - 4 - 4 * restarts
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where reading goes on."""
    value = shift = 0
    while shift < 64:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number of more than 64 bits")
