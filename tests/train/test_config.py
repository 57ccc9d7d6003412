"""Settings of a training run: from Python, from flags, from a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncen_tf
from ncen_tf.base.errors import InputError
from ncen_tf.base.flags import flags_of
from ncen_tf.ensembles.regularizers import ADP, DVERGE, GAL, GPMR, NCE, NCL, TRS, AdversarialTraining
from ncen_tf.train.config import TrainConfig

CONFIG = TrainConfig.for_dataset(
    "cifar10",
    members=["resnet20", "resnet8"],
    regularizer=NCE(0.06, -0.04),
    epochs=3,
    train_examples=500,
    jit_compile=True,
    strategy="one_device",
)


@pytest.mark.parametrize(
    "regularizer",
    [None, NCE(0.1, -0.2, "released"), GAL(0.1), GPMR(1, 2), ADP(3, 4), NCL(2), TRS(1, 2), DVERGE(0.2, 3)],
)
@pytest.mark.parametrize("adversarial", [None, AdversarialTraining("trades", 0.2, 3, loss="members", beta=2)])
def test_flags_and_files_give_the_settings_back(
    regularizer: Any, adversarial: AdversarialTraining | None, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"regularizer": regularizer, "adversarial_training": adversarial})
    assert TrainConfig.from_flags(config.flat()) == config
    config.write(tmp_path / "config.json")
    assert TrainConfig.read(tmp_path / "config.json") == config


def test_defaults_are_those_of_the_paper_for_each_dataset() -> None:
    fashion, cifar = (
        TrainConfig.for_dataset("fashion_mnist_sample"),
        TrainConfig.from_flags({"dataset": "cifar10"}),
    )
    assert (fashion.epochs, fashion.noise_eps, fashion.flip) == (40, 0.3, False)
    assert (cifar.epochs, cifar.noise_eps, cifar.flip) == (60, 0.09, True)
    assert (fashion.regularizer, cifar.regularizer) == (NCE(0.02, 0.02), NCE(0.06, 0.04))
    flags = {"dataset": "cifar10", "regularizer": "gpmr", "adversarial_training": "pgd", "at_steps": 4}
    chosen = TrainConfig.from_flags(flags)
    assert chosen.regularizer == GPMR(0.04, 10)
    assert chosen.adversarial_training == AdversarialTraining(eps=8 / 255, steps=4)
    assert TrainConfig.from_flags({"dataset": "cifar10", "lambda_cos": 0.5}).regularizer == NCE(0.5, 0.04)


@pytest.mark.parametrize(
    ("image_shape", "usual"),
    [
        ((28, 28, 1), (0.3, 4, 0.1)),
        ((32, 32, 3), (0.09, 4, 8 / 255)),
        ((48, 60, 3), (0.09, 6, 8 / 255)),
        ((224, 224, 1), (4 / 255, 28, 4 / 255)),
        ((3, 9, 1), (0.3, 0, 0.1)),
    ],
)
def test_images_of_a_user_decide_what_is_not_given(
    image_shape: tuple[int, int, int], usual: tuple[float, ...]
) -> None:
    flags = {"dataset": "photos", "regularizer": "trs", "trs_steps": 2, "adversarial_training": "pgd"}
    config = TrainConfig.from_flags(flags).for_images(image_shape)
    trained = config.adversarial_training
    assert trained is not None
    assert (config.noise_eps, config.crop_padding, trained.eps) == usual
    assert config.regularizer == TRS(eps=usual[2], steps=2)
    assert (config.epochs, config.flip, config.by_images) == (40, False, ())
    given = {"noise_eps": 0.5, "crop_padding": 1, "at_eps": 0.2, "trs_eps": 0.3}
    assert TrainConfig.from_flags(flags | given).for_images(image_shape).flat().items() >= given.items()
    images = np.zeros((2, *image_shape), np.uint8)
    data = ncen_tf.load_data(((images, [0, 1]), (images, [0, 1])))
    own = TrainConfig.for_dataset(data, adversarial_training=AdversarialTraining(eps=0.6), crop_padding=2)
    assert (own.dataset, own.noise_eps, own.crop_padding) == ("arrays", usual[0], 2)
    assert own.adversarial_training == AdversarialTraining(eps=0.6)


def test_structures_of_the_paper_stand_for_architectures() -> None:
    assert TrainConfig.from_flags({}).members == ("resnet20",) * 3
    members = TrainConfig.from_flags({"structure": "Ensemble4", "members": 5}).members
    assert members == ("resnet20", "resnet20", "resnet26", "resnet26", "resnet32")
    with pytest.raises(InputError, match="3, 4 or 5"):
        TrainConfig.from_flags({"members": 7})
    assert TrainConfig.from_flags({"members": 4, "architecture": ["resnet8"] * 2}).members == ("resnet8",) * 2


def test_flat_settings_are_those_that_have_an_effect() -> None:
    flat = CONFIG.flat()
    assert flat["architecture"] == ("resnet20", "resnet8")
    assert (flat["regularizer"], flat["lambda_norm"]) == ("nce", -0.04)
    absent = {"gal_coefficient", "lambda_div", "at_eps", "trades_beta"}
    assert absent.isdisjoint(flat)
    cosine = TrainConfig(schedule="cosine", adversarial_training=AdversarialTraining()).flat()
    assert {"decay_every", "trades_beta"}.isdisjoint(cosine)
    assert cosine["at_eps"] == 0.1


@pytest.mark.parametrize(
    ("flags", "idle"),
    [
        ({"regularizer": "gal", "lambda_cos": 0.1, "gal_coefficient": 0.1}, ["lambda_cos"]),
        ({"regularizer": "none", "adp_alpha": 1.0}, ["adp_alpha"]),
        ({"at_steps": 3, "epochs": 2}, ["at_steps"]),
        ({"adversarial_training": "pgd", "at_steps": 3, "trades_beta": 2.0}, ["trades_beta"]),
        ({"adversarial_training": "trades", "trades_beta": 2.0}, []),
        ({"schedule": "cosine", "decay_every": 2}, ["decay_every"]),
    ],
)
def test_settings_without_effect_are_named(flags: dict[str, Any], idle: list[str]) -> None:
    assert list(TrainConfig.from_flags(flags).without_effect(flags)) == idle


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"batch_size": 0}, "`batch_size` must be greater than or equal to 1, got 0"),
        ({"schedule": "linear"}, "`schedule` must be 'steps' or 'cosine', got 'linear'"),
        ({"learning_rate": float("inf")}, "`learning_rate` must be a finite number"),
        ({"learning_rate": 1e39}, "`learning_rate` must be finite in float32"),
        ({"adversarial_training": "pgd", "at_eps": 0}, r"`adversarial_training.eps` must be greater than 0"),
        ({"adversarial_training": "fgsm"}, "must be 'pgd' or 'trades', got 'fgsm'"),
        ({"regularizer": "surprise"}, "`regularizer` must be one of 'nce'"),
        ({"epochs": "three"}, "`epochs` must be a valid integer"),
        ({"virtual_devices": 2, "strategy": "one_device"}, "`virtual_devices` above 1 needs"),
        ({"sync_batch_norm": True, "jit_compile": True}, "`jit_compile` compiles each replica on its own"),
        ({"architecture": ["resnet20"]}, "at least two names"),
        ({"architecture": ["resnet20", "resnet21"]}, "'resnet21'"),
        ({"image_size": ["x"]}, "`image_size.0` must be a valid integer"),
        ({"surprise": 1}, "`surprise` is not a setting"),
    ],
)
def test_settings_that_cannot_work_are_refused(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        TrainConfig.from_flags(flags)


def test_every_flag_has_a_description_and_numbers_may_be_fractions() -> None:
    assert all(flag.help for flag in flags_of(TrainConfig))
    assert TrainConfig.from_flags({"noise_eps": "8/255"}).noise_eps == 8 / 255
    with pytest.raises(ValueError, match="frozen"):
        CONFIG.epochs = 5
