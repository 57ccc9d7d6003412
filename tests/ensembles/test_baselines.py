"""GAL, GPMR and ADP against their formulas written out in NumPy loops, and where they could blow up."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from ncen_tf.ensembles.adp import ADP, JITTER

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.penalties import pairwise_cosines
from ncen_tf.ensembles.regularizers import GAL, GPMR, GradientRegularizer

Array = npt.NDArray[np.float64]


def random_gradients(members: int, examples: int = 6, size: int = 20) -> Array:
    generator = np.random.default_rng(members)
    return generator.normal(size=(examples, members, size)) * generator.lognormal(size=(examples, members, 1))


def cosine(a: Array, b: Array) -> float:
    return float(sum(a * b) / math.sqrt(sum(a * a) * sum(b * b)))


@pytest.mark.parametrize("members", [2, 3, 5])
def test_pairwise_cosines_are_those_of_every_pair(members: int) -> None:
    gradients = random_gradients(members)
    expected = [[cosine(a, b) for a, b in itertools.combinations(g, 2)] for g in gradients]
    np.testing.assert_allclose(pairwise_cosines(tf.constant(gradients)), expected, atol=1e-9)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_gal_follows_its_formula(members: int) -> None:
    gradients = random_gradients(members)
    expected = [
        0.7 * math.log(sum(math.exp(cosine(a, b)) for a, b in itertools.combinations(g, 2)))
        for g in gradients
    ]
    np.testing.assert_allclose(GAL(0.7)(tf.constant(gradients)).value, expected, atol=1e-9)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_gpmr_follows_its_formula(members: int) -> None:
    gradients = random_gradients(members)
    expected = []
    for g in gradients:
        pairs = list(itertools.combinations(g, 2))
        div = sum((cosine(a, b) + 1 / (members - 1)) ** 2 for a, b in pairs) * 2 / (members * (members - 1))
        norms = [math.sqrt(sum(v * v)) for v in g]
        eq = sum((n - sum(norms) / members) ** 2 for n in norms) / members
        expected.append(0.3 * div + 7 * eq)
    np.testing.assert_allclose(GPMR(0.3, 7.0)(tf.constant(gradients)).value, expected, rtol=1e-9)


def test_gpmr_feels_the_scale_of_the_gradients() -> None:
    gradients = tf.constant(random_gradients(3))
    once, doubled = (GPMR()(scale * gradients).terms for scale in (1.0, 2.0))
    np.testing.assert_allclose(doubled["l_eq"], 4 * once["l_eq"], rtol=1e-9)
    np.testing.assert_allclose(doubled["l_div"], once["l_div"], atol=1e-9)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_adp_follows_its_formula(members: int) -> None:
    generator = np.random.default_rng(members)
    logits = generator.normal(scale=2, size=(8, members, 10))
    labels = generator.integers(0, 10, size=8).astype(np.int32)
    expected = []
    for z, y in zip(logits, labels, strict=True):
        p = np.array([np.exp(row) / np.exp(row).sum() for row in z])
        mean = p.mean(0)
        columns = np.array([np.delete(row, y) / np.linalg.norm(np.delete(row, y)) for row in p])
        sign, logdet = np.linalg.slogdet(columns @ columns.T + JITTER * np.eye(members))
        assert sign > 0
        expected.append(-1.5 * -(mean * np.log(mean)).sum() - 0.4 * logdet)
    np.testing.assert_allclose(
        ADP(1.5, 0.4)(tf.constant(logits), tf.constant(labels)).value, expected, rtol=1e-9
    )


@pytest.mark.parametrize("spread", [0.0, 1.0, 200.0])
def test_adp_stays_finite_for_equal_and_for_saturated_members(spread: float) -> None:
    one = np.random.default_rng(0).normal(scale=spread, size=(4, 1, 10)).astype(np.float32)
    logits = tf.Variable(np.repeat(one, 3, axis=1))
    with tf.GradientTape() as tape:
        penalty = ADP()(logits, tf.constant([0, 1, 2, 3]))
    assert np.isfinite(penalty.value).all()
    assert np.isfinite(tape.gradient(penalty.value, logits)).all()


@pytest.mark.parametrize("regularizer", [GAL(), GPMR()])
@pytest.mark.parametrize("scales", [(0.0, 0.0, 0.0), (1.0, 0.0, 1.0), (1e-20, 1e-18, 0.0)])
def test_vanishing_gradients_stay_finite(regularizer: GradientRegularizer, scales: tuple[float, ...]) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(2, 3, 9)) * np.array(scales)[:, np.newaxis]
    gradients = tf.Variable(values.astype(np.float32))
    with tf.GradientTape() as tape:
        penalty = regularizer(gradients)
    assert np.isfinite(penalty.value).all()
    assert np.isfinite(tape.gradient(penalty.value, gradients)).all()


def test_coefficients_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="GPMR: lambda_eq is finite"):
        GPMR(lambda_eq=math.inf)
    with pytest.raises(InputError, match="ADP: alpha is finite"):
        ADP(alpha=math.nan)
    with pytest.raises(InputError, match="fewer members than classes; got 4 and 4"):
        ADP()(tf.zeros([2, 4, 4]), tf.constant([0, 1]))
