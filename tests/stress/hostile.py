"""Files that run code, reach other files, or take far more memory than their size."""

import base64
import functools
import io
import json
import marshal
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import tensorflow as tf
from onnx import NodeProto, TensorProto, helper, numpy_helper
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tests.stress.mutations import npy_header, pack, unpack

OUTSIDE = "../outside/secret.bin"
"""A file beside the folder of a case, as `pool` makes it."""
HUGE = 750_000_000
"""Number of float32 values that take 3 GB."""


def write_hostile(seeds: Path, folder: Path) -> None:
    """Write `folder`/KIND/NAME/... for every hostile case, made from the valid files in `seeds`/KIND."""
    makers = {"adversarials/saved.npz": _npz, "keras/ensemble.keras": _keras, "onnx/ensemble.onnx": _onnx}
    for path, make in makers.items():
        kind, _, file = path.partition("/")
        for name, content in make((seeds / kind / file).read_bytes()).items():
            shutil.copytree(seeds / kind, folder / kind / name)
            (folder / kind / name / file).write_bytes(content)
    _write_saved_models(seeds / "saved_model", folder / "saved_model")


def _npz(original: bytes) -> dict[str, bytes]:
    members = unpack(original)
    name = max(members, key=lambda member: len(members[member]))
    pickled = io.BytesIO()
    np.save(pickled, np.array([print, "code"], object), allow_pickle=True)
    return {
        "zip bomb": _bomb(members | {name: npy_header("'<f4'", f"({HUGE},)")}, name),
        "pickle": pack(members | {name: pickled.getvalue()}),
        "huge shape": pack(members | {name: npy_header("'<f4'", f"({HUGE},)") + bytes(64)}),
        "huge text": pack(members | {name: npy_header("'<U500000000'", "()") + bytes(64)}),
    }


def _bomb(members: dict[str, bytes], name: str) -> bytes:
    """Write a zip archive with a member that goes on with zeros up to 3 GiB."""
    stream, chunk = io.BytesIO(), bytes(1 << 22)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for other, content in members.items():
            with archive.open(other, "w", force_zip64=True) as member:
                member.write(content)
                for _ in range(768 if other == name else 0):
                    member.write(chunk)
    return stream.getvalue()


def _keras(original: bytes) -> dict[str, bytes]:
    members = unpack(original)
    code = base64.b64encode(marshal.dumps(compile(f"open({OUTSIDE!r}, 'wb')", "x", "eval"))).decode()
    function = {"class_name": "__lambda__", "config": {"value": {"code": code}}}
    system = {"class_name": "function", "module": "os", "config": "system"}
    pickled = "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu"  # os.system("true")
    layers: dict[str, tuple[str, dict[str, Any]]] = {
        "lambda layer": ("Lambda", {"function": function}),
        "lambda as activation": ("Activation", {"activation": function}),
        "function of os": ("Activation", {"activation": system}),
        "pickled module": ("TorchModuleWrapper", {"module": pickled}),
        "vocabulary file": ("StringLookup", {"vocabulary": OUTSIDE}),
        "huge padding": ("ZeroPadding2D", {"padding": 20_000}),
    }
    files = {"member outside": members | {OUTSIDE: b""}}
    for name, (layer, config) in layers.items():
        files[name] = members | {"config.json": _with_layer(members["config.json"], layer, config)}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "r+") as store:
        path = next(iter(store))
        del store[path]
        store[path] = h5py.ExternalLink(OUTSIDE, "/x")
    files["link to a file"] = members | {"model.weights.h5": weights.getvalue()}
    packed = {name: pack(content) for name, content in files.items()}
    return packed | {"zip bomb": _bomb(members, "config.json")}


def _with_layer(original: bytes, layer: str, settings: dict[str, Any]) -> bytes:
    """Replace the first activation of the first member."""
    config = json.loads(original)
    layers = config["config"]["members"][0]["config"]["layers"]
    place = next(old for old in layers if old["class_name"] == "LeakyReLU")
    place |= {"class_name": layer, "module": "keras.layers", "registered_name": None}
    place["config"] = settings | {"name": place["name"]}
    return json.dumps(config).encode()


