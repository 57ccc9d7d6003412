"""Small files of every format that its reader accepts: what mutations start from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzzing.case import OUTSIDE, SECRET, Case

ROOT = Path(__file__).parents[2]
ARCHITECTURE = ("resnet8", "resnet8")
IMAGE_SHAPE, CLASSES = (8, 8, 1), 3


def write_seeds(folder: Path) -> None:
    """Write ``folder/FORMAT/...`` for each of ``tests.fuzzing.readers.READERS``, and hostile SavedModels."""
    from tests.fuzzing.hostile_saved_models import write_hostile_saved_models

    onnx_file = _onnx_model()
    report, transfer, record, cell = _report(), _transfer(), _record(), _cell()
    for name, files in {
        "onnx": {"ensemble.onnx": onnx_file},
        "onnx_parity": {"ensemble.onnx": onnx_file},
        "manifest": {"ensemble.onnx": onnx_file, "manifest.json": _manifest(onnx_file)},
        "flagfile": {"flags.cfg": (ROOT / "configs/quickstart.cfg").read_bytes()},
        "run_flags": {"flags.cfg": _flags()},
        "metrics": {"flags.cfg": _flags(), "metrics.jsonl": _metrics()},
        "gate": {"gate.toml": _GATE, "report.json": report},
        "suite": {"suite.toml": (ROOT / "configs/suites/example.toml").read_bytes()},
        "report": {"report.json": report},
        "transfer": {"transfer.json": transfer},
        "archives": _archives(),
        "grid": {"grid.cfg": (ROOT / "configs/grids/smoke.cfg").read_bytes()},
        "cell": cell,
        "records": {"a/result.json": record},
    }.items():
        Case(files).write(folder / name)
    _write_npz(folder)
    _write_keras(folder)
    _write_prepared(folder / "prepared")
    write_hostile_saved_models(folder / "hostile_saved_models", folder.parent / OUTSIDE / SECRET)


_GATE = b"""clean_accuracy = 0.5
agreement = 0.2

[[robust_accuracy]]
attack = "FGSM"
eps = 0.1
minimum = 0.25

