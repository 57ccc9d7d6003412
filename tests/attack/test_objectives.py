"""Objectives against cross-entropies written out in NumPy, float64, and central differences."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.objectives import (
    Objective,
    member_average_columns,
    stacked_softmax,
)
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.penalties import log_mean_probabilities
from tests.attack.conftest import Examples
from tests.attack.stand_in import KerasTarget

Array = npt.NDArray[np.float64]
Columns = Callable[[tf.Tensor], tf.Tensor]
Expected = Callable[[Array, npt.NDArray[np.int64]], Array]
LABELS = np.array([0, 3, 1, 2, 2])


def logits(scale: float, members: int = 3) -> Array:
    return np.random.default_rng(4).normal(scale=scale, size=(5, members, 4))


def softmax(z: Array) -> Array:
    exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def averaged_ce(z: Array, labels: npt.NDArray[np.int64]) -> Array:
    probabilities = softmax(z)
    return np.array(
        [np.mean([-np.log(p[y]) for p in ps]) for ps, y in zip(probabilities, labels, strict=True)]
    )


def ensemble_ce(z: Array, labels: npt.NDArray[np.int64]) -> Array:
    mean = softmax(z).mean(axis=1)
    return np.array([-np.log(p[y]) for p, y in zip(mean, labels, strict=True)])


def ce_and_gradient(
    columns_of: Columns, z: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]
) -> tuple[Array, Array]:
    x = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, columns_of(x))
    return loss.numpy(), tape.gradient(loss, x).numpy()


def released_ce(z: Array, labels: npt.NDArray[np.int64]) -> Array:
    thrice = softmax(softmax(softmax(z).mean(axis=1)))
    return np.array([-np.log(p[y]) for p, y in zip(thrice, labels, strict=True)])


CASES: list[tuple[Columns, Expected]] = [
    (member_average_columns, averaged_ce),
    (log_mean_probabilities, ensemble_ce),
    (stacked_softmax, released_ce),
]


@pytest.mark.parametrize(("columns_of", "expected"), CASES)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("members", [1, 3])
def test_values_and_gradients(columns_of: Columns, expected: Expected, scale: float, members: int) -> None:
    z = logits(scale, members)
    loss, gradient = ce_and_gradient(columns_of, z, LABELS)
    # With one member nothing is left for the last column, whose floor of 1e-12 then shows.
    np.testing.assert_allclose(loss, expected(z, LABELS), atol=1e-11)
    step = 1e-6
    for index in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[index] += step
        down[index] -= step
        slope = (expected(up, LABELS) - expected(down, LABELS)).sum() / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=2e-8)


@pytest.mark.parametrize(("columns_of", "expected"), CASES)
@pytest.mark.parametrize("margin", [0.0, 8.0, 20.0, 40.0])
def test_confident_members_keep_their_gradient_in_float32(
    columns_of: Columns, expected: Expected, margin: float
) -> None:
    """A clamp that cut the gradient off would make confident examples look robust."""
    z = logits(0.5)
    z[np.arange(5), :, LABELS] += margin
    _, exact = ce_and_gradient(columns_of, z, LABELS)
    loss, gradient = ce_and_gradient(columns_of, z.astype(np.float32), LABELS)
    assert np.isfinite(loss).all()
    others = np.ones_like(z, bool)
    others[np.arange(5), :, LABELS] = False  # 1 - p at the true class is lost to float32 in any CE
    np.testing.assert_allclose(gradient[others], exact[others], rtol=2e-3)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4])
def test_members_that_agree_exactly_stay_finite(value: float) -> None:
    z = np.zeros((2, 3, 4), np.float32)
    z[:, :, 0] = value
    for columns_of, _ in CASES:
        loss, gradient = ce_and_gradient(columns_of, z, np.array([0, 1]))
        assert np.isfinite(loss).all()
        assert np.isfinite(gradient).all()


def test_uses_are_counted_for_each_image(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "ensemble")
    images = tf.constant(examples[0][:6])
    objective.log_probabilities(images)
    assert (objective.queries, objective.gradients) == (6, 0)
    with tf.GradientTape() as tape:
        tape.watch(images)
        columns = objective(images)
    tape.gradient(columns, images)
    assert (objective.queries, objective.gradients) == (12, 6)


def test_unknown_objective_is_refused(target: KerasTarget) -> None:
    with pytest.raises(InputError, match=r"ensemble, .*; got 'averaged'"):
        Objective(target, "averaged")  # type: ignore[arg-type]
