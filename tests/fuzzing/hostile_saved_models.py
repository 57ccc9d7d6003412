"""SavedModels that reach for files or run code, when they are loaded or when they are asked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.fuzzing.seeds.models import CLASSES, IMAGE_SHAPE


def write_hostile_saved_models(folder: Path, secret: Path) -> None:
    """Write ``folder/KIND/...``.

    Args:
        folder: is made.
        secret: what they reach for.
    """
    for kind, act in _ACTS.items():
        module = tf.Module()
        module.weights = tf.Variable(tf.ones((64, CLASSES)))
        _save(module, act, str(secret), folder / kind)
    module = tf.Module()
    module.weights = tf.Variable(tf.ones((64, CLASSES)))
    words = folder / "words.txt"
    words.write_text("a\nb\n")
    file = tf.lookup.TextFileInitializer(
        str(words),
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    module.table = tf.lookup.StaticHashTable(file, -1)
    for kind in ("words", "words elsewhere"):
        _save(module, lambda _: module.table.lookup(tf.constant("a")), "", folder / kind)
    words.unlink()
    path = folder / "words elsewhere" / "saved_model.pb"
    content = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    content.meta_graphs[0].asset_file_def[0].filename = f"../../{secret.parent.name}/{secret.name}"
    path.write_bytes(content.SerializeToString())


def _save(module: tf.Module, act: Callable[[str], Any], secret: str, folder: Path) -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, *IMAGE_SHAPE), tf.float32, name="image")])
    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        acted = act(secret)
        with tf.control_dependencies([] if acted is None else [acted]):
            logits = tf.reshape(image, [-1, 64]) @ module.weights
        return {"probabilities": tf.nn.softmax(logits), "member_logits": logits[:, tf.newaxis]}

    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})


def _save_tensors(secret: str) -> Any:
    return tf.raw_ops.SaveV2(prefix=secret, tensor_names=["x"], shape_and_slices=[""], tensors=[tf.ones(1)])


def _restore_tensors(secret: str) -> Any:
    prefix = secret.removesuffix(".bin")
    return tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=["x"], shape_and_slices=[""], dtypes=[tf.float32]
    )[0]


def _in_a_branch(secret: str) -> Any:
    return tf.cond(tf.random.uniform([]) < 2, lambda: tf.io.read_file(secret), lambda: tf.constant(""))


def _in_a_loop(secret: str) -> Any:
    return tf.while_loop(lambda text: tf.strings.length(text) < 1, lambda _: [tf.io.read_file(secret)], [""])[
        0
    ]


def _in_a_mapping(secret: str) -> Any:
    return tf.map_fn(lambda _: tf.io.read_file(secret), tf.zeros(2), fn_output_signature=tf.string)


_ACTS: dict[str, Callable[[str], Any]] = {
    "read": tf.io.read_file,
    "write": lambda secret: tf.io.write_file(secret, "x"),
    "list": tf.io.matching_files,
    "print": lambda secret: tf.print("x", output_stream=f"file://{secret}"),
    "python": lambda secret: tf.numpy_function(lambda: 0.0, [], tf.float64),
    "lines": lambda secret: tf.data.TextLineDataset(secret).reduce(
        tf.constant(0), lambda total, _: total + 1
    ),
    "cache": lambda secret: (
        tf.data.Dataset.range(2).cache(secret).reduce(tf.constant(0), lambda total, _: total + 1)
    ),
    "save": _save_tensors,
    "restore": _restore_tensors,
    "map": lambda secret: tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[1], memory_region_name=secret),
    "branch": _in_a_branch,
    "loop": _in_a_loop,
    "mapping": _in_a_mapping,
}
