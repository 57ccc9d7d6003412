import dataclasses
from typing import Any

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.train.config import ADVERSARIAL_TRAININGS, REGULARIZERS, TrainingConfig
from ncen_tf.train.objective import make_adversarial_training, make_regularizer

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


OTHERS: dict[str, Any] = {
    "lambda_cos": 0.5,
    "lambda_norm": 0.5,
    "nce_form": "released",
    "gal_coefficient": 0.3,
    "lambda_div": 0.3,
    "lambda_eq": 0.3,
    "adp_alpha": 0.3,
    "adp_beta": 0.3,
    "at_eps": 0.2,
    "at_steps": 3,
    "at_step_size": 0.3,
    "at_random_start": False,
    "at_loss": "members",
    "at_fraction": 0.5,
}
"""Other values than those of CONFIG."""


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("form", ["none", "pgd"])
def test_settings_without_effect_are_those_that_change_nothing(regularizer: str, form: str) -> None:
    config = dataclasses.replace(CONFIG, regularizer=regularizer, adversarial_training=form)

    def made(changed: TrainingConfig) -> tuple[object, object]:
        return make_regularizer(changed), make_adversarial_training(changed)

    idle = [
        name
        for name, value in OTHERS.items()
        if made(dataclasses.replace(config, **{name: value})) == made(config)
    ]
    without_effect = config.without_effect(OTHERS)
    assert list(without_effect) == idle
    assert set(without_effect.values()) <= {f"--regularizer={regularizer}", f"--adversarial_training={form}"}


@pytest.mark.parametrize("form", ADVERSARIAL_TRAININGS)
def test_only_trades_has_a_weight(form: str) -> None:
    without_effect = dataclasses.replace(CONFIG, adversarial_training=form).without_effect(["trades_beta"])
    assert bool(without_effect) == (form != "trades")