[[robust_accuracy]]
attack = "worst case"
eps = 0.1
minimum = 0.1
"""


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode()


def _config() -> Any:
    from ncen_tf.training.config import TrainingConfig

    return TrainingConfig("fashion_mnist_sample", ARCHITECTURE, "nce", 0.02, 0.02, 2, 0.3)


def _flags() -> bytes:
    return "".join(f"--{name}={value}\n" for name, value in _config().to_flags().items()).encode()


def _measured(value: float) -> dict[str, Any]:
    from ncen_tf.reports.diagnostics import PANELS

    per_member = ("cosine_to_mean", "norm_deviation", "gradient_norm")
    test = {key: [value, value / 2] if key in per_member else value for key in PANELS}
    return test | {"member_ace": [value, value / 2]}


def _metrics() -> bytes:
    lines = [
        {
            "epoch": epoch,
            "learning_rate": 1e-3,
            "train": {"loss": 1.5, "ce": 1.0, "ace": 0.5},
            "test": _measured(0.1 * epoch),
            "seconds_per_step": 0.1,
        }
        for epoch in (1, 2)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _summary() -> dict[str, Any]:
    from ncen_tf.environment import describe_environment

    return {
        "test": _measured(0.5),
        "train": {"loss": 1.5},
        "parameters": 1000,
        "median_seconds_per_step": 0.1,
        "dataset": {
            "name": "fashion_mnist_sample",
            "source": "x",
            "train_examples": 600,
            "test_examples": 300,
        },
        "replicas": 1,
        "flags": _config().to_flags(),
        "environment": describe_environment(),
    }


class _Target:
    description, sha256, members, gives_logits = "onnx ensemble.onnx", "ab" * 32, 2, True
    image_shape, classes, providers = IMAGE_SHAPE, CLASSES, ("CPUExecutionProvider",)


def _suite_result() -> Any:
    from ncen_tf.attacks.results import AttackResult, SuiteResult

    labels = np.arange(6, dtype=np.int32) % CLASSES
    sizes, shown = np.full(6, 0.1, np.float32), np.full((2, *IMAGE_SHAPE), 0.5, np.float32)
    attacks = []
    for name in ("FGSM", "PGD"):
        settings = {"attack": name, "norm": "Linf", "eps": 0.1, "steps": 2}
        predictions = labels * (np.arange(6) < 4)
        attacks.append(
            AttackResult(settings, np.ones(6, bool), predictions, sizes, sizes, shown, 3.0, 2.0, 1.5)
        )
    return SuiteResult(labels, labels, attacks, 0)


def _report() -> bytes:
    from ncen_tf.attacks.suites import Suite
    from ncen_tf.reports.report import build_report

    target: Any = _Target()
    report = build_report(
        target,
        Suite("paper", ()),
        _suite_result(),
        objective="member_average",
        dataset="fashion_mnist",
        seed=0,
    )
    return _json(report)


def _transfer() -> bytes:
    from ncen_tf.attacks.fast_gradient import FastGradient
    from ncen_tf.transferability.record import build_transfer
    from ncen_tf.transferability.run import TransferResult

    labels = np.arange(6, dtype=np.int32) % CLASSES
    result = TransferResult(labels, np.stack([labels] * 2), [np.zeros((2, 2, 6), np.int32)], 0)
    members: Any = [_Target(), _Target()]
    return _json(
        build_transfer(
            members, [FastGradient(eps=0.1)], result, dataset="fashion_mnist", seed=0, batch_size=6
        )
    )


def _manifest(model: bytes) -> bytes:
    import hashlib

    from ncen_tf.environment import describe_environment

    content = {
        "format": 1,
        "dataset": "fashion_mnist_sample",
        "training_flags": _config().to_flags(),
        "accuracy": {"ace": 0.5, "test_examples": 300, "dataset_source": "x", "predictions_sha256": "0" * 64},
        "parity": {"ensemble.onnx": {"images": 300, "max_difference": 1e-7}},
        "reduced_precision": {},
        "environment": describe_environment(),
        "files": {"ensemble.onnx": {"size": len(model), "sha256": hashlib.sha256(model).hexdigest()}},
    }
    return _json(content)


def _record() -> bytes:
    report = json.loads(_report())
    return _json(
        {
            "format": 1,
            "name": "seed=0",
            "run": _summary(),
            "export": {"ace": 0.5, "test_examples": 300, "sha256": "0" * 64},
            "reports": {"paper": report},
            "seconds": {"train": 1.0, "export": 1.0, "paper": 1.0},
        }
    )


def _cell() -> dict[str, bytes]:
    entry = {"arguments": ["--argument"], "finished": True, "seconds": 1.0}
    return {
        "run/flags.cfg": _flags(),
        "run/summary.json": _json(_summary()),
        "export/manifest.json": _manifest(b""),
        "reports/quick/report.json": _report(),
        "stages.json": _json(dict.fromkeys(("train", "export", "quick"), entry)),
        "result.json": _record(),
    }


def _archives() -> dict[str, bytes]:
    import gzip
    import struct

    from ncen_tf.data.archives import ARCHIVE_NAMES

    images = struct.pack(">4I", 2051, 10, 28, 28) + bytes(7840)
    labels = struct.pack(">2I", 2049, 10) + bytes(range(10))
    return {
        name: gzip.compress(images if "images" in name else labels, mtime=0)
        for name in ARCHIVE_NAMES["fashion_mnist"]
    }


def _write_npz(folder: Path) -> None:
    from ncen_tf.attacks.results import SavedAdversarials, write_adversarials, write_result

    for name in ("adversarials", "attack_result"):
        (folder / name).mkdir()
    result = _suite_result()
    images = np.full((6, *IMAGE_SHAPE), 0.5, np.float32)
    settings = result.attacks[0].settings
    write_adversarials(
        folder / "adversarials" / "adversarials.npz",
        SavedAdversarials(images, images, result.labels, settings),
    )
    write_result(folder / "attack_result" / "result.npz", "the key", result.attacks[0])


def _onnx_model() -> bytes:
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


def _write_keras(folder: Path) -> None:
    """A small ``.keras`` file and SavedModel; a finished and an unfinished run of the smallest ResNets."""
    import keras

    from ncen_tf.exporting.saved_model import save_saved_model
    from ncen_tf.models.batch_norm import BatchNorm
    from ncen_tf.models.ensemble import Ensemble, build_ensemble
    from ncen_tf.training.checkpoint import RunCheckpoint
    from ncen_tf.training.nc_ensemble import NCEnsemble

    def member(index: int) -> keras.Model:
        image = keras.Input(IMAGE_SHAPE)
        hidden = BatchNorm()(keras.layers.Conv2D(4, 3, use_bias=False)(image))
        pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.LeakyReLU(0.1)(hidden))
        return keras.Model(image, keras.layers.Dense(CLASSES)(pooled), name=f"member_{index}")

    ensemble = Ensemble([member(0), member(1)])
    (folder / "keras").mkdir()
    ensemble.save(folder / "keras" / "ensemble.keras")
    save_saved_model(ensemble, IMAGE_SHAPE, folder / "saved_model")
    trained = build_ensemble(ARCHITECTURE, (28, 28, 1), ensemble_class=NCEnsemble)
    trained.compile(keras.optimizers.SGD())
    for name in ("run", "checkpoint"):
        Case({"flags.cfg": _flags(), "metrics.jsonl": _metrics()}).write(folder / name)
    trained.save(folder / "run" / "ensemble.keras")
    checkpoint = RunCheckpoint(trained, folder / "checkpoint" / "checkpoints", steps_per_epoch=10)
    checkpoint.epoch = 1
    checkpoint.save()


def _write_prepared(folder: Path) -> None:
    """A dataset as tensorflow-datasets keeps it, with a few images."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    # Archives that are refused keep a damaged dataset from being looked for on the network.
    Case(_archives()).write(folder)
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
