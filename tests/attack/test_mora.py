"""MORA against its formula written out example by example, and on targets that can be worked out."""

import numpy as np
import numpy.typing as npt
import pytest

from ncen_tf.attack.attack import Norm
from ncen_tf.attack.mora import Averages, Mora, mora_loss
from ncen_tf.attack.objectives import Objective
from ncen_tf.base.errors import InputError
from tests.attack.helpers import LinearTarget, images_and_predictions, linear_target, softmax

Array64 = npt.NDArray[np.float64]


def scores_of(z: Array64, frozen: Array64, y: int, share: float, averages: Averages) -> Array64:
    """Compute v of one example's logits z [k, C]; the constants are those of the logits ``frozen``."""
    members, classes = frozen.shape
    gap = max(sorted(row)[-1] - sorted(row)[-2] for row in frozen)
    s = max(1.0, gap / 10)
    p = [softmax(row / s) for row in frozen]
    if averages == "probabilities":
        f = sum(p) / members
        right = [int(row.argmax()) == y for row in frozen]
        average, a_frozen = (np.log(sum(softmax(row) for row in each) / members) for each in (z, frozen))
    else:
        f = softmax(sum(row / s for row in frozen) / members)
        right = [True] * members
        average, a_frozen = (sum(each) / members for each in (z, frozen))
    t = max((c for c in range(classes) if c != y), key=lambda c: f[c])
    w = [q[t] * (q[y] / f[y] + (1 - q[t]) / f[t]) for q in p]
    if any(right):
        w = [weight if r else 0.0 for weight, r in zip(w, right, strict=True)]
    mixed = sum(weight * row / s for weight, row in zip(w, z, strict=True)) / sum(w)
    ordered = sorted(a_frozen)
    return np.asarray((1 - share) * average / (ordered[-1] - ordered[-2]) + share * mixed)


def log_odds(v: Array64, y: int) -> float:
    others = np.delete(v, y)
    return float(np.log(sum(np.exp(c - max(others)) for c in others)) + max(others) - v[y])


@pytest.mark.parametrize("averages", ["probabilities", "logits"])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_the_loss_is_that_of_the_formula(averages: Averages, scale: float) -> None:
    z = np.random.default_rng(0).normal(scale=scale, size=(30, 3, 5))
    labels = np.random.default_rng(1).integers(5, size=30).astype(np.int32)
    labels[:20] = softmax(z).mean(axis=1).argmax(axis=1)[:20]
    losses, gradient = mora_loss(z, labels, 0.7, averages)
    step = 1e-6 * np.random.default_rng(2).normal(size=z.shape)
    for i, y in enumerate(labels):
        here, up, down = (
            log_odds(scores_of(each, z[i], y, 0.7, averages), y)
            for each in (z[i], z[i] + step[i], z[i] - step[i])
        )
        assert losses[i] == pytest.approx(here, rel=1e-6)
        assert (gradient[i] * step[i]).sum() == pytest.approx((up - down) / 2, rel=1e-3, abs=1e-9)


def test_weights_are_the_members_influence_on_the_odds_of_the_rival() -> None:
    """With share 1 and all members right: the derivative of log(F_t / F_y) by each member's logit t."""
    z = np.array([[[2.0, 1.5, -1.0], [3.0, -2.0, 0.0], [1.0, 0.8, 0.2]]])

    def odds(logits: Array64) -> float:
        f = softmax(logits[0]).mean(axis=0)
        return float(np.log(f[1] / f[0]))

    influence = []
    for member in range(3):
        step = np.zeros_like(z)
        step[0, member, 1] = 1e-6
        influence.append(odds(z + step) - odds(z - step))
    _, gradient = mora_loss(z, np.zeros(1, np.int32), 1.0)
    np.testing.assert_allclose(
        gradient[0, :, 1] / gradient[0, :, 1].sum(), np.array(influence) / sum(influence), rtol=1e-6
    )


def test_members_that_are_wrong_already_are_not_pushed_further() -> None:
    z = np.array([[[0.0, 5.0, 0.0], [4.0, 1.0, 0.0], [6.0, 1.0, 0.0]]])
    _, gradient = mora_loss(z, np.zeros(1, np.int32), 1.0)
    assert not gradient[0, 0].any()
    assert np.abs(gradient[0, 1:]).min(axis=1).max() > 0
    all_wrong = mora_loss(z - 10 * np.eye(3)[0], np.zeros(1, np.int32))[1]
    assert np.abs(all_wrong).max() > 0
    assert np.isfinite(mora_loss(300 * z, np.zeros(1, np.int32))[1]).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_it_stays_in_the_bound_and_breaks_what_can_be_broken(norm: Norm) -> None:
    target = linear_target()
    images, labels = images_and_predictions(target, 30)
    objective = Objective(target, "ensemble")
    found = Mora(eps=0.4, norm=norm, steps=20)(objective, images, labels, 0)
    change = np.abs(found - images).reshape(30, -1)
    size = change.max(axis=1) if norm == "Linf" else np.sqrt((change**2).sum(axis=1))
    assert size.max() <= 0.4 + 1e-5
    assert found.min() >= 0
    assert found.max() <= 1
    broken = objective.log_probabilities(found).argmax(axis=1) != labels
    assert broken.mean() > 0.6
    queries, gradients = objective.queries, objective.gradients
    assert Mora(eps=1e-4, steps=7)(objective, images[:1], labels[:1], 0).shape[0] == 1
    assert (objective.queries - queries, objective.gradients - gradients) == (8, 7)


def test_a_single_classifier_is_refused() -> None:
    target: LinearTarget = linear_target(members=1)
    images, labels = images_and_predictions(target, 2)
    with pytest.raises(InputError, match="linear is a single classifier: leave the attack out"):
        Mora(eps=0.1)(Objective(target, "ensemble"), images, labels, 0)
