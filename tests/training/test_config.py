import dataclasses

import pytest

from ncen_tf.errors import InputError
from ncen_tf.training.config import TrainingConfig

CONFIG = TrainingConfig(
    dataset="cifar10",
    architecture=("resnet20", "resnet8"),
    regularizer="nce",
    lambda_cos=0.06,
    lambda_norm=-0.04,
    epochs=3,
    noise_eps=0.09,
    train_examples=500,
    jit_compile=True,
    strategy="one_device",
)


def test_flags_give_the_settings_back() -> None:
    assert TrainingConfig.from_flags(CONFIG.to_flags()) == CONFIG
    assert "test_examples" not in CONFIG.to_flags()


@pytest.mark.parametrize(
    ("name", "text"), [("epochs", "three"), ("jit_compile", "maybe"), ("surprise", "1"), ("dataset", "svhn")]
)
def test_flags_that_no_run_has_are_refused(name: str, text: str) -> None:
    with pytest.raises(InputError):
        TrainingConfig.from_flags(CONFIG.to_flags() | {name: text})


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 0},
        {"noise_eps": -0.1},
        {"crop_padding": -1},
        {"crop_padding": 32},
        {"schedule": "linear"},
        {"learning_rate": float("inf")},
        {"learning_rate": 1e39},
        {"at_eps": 1e39},
        {"regularizer": "adp", "architecture": ("resnet20",) * 10},
        {"seed": -1},
        {"epochs": 16**5000},
        {"train_examples": -(16**5000)},
        {"virtual_devices": 2},
        {"sync_batch_norm": True, "strategy": "mirrored"},
        {"architecture": ("resnet20",)},
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="--"):
        dataclasses.replace(CONFIG, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999", "-1e39"])
@pytest.mark.parametrize("name", ["lambda_cos", "lambda_norm", "gal_coefficient", "lambda_eq", "adp_beta"])
def test_coefficients_are_finite(name: str, text: str) -> None:
    with pytest.raises(InputError, match=f"--{name} is finite in float32"):
        TrainingConfig.from_flags(CONFIG.to_flags() | {name: text})
