"""NCE against the formulas written out in NumPy loops, and where gradients vanish."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.penalties import (
    NCE,
    cosines_to_mean,
    l_cos,
    l_norm,
    norm_deviations,
    released_cos,
    released_norm,
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
    penalty = NCE(lambda_cos=0.7, lambda_norm=-0.3)(tf.constant(gradients))
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
        penalty = NCE(0.5, 0.25, "released")(tf.constant(gradients))
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


@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("scales", [(0, 0, 0), (0, 1, 1), (1e-30, 1, 1), (1e-25, 1e-25, 1e-25), (1e-9,) * 3])
def test_vanishing_gradients_stay_finite(form: str, scales: tuple[float, ...]) -> None:
    scale = np.array(scales, np.float32)[np.newaxis, :, np.newaxis]
    gradients = tf.constant(random_gradients(3).astype(np.float32) * scale)
    with tf.GradientTape() as tape:
        tape.watch(gradients)
        penalty = NCE(form=form)(gradients)
        total = tf.reduce_sum(penalty.value)
    assert np.isfinite(penalty.value).all()
    assert np.isfinite(tape.gradient(total, gradients)).all()


def test_tiny_float32_gradients_keep_their_direction() -> None:
    """A confident ensemble's gradients, 1e-10 and less, still count in full."""
    gradients = random_gradients(3)
    tiny = tf.constant((1e-10 * gradients).astype(np.float32))
    np.testing.assert_allclose(cosines_to_mean(tiny), brute_force(gradients)[0], atol=1e-5)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match="'paper' or 'released'"):
        NCE(form="other")
    with pytest.raises(InputError, match="finite"):
        NCE(lambda_cos=math.nan)
