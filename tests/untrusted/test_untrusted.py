"""Files from other people: loaded without running code or taking much memory, or refused with the reason."""

import io
import json
import resource
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.untrusted.keras_file import load_keras_model
from ncen_tf.untrusted.memory import limited_memory
from ncen_tf.untrusted.onnx_file import image_input, read_model, run_limited
from ncen_tf.untrusted.saved_model import load_saved_model
from ncen_tf.untrusted.zip import check_zip


def member(*layers: keras.layers.Layer, classes: int = 4) -> keras.Model:
    last = [keras.layers.LeakyReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input((8, 8, 1)), *layers, *last])


def saved(folder: Path, *members: keras.Model) -> Path:
    file = folder / "ensemble.keras"
    ncen_tf.Ensemble(members or [member(), member()]).save(file)
    return file


def rewrite(file: Path, **changes: Callable[[bytes], bytes]) -> Path:
    """Change members of an archive, named without their suffix."""
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, changes.get(name.split(".")[0], bytes)(data))
    return file


def compiled_member() -> keras.Model:
    model = member()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(np.zeros((4, 8, 8, 1), np.float32), np.arange(4), verbose=0)
    return model


def nested_member() -> keras.Model:
    """A compiled model inside a model, with an optimizer that has more state than the model."""
    features = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 3)])
    features.compile(keras.optimizers.RMSprop(momentum=0.9, centered=True), "mse")
    return member(features)


@pytest.mark.parametrize("make", [compiled_member, nested_member])
def test_members_that_were_compiled_are_loaded(make: Callable[[], keras.Model], tmp_path: Path) -> None:
    file = saved(tmp_path, make(), make())
    images = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
    expected = keras.saving.load_model(file).predict(images, verbose=0)
    loaded = ncen_tf.load_ensemble(file)
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)


def test_models_that_are_not_ensembles_are_loaded_only_as_keras_models(tmp_path: Path) -> None:
    model = member()
    model.save(tmp_path / "single.keras")
    np.testing.assert_array_equal(
        load_keras_model(tmp_path / "single.keras").get_weights()[0], model.get_weights()[0]
    )
    with pytest.raises(InputError, match="has a Sequential in it, not an ensemble"):
        ncen_tf.load_ensemble(tmp_path / "single.keras")


class Unregistered(keras.layers.Layer):
    """A layer that only its author's program knows."""

    def call(self, x: Any) -> Any:
        return 2 * x


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Unregistered, "it uses Unregistered, which is not part of Keras"),
        (lambda: keras.layers.Lambda(lambda x: 2 * x), "it has a Lambda layer with Python code"),
    ],
)
def test_a_layer_that_is_not_loaded_is_named(layer: Callable[[], Any], reason: str, tmp_path: Path) -> None:
    file = saved(tmp_path, member(layer()), member(layer()))
    with pytest.raises(InputError, match=reason):
        ncen_tf.load_ensemble(file)


def other_layer(name: str, **config: Any) -> Callable[[bytes], bytes]:
    """Replace the first member's activation."""

    def change(content: bytes) -> bytes:
        model = json.loads(content)
        layers = model["config"]["members"][0]["config"]["layers"]
        activation = next(layer for layer in layers if layer["class_name"] == "LeakyReLU")
        activation.update({"class_name": name, "config": {"name": "changed"} | config})
        return json.dumps(model).encode()

    return change


def weights(change: Callable[[h5py.File, str], None]) -> Callable[[bytes], bytes]:
    """Change the first array of the weights."""

    def rewritten(content: bytes) -> bytes:
        stream, names = io.BytesIO(content), []
        with h5py.File(stream, "r+") as store:
            store.visititems(
                lambda name, entry: names.append(name) if isinstance(entry, h5py.Dataset) else None
            )
            change(store, min(names))
        return stream.getvalue()

    return rewritten


def not_finite(store: h5py.File, name: str) -> None:
    store[name][...] = np.nan


def in_another_file(store: h5py.File, name: str) -> None:
    shape = store[name].shape
    del store[name]
    store.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, 4 * int(np.prod(shape)))])


def compressed_zeros(store: h5py.File, name: str) -> None:
    del store[name]
    store.create_dataset(name, (2**30,), "f4", chunks=(1_000_000,), compression="gzip")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": weights(not_finite)}, "contain NaN or infinity"),
        ({"model": weights(in_another_file)}, "not plain numbers"),
        ({"model": weights(compressed_zeros)}, "does not store them"),
        ({"model": lambda content: content[:1000]}, "truncated"),
        (
            {"config": other_layer("DepthwiseConv2D", kernel_size=2**13, padding="same")},
            "does not store them",
        ),
        ({"config": other_layer("UpSampling2D", size=[20_000, 20_000])}, "memory|does not store them"),
        (
            {"config": other_layer("Rescaling", scale={"class_name": "__numpy__", "config": {}})},
            "arrays in its",
        ),
        (
            {"config": lambda content: content.replace(b'"keras.layers"', b'"keras_hub.layers"')},
            "it uses .* of keras_hub.layers, which cannot be imported here",
        ),
        ({"config": lambda content: b"{"}, "cannot be loaded"),
    ],
)
def test_keras_files_that_are_not_what_they_say_are_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=reason):
        ncen_tf.load_ensemble(rewrite(saved(tmp_path), **changes))


