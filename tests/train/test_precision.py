"""The precision `auto`: chosen once, by what this machine has and by measuring, and kept by a run."""

from pathlib import Path

import pytest
import tensorflow as tf

import ncen_tf
from ncen_tf.train import devices
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.devices import Precision, fastest_precision, has_native_bfloat16, seconds_per_step
from ncen_tf.train.run_directory import DataRecord, RunDirectory

CONFIG = TrainConfig.for_dataset(
    "fashion_mnist_sample", members=["resnet8"] * 2, regularizer=None, epochs=1, precision="auto"
)


DATA = DataRecord(
    name="small",
    source="made up",
    image_shape=(8, 8, 1),
    class_names=("a", "b", "c"),
    train_examples=2,
    test_examples=2,
    sha256="",
)


@pytest.mark.parametrize(
    ("plain", "mixed", "expected"),
    [(2.0, 1.0, "mixed_bfloat16"), (1.0, 2.0, "float32"), (1.0, 1.0, "float32")],
)
def test_the_faster_precision_is_chosen(
    plain: float, mixed: float, expected: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"float32": plain, "mixed_bfloat16": mixed}
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda: True)
    monkeypatch.setattr(devices, "seconds_per_step", lambda precision, *_: seconds[precision])
    assert fastest_precision(CONFIG, DATA, tf.distribute.get_strategy()) == expected


def test_nothing_is_measured_without_native_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(precision: Precision, *_: object) -> float:
        raise AssertionError(precision)

    monkeypatch.setattr(devices, "has_native_bfloat16", lambda: False)
    monkeypatch.setattr(devices, "seconds_per_step", refuse)
    assert fastest_precision(CONFIG, DATA, tf.distribute.get_strategy()) == "float32"


def test_a_step_is_measured_at_both_precisions() -> None:
    config = CONFIG.model_copy(update={"batch_size": 2})
    precisions: tuple[Precision, ...] = ("float32", "mixed_bfloat16")
    for precision in precisions:
        assert 0 < seconds_per_step(precision, config, DATA) < 60


def test_a_run_records_the_precision_and_keeps_it(tmp_path: Path) -> None:
    data = ncen_tf.load_data("fashion_mnist_sample", train_examples=20, test_examples=10)
    config = CONFIG.model_copy(update={"batch_size": 10})
    run = RunDirectory(tmp_path / "run")
    trained = ncen_tf.train_ensemble(config, data, run.path, progress=False)
    assert trained.config == run.read_config()
    assert trained.config.precision in (
        ("float32", "mixed_bfloat16") if has_native_bfloat16() else ("float32",)
    )
    # As if it had begun on another machine.
    other = "float32" if trained.config.precision == "mixed_bfloat16" else "mixed_bfloat16"
    trained.config.model_copy(update={"precision": other}).write(run.config_file)
    again = ncen_tf.train_ensemble(config, data, run.path, progress=False)
    assert again.config.precision == other
