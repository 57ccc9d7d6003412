"""The penalties against their formulas written as NumPy loops, and where gradients vanish."""

import itertools
import math
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.penalties import (
    JITTER,
    Penalty,
    cosines_to_mean,
    gradient_penalty,
    l_cos,
    l_norm,
    norm_deviations,
    pairwise_cosines,
    prediction_penalty,
    released_cos,
    released_norm,
)
from ncen_tf.ensembles.regularizers import (
    ADP,
    GAL,
    GPMR,
    NCE,
    NCL,
    GradientRegularizer,
    PredictionRegularizer,
)

Array = npt.NDArray[np.float64]


def random_gradients(members: int, examples: int = 6, size: int = 20) -> Array:
    generator = np.random.default_rng(members)
    return generator.normal(size=(examples, members, size)) * generator.lognormal(size=(examples, members, 1))


def brute_force(gradients: Array) -> tuple[Array, Array, Array, Array]:
    """c, d, L_cos and L_norm, all [N, k], with nothing but loops and the definitions."""
    examples, members, _ = gradients.shape
    c, d, cos, norm = (np.zeros((examples, members)) for _ in range(4))
    for b in range(examples):
        lengths = [math.sqrt(sum(v * v for v in gradients[b, i])) for i in range(members)]
        mean = sum(gradients[b, i] for i in range(members)) / members
        for i in range(members):
            c[b, i] = gradients[b, i] @ mean / (lengths[i] * math.sqrt(mean @ mean))
            d[b, i] = (lengths[i] - sum(lengths) / members) / (sum(lengths) / members)
        for i in range(members):
            cos[b, i] = c[b, i] * sum(c[b, j] for j in range(members) if j != i)
            norm[b, i] = d[b, i] * sum(d[b, j] for j in range(members) if j != i)
    return c, d, cos, norm


@pytest.mark.parametrize("members", [2, 3, 4, 5])
def test_paper_form_follows_the_formulas(members: int) -> None:
    gradients = random_gradients(members)
    c, d, cos, norm = brute_force(gradients)
    np.testing.assert_allclose(cosines_to_mean(gradients), c, atol=1e-9)
    np.testing.assert_allclose(norm_deviations(gradients), d, atol=1e-9)
    np.testing.assert_allclose(l_cos(gradients), cos, atol=1e-9)
    np.testing.assert_allclose(l_norm(gradients), norm, atol=1e-9)
    penalty = gradient_penalty(NCE(lambda_cos=0.7, lambda_norm=-0.3), tf.constant(gradients))
    expected = [sum(0.7 * cos[b] - 0.3 * norm[b]) / members for b in range(len(gradients))]
    np.testing.assert_allclose(penalty.value, expected, atol=1e-9)


@pytest.mark.parametrize("members", [2, 3, 4, 5])
def test_released_form_follows_the_authors_code(members: int) -> None:
    gradients = random_gradients(members)
    c, d, _, _ = brute_force(gradients)
    for b in range(len(gradients)):
        others = [[j for j in range(members) if j != i] for i in range(members)]
        norm = math.log(
            sum(math.exp(d[b, i] * sum(d[b, j] for j in others[i]) / members) for i in range(members))
        )
        cos = math.log(
            sum(math.exp(c[b, i]) * sum(math.exp(c[b, j]) for j in others[i]) for i in range(members))
        )
        np.testing.assert_allclose(released_norm(gradients)[b], norm, atol=1e-9)
        np.testing.assert_allclose(released_cos(gradients)[b], cos, atol=1e-9)
        penalty = gradient_penalty(NCE(0.5, 0.25, "released"), tf.constant(gradients))
        np.testing.assert_allclose(penalty.value[b], 0.5 * cos + 0.25 * norm, atol=1e-9)


@pytest.mark.parametrize("members", [2, 3, 4, 5])
def test_l_norm_is_minus_the_squared_deviation(members: int) -> None:
    gradients = random_gradients(members)
    d = norm_deviations(gradients).numpy()
    np.testing.assert_allclose(l_norm(gradients), -(d**2), atol=1e-12)
    assert l_norm(gradients).numpy().mean() >= -(members - 1)


@pytest.mark.parametrize("factor", [1e-9, 64.0, 1e12])
def test_a_common_factor_changes_nothing(factor: float) -> None:
    gradients = random_gradients(3)
    for term in (l_cos, l_norm, released_cos, released_norm):
        np.testing.assert_allclose(term(factor * gradients), term(gradients), atol=1e-9)


