"""Training that diverges names step, part of the loss and member, and keeps a good checkpoint."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.ensembles.ensemble import Ensemble, build_ensemble
from ncen_tf.ensembles.regularizers import GPMR, NCE, GradientRegularizer, Penalty, Regularizer
from ncen_tf.train.checkpoint import checkpoint_path, checkpoint_steps
from ncen_tf.train.divergence import explain_divergence
from tests.conftest import Program

IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(4, 8, 8, 1)), tf.float32)
LABELS = tf.constant([0, 3, 3, 9])


def ensemble(regularizer: Regularizer | None) -> Ensemble:
    built = build_ensemble(("resnet8",) * 3, (8, 8, 1), seed=0)
    built.compile(keras.optimizers.SGD(), regularizer)
    built.optimizer.build(built.trainable_variables)
    return built


class InfiniteSlope(GradientRegularizer):
    """A penalty of 0 whose derivative for member 2 is NaN."""

    @property
    def term_names(self) -> tuple[str, ...]:
        return ("root",)

    def __call__(self, gradients: tf.Tensor) -> Penalty:
        root = tf.sqrt(0.0 * tf.reduce_sum(tf.square(gradients[:, 2]), axis=1))
        return Penalty(root, {"root": root})


@pytest.mark.parametrize("regularizer", [None, NCE(), GPMR()])
def test_finite_steps_are_not_blamed(regularizer: Regularizer | None) -> None:
    healthy = ensemble(regularizer)
    before = healthy.get_weights()
    assert explain_divergence(healthy, IMAGES, LABELS) is None
    for one, other in zip(before, healthy.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("regularizer", "scale", "cause"),
    [
        (None, 3e38, "ce is not finite, because of member 1"),
        (NCE(), 3e38, "ce and l_cos and l_norm are not finite, because of member 1"),
        (GPMR(), 1e21, "l_eq is not finite, because of member 1"),
        (InfiniteSlope(), 1.0, "the loss's gradient is not finite, because of member 2"),
    ],
)
def test_the_part_and_the_member_are_named(regularizer: Regularizer | None, scale: float, cause: str) -> None:
    """Member 1's logits are scaled until they, or the squares of their gradients, overflow."""
    diverged = ensemble(regularizer)
    kernel = diverged.members[1].layers[-1].kernel
    kernel.assign(kernel * scale)
    assert explain_divergence(diverged, IMAGES, LABELS) == cause


@pytest.mark.parametrize("extra", ["--checkpoint_every=500", "--checkpoint_every=1", "--virtual_devices=2"])
def test_a_diverging_run_says_where_and_keeps_a_good_checkpoint(
    extra: str, tmp_path: Path, run_program: Program
) -> None:
    """The first step throws the weights far out; a later one, before the next reading, overflows."""
    run = tmp_path / "run"
    done = run_program(
        "train",
        "--dataset=fashion_mnist_sample",
        "--architecture=resnet8,resnet8",
        "--regularizer=none",
        "--train_examples=20",
        "--test_examples=10",
        "--epochs=2",
        "--batch_size=8",
        "--learning_rate=1e30",
        extra,
        f"--run_dir={run}",
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    found = re.search(r"at step (\d+) of epoch 1: ce is not finite, because of member \d", error)
    assert found, error
    kept, failed = checkpoint_steps(run / "checkpoints"), int(found[1])
    assert f"checkpoint after {kept[-1]} steps in all is the last good one" in error
    assert kept[-1] == (failed - 1 if extra == "--checkpoint_every=1" else 0) < failed
    for number in kept:
        reader = tf.train.load_checkpoint(str(checkpoint_path(run / "checkpoints", number)))
        for name in reader.get_variable_to_shape_map():
            value = np.asarray(reader.get_tensor(name))
            assert value.dtype.kind != "f" or np.isfinite(value).all()
