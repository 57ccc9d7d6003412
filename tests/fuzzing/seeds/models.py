"""Small models in every format."""

from pathlib import Path

import numpy as np

from tests.fuzzing.case import Case
from tests.fuzzing.seeds.runs import ARCHITECTURE, flags, metrics

IMAGE_SHAPE, CLASSES = (8, 8, 1), 3


def onnx_model() -> bytes:
    import onnx
    from onnx import helper, numpy_helper

    generator = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)

    nodes, initializers = [helper.make_node("Transpose", ["image"], ["nchw"], perm=[0, 3, 1, 2])], []
    for i in range(2):
        initializers += [
            weight(f"kernel{i}", 4, 1, 3, 3),
            weight(f"dense{i}", 4, CLASSES),
            weight(f"bias{i}", CLASSES),
        ]
        initializers += [weight(f"{part}{i}", 4) for part in ("scale", "shift", "mean")]
        initializers.append(numpy_helper.from_array(np.ones(4, np.float32), f"variance{i}"))
        statistics = [f"{part}{i}" for part in ("scale", "shift", "mean", "variance")]
        nodes += [
            helper.make_node("Conv", ["nchw", f"kernel{i}"], [f"conv{i}"], pads=[1, 1, 1, 1], strides=[1, 1]),
            helper.make_node("BatchNormalization", [f"conv{i}", *statistics], [f"normal{i}"]),
            helper.make_node("LeakyRelu", [f"normal{i}"], [f"active{i}"], alpha=0.1),
            helper.make_node("MaxPool", [f"active{i}"], [f"pool{i}"], kernel_shape=[2, 2], strides=[2, 2]),
            helper.make_node("GlobalAveragePool", [f"pool{i}"], [f"global{i}"]),
            helper.make_node("Reshape", [f"global{i}", "flat"], [f"features{i}"]),
            helper.make_node("Gemm", [f"features{i}", f"dense{i}", f"bias{i}"], [f"logits{i}"]),
            helper.make_node("Unsqueeze", [f"logits{i}", "one"], [f"member{i}"]),
        ]
    nodes += [
        helper.make_node("Concat", ["member0", "member1"], ["member_logits"], axis=1),
        helper.make_node("Softmax", ["member_logits"], ["softmax"], axis=-1),
        helper.make_node("ReduceMean", ["softmax"], ["probabilities"], axes=[1], keepdims=0),
    ]
    initializers += [
        numpy_helper.from_array(np.array([-1, 4], np.int64), "flat"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    graph = helper.make_graph(
        nodes,
        "ensemble",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", *IMAGE_SHAPE])],
        [
            helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, ["N", CLASSES]),
            helper.make_tensor_value_info("member_logits", onnx.TensorProto.FLOAT, ["N", 2, CLASSES]),
        ],
        initializers,
    )
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return model


def write_keras(folder: Path) -> None:
    """A small ``.keras`` file and SavedModel; a finished and an unfinished run of the smallest ResNets."""
    import keras

    from ncen_tf.export.conversion import save_saved_model
    from ncen_tf.ensembles.batch_norm import BatchNorm
    from ncen_tf.ensembles.ensemble import Ensemble, build_ensemble
    from ncen_tf.train.checkpoint import RunCheckpoint
    from ncen_tf.ensembles.ensemble import Ensemble

    def member(index: int) -> keras.Model:
        image = keras.Input(IMAGE_SHAPE)
        hidden = BatchNorm()(keras.layers.Conv2D(4, 3, use_bias=False)(image))
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.LeakyReLU(0.1)(hidden))
        return keras.Model(image, keras.layers.Dense(CLASSES)(pooled), name=f"member_{index}")

    ensemble = Ensemble([member(0), member(1)])
    (folder / "keras").mkdir()
    ensemble.save(folder / "keras" / "ensemble.keras")
    save_saved_model(ensemble.members, IMAGE_SHAPE, folder / "saved_model")
    trained = build_ensemble(ARCHITECTURE, (28, 28, 1))
    trained.compile(keras.optimizers.SGD())
    for name in ("run", "checkpoint"):
        Case({"flags.cfg": flags(), "metrics.jsonl": metrics()}).write(folder / name)
    trained.save(folder / "run" / "ensemble.keras")
    checkpoint = RunCheckpoint(trained, folder / "checkpoint" / "checkpoints", steps_per_epoch=10)
    checkpoint.epoch = 1
    checkpoint.save()