def _onnx(original: bytes) -> dict[str, bytes]:
    """Add nodes with a value `more`, on which the first output depends."""
    files = {}
    for name, change in _ONNX_CHANGES.items():
        model = onnx.load_from_string(original)
        for node in reversed(change(model)):
            model.graph.node.insert(0, node)
        output = model.graph.output[0].name
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = ["before" if old == output else old for old in names]
        model.graph.node.append(helper.make_node("ReduceSum", ["more"], ["sum"], keepdims=0))
        model.graph.node.append(helper.make_node("Add", ["before", "sum"], [output]))
        files[name] = model.SerializeToString()
    return files


def _external(location: str) -> TensorProto:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], name="external")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": "4"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _initializer(tensor: TensorProto, model: onnx.ModelProto) -> list[NodeProto]:
    model.graph.initializer.append(tensor)
    return [helper.make_node("Identity", [tensor.name], ["more"])]


def _external_in_branch(model: onnx.ModelProto) -> list[NodeProto]:
    node = helper.make_node("Constant", [], ["branch"], value=_external(OUTSIDE))
    output = [helper.make_tensor_value_info("branch", TensorProto.FLOAT, [1])]
    inner = helper.make_graph([node], "branch", [], output)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    return [helper.make_node("If", ["true"], ["more"], then_branch=inner, else_branch=inner)]


def _huge_fill(model: onnx.ModelProto) -> list[NodeProto]:
    model.graph.initializer.append(numpy_helper.from_array(np.array([HUGE]), "shape"))
    return [helper.make_node("ConstantOfShape", ["shape"], ["more"])]


_ONNX_CHANGES: dict[str, Callable[[onnx.ModelProto], list[NodeProto]]] = {
    "external data outside": functools.partial(_initializer, _external(OUTSIDE)),
    "external data, absolute path": functools.partial(_initializer, _external("/etc/hostname")),
    "external data in branch": _external_in_branch,
    "huge dims": functools.partial(
        _initializer, TensorProto(data_type=1, dims=[2**40], name="huge", raw_data=b"1234")
    ),
    "huge fill": _huge_fill,
}
_TF_ACTIONS: dict[str, Callable[[str], Any]] = {
    "read": tf.io.read_file,
    "write": lambda file: tf.io.write_file(file, "x"),
    "print": lambda file: tf.print("x", output_stream=f"file://{file}"),
    "python": lambda file: tf.numpy_function(lambda: 0.0, [], tf.float64),
    "map": lambda file: tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[1], memory_region_name=file),
    "branch": lambda file: tf.cond(tf.constant(True), lambda: tf.io.read_file(file), lambda: ""),
}


def _write_saved_models(valid: Path, folder: Path) -> None:
    """Write classifiers of images [N, 28, 28, 1] that also act on a file, and one with an asset outside."""
    for name, act in _TF_ACTIONS.items():
        module = tf.Module()
        module.weights = tf.Variable(tf.ones((784, 10)))

        @tf.function(input_signature=[tf.TensorSpec((None, 28, 28, 1), tf.float32, name="image")])
        def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
            done = act("secret.bin")  # noqa: B023  # traced in this iteration
            with tf.control_dependencies([] if done is None else [done]):
                logits = tf.reshape(image, [-1, 784]) @ module.weights  # noqa: B023
            return {"probabilities": tf.nn.softmax(logits), "member_logits": tf.stack([logits, logits], 1)}

        tf.saved_model.save(module, str(folder / name), signatures={"serving_default": serve})
    shutil.copytree(valid, folder / "asset outside")
    path = folder / "asset outside" / "saved_model.pb"
    content = SavedModel.FromString(path.read_bytes())
    content.meta_graphs[0].asset_file_def.add(filename=f"../{OUTSIDE}").tensor_info.name = "x"
    path.write_bytes(content.SerializeToString())