@pytest.mark.parametrize("regularizer", [NCE(), NCE(form="released"), GAL(), GPMR()])
@pytest.mark.parametrize(
    "scales", [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1e-30, 1, 1), (1e-25,) * 3, (1e-9,) * 3, (1e-20, 1e-18, 0)]
)
def test_vanishing_gradients_stay_finite(regularizer: GradientRegularizer, scales: tuple[float, ...]) -> None:
    scale = np.array(scales, np.float32)[np.newaxis, :, np.newaxis]
    gradients = tf.constant(random_gradients(3).astype(np.float32) * scale)
    with tf.GradientTape() as tape:
        tape.watch(gradients)
        penalty = gradient_penalty(regularizer, gradients)
        total = tf.reduce_sum(penalty.value)
    assert np.isfinite(penalty.value).all()
    assert np.isfinite(tape.gradient(total, gradients)).all()


def test_tiny_float32_gradients_keep_their_direction() -> None:
    """A confident ensemble's gradients, 1e-10 and less, still count in full."""
    gradients = random_gradients(3)
    tiny = tf.constant((1e-10 * gradients).astype(np.float32))
    np.testing.assert_allclose(cosines_to_mean(tiny), brute_force(gradients)[0], atol=1e-5)


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
    np.testing.assert_allclose(gradient_penalty(GAL(0.7), tf.constant(gradients)).value, expected, atol=1e-9)


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
    np.testing.assert_allclose(
        gradient_penalty(GPMR(0.3, 7.0), tf.constant(gradients)).value, expected, rtol=1e-9
    )


def test_gpmr_feels_the_scale_of_the_gradients() -> None:
    gradients = tf.constant(random_gradients(3))
    once, doubled = (gradient_penalty(GPMR(), scale * gradients).terms for scale in (1.0, 2.0))
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
        prediction_penalty(ADP(1.5, 0.4), tf.constant(logits), tf.constant(labels)).value, expected, rtol=1e-9
    )


@pytest.mark.parametrize("members", [2, 3, 5])
def test_ncl_follows_its_formula(members: int) -> None:
    logits = np.random.default_rng(members).normal(scale=2, size=(6, members, 7))
    expected = []
    for z in logits:
        p = np.array([np.exp(row) / np.exp(row).sum() for row in z])
        away = p - p.mean(0)
        products = [
            away[i] @ sum((away[j] for j in range(members) if j != i), np.zeros(7)) for i in range(members)
        ]
        expected.append(0.3 * sum(products) / members)
    penalty = prediction_penalty(NCL(0.3), tf.constant(logits), tf.zeros(6, tf.int32))
    np.testing.assert_allclose(penalty.value, expected, rtol=1e-9)


@pytest.mark.parametrize("spread", [0.0, 1.0, 200.0])
def test_adp_stays_finite_for_equal_and_for_saturated_members(spread: float) -> None:
    one = np.random.default_rng(0).normal(scale=spread, size=(4, 1, 10)).astype(np.float32)
    logits = tf.Variable(np.repeat(one, 3, axis=1))
    with tf.GradientTape() as tape:
        penalty = prediction_penalty(ADP(), logits, tf.constant([0, 1, 2, 3]))
    assert np.isfinite(penalty.value).all()
    assert np.isfinite(tape.gradient(penalty.value, logits)).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: NCE(form="other"), "`form` must be 'paper' or 'released', got 'other'"),  # type: ignore[arg-type]
        (lambda: GPMR(lambda_eq=math.inf), "`lambda_eq` must be a finite number"),
        (lambda: GAL(1e39), "`coefficient` must be finite in float32"),
        (lambda: prediction_penalty(ADP(), tf.zeros([2, 4, 4]), tf.constant([0, 1])), "got 4 and 4"),
    ],
)
def test_values_that_cannot_be_used_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        make()


def test_a_regularizer_of_ones_own_is_called() -> None:
    class Size(GradientRegularizer):
        term_names = ("size",)

        def __call__(self, gradients: tf.Tensor) -> Penalty:
            size = tf.reduce_mean(tf.square(gradients), axis=[1, 2])
            return Penalty(3.0 * size, {"size": size})

    gradients = random_gradients(2)
    penalty = gradient_penalty(Size(), tf.constant(gradients))
    np.testing.assert_allclose(penalty.value, 3 * (gradients**2).mean((1, 2)), rtol=1e-12)
    with pytest.raises(InputError, match="__call__"):
        gradient_penalty(GradientRegularizer(), tf.constant(gradients))
    with pytest.raises(InputError, match="__call__"):
        prediction_penalty(PredictionRegularizer(), tf.zeros([2, 2, 4]), tf.constant([0, 1]))
