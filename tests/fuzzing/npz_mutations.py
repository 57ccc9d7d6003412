"""Damage to NumPy's archives: what a member says of its array."""

import io
import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzzing.byte_mutations import mutated_bytes
from tests.fuzzing.json_mutations import mutated_json
from tests.fuzzing.zip_mutations import bomb, mutated_zip, unpack

SHAPES = (
    *(
        "()",
        "(0,)",
        "(-1,)",
        "(1099511627776,)",
        "(700000000,)",
        "(6, 8, 8)",
        "(6, 8, 8, 1, 1)",
        "(3, 8, 8, 1)",
    ),
    *(
        "(2, 2)",
        "'x'",
        "(None,)",
        "(1.5,)",
        "(True,)",
        "(" + "1," * 60 + ")",
        "(9223372036854775807, 2)",
        "-" * 3000 + "1",
    ),
)
TYPES = (
    "|O",
    "<f8",
    ">f4",
    "<i4",
    "|b1",
    "<U1",
    "<U100000000",
    "|V8",
    "<c8",
    "<M8[s]",
    "x",
    "<f1000",
    "|S0",
    "[('a', 'O')]",
)


def mutated_npz(original: bytes) -> st.SearchStrategy[bytes]:
    """An npz with one member's header, values or bytes changed, or the archive around them."""
    members = unpack(original)
    large = _header("'<f4'", "False", "(750000000,)", 1)
    bombs = st.sampled_from(sorted(members)).map(lambda name: bomb(members | {name: large}, name))
    return st.one_of(*[mutated_zip(original, {".npy": mutated_npy})] * 15, bombs)


@st.composite
def mutated_npy(draw: Any, original: bytes) -> bytes:
    """An array file whose header lies, whose values are others, or whose bytes are damaged."""
    kind = draw(st.sampled_from(("header", "header", "values", "values", "pickle", "bytes")))
    if kind == "bytes":
        return draw(mutated_bytes(original))
    array = np.load(io.BytesIO(original))
    if kind == "pickle":
        return _file(np.array([print, "code"], object), allow_pickle=True)
    if kind == "values":
        return _file(draw(_other_values(array)))
    shape, dtype = str(array.shape), array.dtype.str
    if draw(st.booleans()):
        shape = draw(st.sampled_from(SHAPES))
    else:
        dtype = draw(st.sampled_from(TYPES))
    order, quote = (
        draw(st.sampled_from(("False", "False", "True", "1", "[]"))),
        "" if dtype[0] == "[" else "'",
    )
    data = original[10 + struct.unpack_from("<H", original, 8)[0] :]
    return _header(f"{quote}{dtype}{quote}", order, shape, draw(st.sampled_from((1, 1, 2, 3, 9)))) + data


def _header(dtype: str, order: str, shape: str, version: int) -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H" if version == 1 else "<I", len(text)) + text


@st.composite
def _other_values(draw: Any, array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind == "U":  # settings are JSON
        mutate = mutated_json if str(array).startswith("{") else mutated_bytes
        return np.array(draw(mutate(str(array).encode())).decode(errors="replace"))
    kind = draw(st.sampled_from(("fill", "fill", "fewer", "more", "type", "flat")))
    if kind == "fill":
        with np.errstate(all="ignore"):
            return np.full_like(array, draw(st.sampled_from((np.nan, np.inf, -1, 255, 2**31 - 1, 1e30, 0.5))))
    if kind == "type":
        return array.astype(draw(st.sampled_from(("f8", "i8", "U5", "c8", "b1", "u1"))))
    if kind == "flat" or not array.ndim:
        return array.reshape(-1)
    return array[:-1] if kind == "fewer" else np.concatenate([array, array])


def _file(array: Any, allow_pickle: bool = False) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()
