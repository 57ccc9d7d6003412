"""Hostile ``.keras`` files: code, files outside, and memory without end, in configuration and weights."""

import base64
import copy
import io
import json
import marshal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st

from tests.fuzzing.byte_mutations import mutated_bytes
from tests.fuzzing.case import HUGE
from tests.fuzzing.json_mutations import mutated_json
from tests.fuzzing.zip_mutations import mutated_zip, pack, unpack

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"


def mutated_keras(original: bytes) -> st.SearchStrategy[bytes]:
    """The file with its configuration, weights or archive damaged."""
    return mutated_zip(original, {".json": mutated_json, ".h5": mutated_weights})


def hostile_keras(original: bytes, secret: Path) -> dict[str, bytes]:
    """Files that must be refused, by what they ask for."""
    members = unpack(original)
    config, weights = json.loads(members[_CONFIG]), members[_WEIGHTS]
    files = {
        name: pack(members | {_CONFIG: json.dumps(_with_layer(config, layer)).encode()})
        for name, layer in _hostile_layers(secret).items()
    }
    for name, change in _hostile_stores(secret).items():
        files[name] = pack(members | {_WEIGHTS: _rewritten(weights, change)})
    for name in ("../outside/x", "/x", "a/../../x", "C:\\x"):
        files[f"member {name}"] = pack(members | {name: b"", f"assets/{name}": b""})
    return files


def mutated_weights(original: bytes) -> st.SearchStrategy[bytes]:
    """Bytes, and tensors of other shapes, types and storage, of an HDF5 file."""
    changes = st.sampled_from((_other_shape, _other_type, _deleted, _group_for_dataset, _text_attribute))
    return st.one_of(mutated_bytes(original), changes.map(lambda change: _rewritten(original, change)))


def _with_layer(config: Any, layer: dict[str, Any]) -> Any:
    """The ensemble with another activation in its first member."""
    config = copy.deepcopy(config)
    layers = config["config"]["members"][0]["config"]["layers"]
    place = next(old for old in layers if old["class_name"] == "LeakyReLU")
    name = place["name"]
    place.update(layer)
    if isinstance(place["config"], dict):
        place["config"].setdefault("name", name)
    return config


def _layer(name: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"class_name": name, "module": module, "registered_name": None, "config": config}


def _hostile_layers(secret: Path) -> dict[str, dict[str, Any]]:
    code = compile(f"open({str(secret)!r}, 'wb')", "x", "eval")
    value = {"code": base64.b64encode(marshal.dumps(code)).decode(), "defaults": None, "closure": None}
    layers = {
        "lambda": _layer("Lambda", function={"class_name": "__lambda__", "config": {"value": value}}),
        "old lambda": _layer("Lambda", function=[value["code"], None, None], function_type="lambda"),
        "lambda elsewhere": _layer(
            "Activation", activation={"class_name": "__lambda__", "config": {"value": value}}
        ),
        "program": _layer("Popen", "subprocess", args=["touch", str(secret)]),
        "unpickled": _layer(
            "TorchModuleWrapper", module="gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"
        ),
        "vocabulary": _layer("StringLookup", vocabulary=str(secret)),
        "text": _layer("TextVectorization", vocabulary=str(secret)),
        "saved model": _layer("TFSMLayer", filepath=str(secret.parent)),
        "download": _layer("get_file", "keras.utils", fname=str(secret), origin=f"file://{secret}"),
        "unsafe": _layer("enable_unsafe_deserialization", "keras.config"),
        "enlarged": _layer("UpSampling2D", size=[20_000, 20_000]),
        "padded": _layer("ZeroPadding2D", padding=20_000),
        "wide": _layer("Dense", units=2**28),
        "large": _layer("Conv2D", filters=2**15, kernel_size=[100, 100]),
        "endless": _layer("Dense", units=2**40),
        "array": _layer(
            "Rescaling", scale={"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "S3000000000"}}
        ),
        "tensor": _layer(
            "Rescaling", scale={"class_name": "__tensor__", "config": {"value": 1, "dtype": "float32"}}
        ),
    }
    for module, function in (("os", "system"), ("builtins", "exec"), ("keras.saving", "load_model")):
        called = {"class_name": "function", "module": module, "config": function, "registered_name": function}
        layers[f"{module}.{function}"] = _layer("Lambda", function=called, arguments={"x": f"touch {secret}"})
        layers[f"activation {function}"] = _layer("Activation", activation=called)
    return layers


def _hostile_stores(secret: Path) -> dict[str, Callable[[h5py.File, str], None]]:
    def replaced(make: Callable[[h5py.File, str], None]) -> Callable[[h5py.File, str], None]:
        def change(store: h5py.File, path: str) -> None:
            del store[path]
            make(store, path)

        return change

    def link(store: h5py.File, path: str) -> None:
        store[path] = h5py.ExternalLink(str(secret), "/x")

    def external(store: h5py.File, path: str) -> None:
        store.create_dataset(path, (4,), "f4", external=[(str(secret), 0, 16)])

    def virtual(store: h5py.File, path: str) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource(str(secret), "x", (4,))
        store.create_virtual_dataset(path, layout)

    def empty(store: h5py.File, path: str) -> None:
        store.create_dataset(path, (HUGE,), "f4")

    def packed(store: h5py.File, path: str) -> None:
        store.create_dataset(path, (HUGE,), "f4", chunks=(1_000_000,), compression="gzip")

    def objects(store: h5py.File, path: str) -> None:
        store.create_dataset(path, data=["x"], dtype=h5py.string_dtype())

    makers = (link, external, virtual, empty, packed, objects)
    return {f"weights: {make.__name__}": replaced(make) for make in makers}


def _rewritten(original: bytes, change: Callable[[h5py.File, str], None]) -> bytes:
    stream = io.BytesIO(original)
    with h5py.File(stream, "r+") as store:
        change(store, next(_datasets(store)))
    return stream.getvalue()


def _datasets(store: h5py.File) -> Iterator[str]:
    found: list[str] = []
    store.visititems(lambda path, entry: found.append(path) if isinstance(entry, h5py.Dataset) else None)
    return iter(sorted(found))


def _other_shape(store: h5py.File, path: str) -> None:
    shape = store[path].shape
    del store[path]
    store[path] = np.zeros((*shape, 2), np.float32)


def _other_type(store: h5py.File, path: str) -> None:
    values = store[path][()]
    del store[path]
    store[path] = values.astype("S4")


def _deleted(store: h5py.File, path: str) -> None:
    del store[path]


def _group_for_dataset(store: h5py.File, path: str) -> None:
    del store[path]
    store.create_group(path)


def _text_attribute(store: h5py.File, path: str) -> None:
    store[path].parent.attrs["name"] = "x" * 1000