def test_archives_that_reach_outside_or_expand_are_refused(tmp_path: Path) -> None:
    for name, content, reason in (
        ("../outside", b"", "outside its folder"),
        ("C:\\outside", b"", "outside its folder"),
        ("zeros", bytes(2**29 + 1), "would unpack to"),
    ):
        with zipfile.ZipFile(tmp_path / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        with pytest.raises(InputError, match=reason):
            check_zip(tmp_path / "archive.zip")
    (tmp_path / "archive.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read"):
        check_zip(tmp_path / "archive.zip")


def linear_model(operator: str = "Gemm", domain: str = "", **options: Any) -> onnx.ModelProto:
    """A classifier of one layer, with its weights listed among the inputs."""
    rng = np.random.default_rng(0)
    arrays = {"w": rng.normal(size=(16, 3)).astype("f4"), "b": rng.normal(size=3).astype("f4")}
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 4, 1])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in arrays.items()]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["f"]),
            helper.make_node(operator, ["f", "w", "b"], ["y"], domain=domain),
        ],
        "classifier",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 11)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, **({"ir_version": 8} | options))


@pytest.mark.parametrize("ir_version", [3, 4, 8])
def test_weights_that_are_listed_as_inputs_are_weights(ir_version: int, tmp_path: Path) -> None:
    original = linear_model(ir_version=ir_version)
    onnx.save(original, tmp_path / "model.onnx")
    model = read_model(tmp_path / "model.onnx")
    assert [value.name for value in model.graph.input] == ["x"]
    images = np.random.default_rng(1).random((5, 4, 4, 1), np.float32)
    before, after = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"x": images}
        )[0]
        for m in (original, model)
    )
    np.testing.assert_array_equal(before, after)


def external_weights(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


def endless(model: onnx.ModelProto) -> None:
    """Ten functions, each of which calls the next one ten times."""
    opsets = [helper.make_opsetid("", 11), helper.make_opsetid("own", 1)]
    for level in range(10):
        call = helper.make_node(
            f"F{level + 1}" if level < 9 else "Relu", ["x"], ["y"], domain="own" if level < 9 else ""
        )
        body = [call] * 10
        model.functions.append(helper.make_function("own", f"F{level}", ["x"], ["y"], body, opsets))
    model.opset_import.append(opsets[1])
    model.graph.node.insert(0, helper.make_node("F0", ["x"], ["z"], domain="own"))


def large(model: onnx.ModelProto) -> None:
    shape = numpy_helper.from_array(np.array([2**30]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    model.graph.output.append(helper.make_tensor_value_info("zeros", TensorProto.FLOAT, [2**30]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external_weights, "outside its folder"),
        (endless, "more than 100000 nodes"),
        (large, "takes more than 1,073,741,824 bytes"),
        (lambda model: model.graph.initializer.pop(), "has 2 inputs"),
        (lambda model: model.graph.input[0].type.tensor_type.shape.dim[0].Clear(), None),
    ],
)
def test_onnx_files_that_are_not_accepted(
    change: Callable[[onnx.ModelProto], Any], reason: str | None, tmp_path: Path
) -> None:
    model = linear_model()
    change(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    if reason is None:
        read_and_run(tmp_path / "model.onnx")
    else:
        with pytest.raises(InputError, match=reason):
            read_and_run(tmp_path / "model.onnx")


def read_and_run(file: Path) -> None:
    model = read_model(file)
    image_input(file, model)
    run_limited(file, model, [{"x": np.zeros((2, 4, 4, 1), np.float32)}])


@pytest.mark.parametrize(("operator", "domain"), [("Gemma", ""), ("FusedGemm", "com.vendor")])
def test_an_operator_that_is_not_supported_is_named(operator: str, domain: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_model(operator, domain).SerializeToString())
    with pytest.raises(InputError, match=operator):
        read_and_run(tmp_path / "model.onnx")


@pytest.mark.parametrize("operation", ["ReadFile", "WriteFile", "PyFunc"])
def test_saved_models_that_reach_outside_are_refused(operation: str, tmp_path: Path) -> None:
    effects: dict[str, Any] = {
        "ReadFile": lambda: tf.strings.length(tf.io.read_file("/etc/hostname")),
        "WriteFile": lambda: tf.io.write_file(str(tmp_path / "written"), "x") or 0,
        "PyFunc": lambda: tf.numpy_function(lambda: np.int32(0), [], tf.int32),
    }

    @tf.function(input_signature=[tf.TensorSpec((None, 4, 4, 1), tf.float32)])
    def serve(image: tf.Tensor) -> tf.Tensor:
        effects[operation]()
        return tf.reduce_sum(image, (1, 2))

    module = tf.Module()
    module.serve = serve
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=serve)
    with pytest.raises(InputError, match=f"uses the operation {operation}"):
        load_saved_model(tmp_path / "model")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_memory_beyond_the_limit_is_not_allocated_and_the_limit_ends() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(2**28):
        np.ones(2**26, np.uint8)
        with pytest.raises(MemoryError):
            np.ones(2**29, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    np.ones(2**29, np.uint8)
