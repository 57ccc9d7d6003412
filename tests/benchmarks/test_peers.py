"""The other side of each comparison does the same work: PyTorch's members, losses, steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.resnet import build_resnet
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.ensembles.ensemble import Ensemble

torch = pytest.importorskip("torch")

SHAPE = (28, 28, 1)
rng = np.random.default_rng(11)
IMAGES = rng.uniform(size=(6, *SHAPE)).astype(np.float32)
LABELS = rng.integers(10, size=6).astype(np.int32)


def members(count: int) -> list[keras.Model]:
    """Of which no weight has its neutral value."""
    made = [build_resnet(8, SHAPE, seed=seed) for seed in range(count)]
    for variable in (v for member in made for v in member.variables):
        if len(variable.shape) == 1:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return made


def test_copies_give_the_ensembles_probabilities() -> None:
    from benchmarks.peers.torch_resnet import torch_predictor

    made = members(3)
    expected = Ensemble(made).predict_probabilities(IMAGES).numpy()
    np.testing.assert_allclose(torch_predictor(made)(IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_both_sides_have_the_same_loss_and_nce_terms(count: int) -> None:
    from benchmarks.peers.agreement import losses_of_both

    ours, theirs = losses_of_both(members(count), NCE(lambda_cos=0.7, lambda_norm=-0.4), IMAGES, LABELS)
    assert set(ours) == set(theirs) == {"loss", "ce", "l_cos", "l_norm"}
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert (abs(ours["l_norm"]) > 1e-3) == (count > 1)


def test_sides_that_differ_are_not_compared() -> None:
    from benchmarks.peers.agreement import check_agreement

    made = members(2)
    check_agreement(made, IMAGES, LABELS)
    for layer in made[0].layers:
        if isinstance(layer, keras.layers.LeakyReLU):
            layer.negative_slope = 0.3
    with pytest.raises(RuntimeError, match="With the same weights"):
        check_agreement(made, IMAGES, LABELS)


def test_both_sides_take_the_same_step() -> None:
    from benchmarks.peers.devices import nchw, to_torch
    from benchmarks.peers.torch_resnet import copy_member
    from benchmarks.peers.torch_training import TorchTraining

    made, nce = members(2), NCE(lambda_cos=0.5, lambda_norm=0.5)
    copies = [copy_member(member) for member in made]
    TorchTraining(copies, nce).step(nchw(IMAGES), to_torch(LABELS))
    ensemble = Ensemble(made)
    ensemble.compile(keras.optimizers.Adam(1e-3, epsilon=1e-8), nce)  # PyTorch's epsilon
    before = [member.layers[1].get_weights()[0] for member in made]
    ensemble.train_step((tf.constant(IMAGES), tf.constant(LABELS)))
    for member, copy, old in zip(made, copies, before, strict=True):
        kernel = member.layers[1].get_weights()[0]
        moved = copy.conv.weight.detach().numpy().transpose(2, 3, 1, 0)
        assert np.median(np.abs(kernel - old)) > 5e-4
        # Adam's first step is the rate times the gradient's sign, which only rounding turns.
        assert np.mean(np.abs(kernel - moved) < 1e-4) > 0.97


def test_an_ensemble_of_another_architecture_is_not_copied() -> None:
    from benchmarks.peers.torch_resnet import copy_member

    image = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(keras.layers.Conv2D(4, 3)(image))
    with pytest.raises(ValueError, match="is no ResNet2"):
        copy_member(keras.Model(image, keras.layers.Dense(10)(flat)))
