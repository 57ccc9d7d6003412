"""The precision `auto`: chosen once, by what this machine has and by measuring, and kept by a run."""

from pathlib import Path

import pytest

import ncen_tf
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.precision import (
    Precision,
    fastest_precision,
    has_native_bfloat16,
    seconds_per_step,
)
from ncen_tf.train.run_directory import RunDirectory

CONFIG = TrainConfig.for_dataset(
    "fashion_mnist_sample", members=["resnet8"] * 2, regularizer=None, epochs=1, precision="auto"
)


@pytest.mark.parametrize(
    ("plain", "mixed", "expected"),
    [(2.0, 1.0, "mixed_bfloat16"), (1.0, 2.0, "float32"), (1.0, 1.0, "float32")],
)
def test_the_faster_precision_is_chosen(plain: float, mixed: float, expected: Precision) -> None:
    seconds: dict[Precision, float] = {"float32": plain, "mixed_bfloat16": mixed}
    assert fastest_precision(seconds.__getitem__, native=True) == expected


def test_nothing_is_measured_without_native_bfloat16() -> None:
    def refuse(precision: Precision) -> float:
        raise AssertionError(precision)

    assert fastest_precision(refuse, native=False) == "float32"


def test_a_step_is_measured_at_both_precisions() -> None:
    for precision in ("float32", "mixed_bfloat16"):
        seconds = seconds_per_step(precision, CONFIG.model_copy(update={"batch_size": 2}), (8, 8, 1), 3)
        assert 0 < seconds < 60


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
