"""Random numbers of images: distribution, and independence of batches, positions and draws."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from ncen_tf.attack.attack import Attack, Norm
from ncen_tf.attack.auto_pgd import AutoPgdCrossEntropy
from ncen_tf.attack.iterative import RestartedPgd
from ncen_tf.attack.mora import Mora
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.randomness import image_keys, normals, places, signs, uniforms
from ncen_tf.attack.square import Square
from tests.attack.helpers import images_and_predictions, linear_target, run

KEYS = image_keys(np.random.default_rng(0).uniform(size=(50, 4, 3, 1)).astype(np.float32), "test", 0)


def splitmix64(state: int) -> int:
    """The reference: the output that follows a state."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
    return z ^ z >> 31


def test_numbers_are_those_of_splitmix() -> None:
    found = uniforms(KEYS, 7, (2, 3))
    for i, key in enumerate(KEYS):
        for position in range(6):
            state = (int(key) + splitmix64((7 << 32) + position)) % 2**64
            assert found[i, position // 3, position % 3] == (splitmix64(state) >> 11) / 2**53
    # The first output of state 0 that the authors' C code prints.
    assert splitmix64(0) == 0xE220A8397B1DCDAF


def test_distributions() -> None:
    uniform = uniforms(KEYS, 0, (400,))
    assert stats.kstest(uniform.ravel(), "uniform").pvalue > 0.001
    assert stats.kstest(normals(KEYS, 1, (400,)).ravel(), "norm").pvalue > 0.001
    assert abs(signs(uniform).mean()) < 0.03
    assert np.bincount(places(uniform, 7).ravel()).min() > 0.9 * uniform.size / 7
    several = np.stack([uniforms(KEYS, draw, (400,)).ravel() for draw in range(4)])
    assert np.abs(np.corrcoef(several) - np.eye(4)).max() < 0.03
    assert np.abs(np.corrcoef(uniform) - np.eye(50)).max() < 0.25


def test_keys_tell_images_purposes_and_seeds_apart() -> None:
    images = np.random.default_rng(1).uniform(size=(20, 4, 3, 1)).astype(np.float32)
    made = [image_keys(images, *of) for of in (("a", 0), ("a", 1), ("b", 0))]
    assert len(np.unique(made)) == 60
    np.testing.assert_array_equal(image_keys(images[::-1], "a", 0), made[0][::-1])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("kind", [AutoPgdCrossEntropy, RestartedPgd, Square, Mora])
def test_an_attack_does_the_same_to_an_image_in_every_batch(kind: type[Attack], norm: Norm) -> None:
    """Also in another order, beside other images, and by the suite in batches of another size."""
    target = linear_target(scale=1.0)
    images, labels = images_and_predictions(target, 24)
    budgets: dict[str, dict[str, Any]] = {
        "Square": {"queries": 40},
        "PGD-restarts": {"steps": 5, "restarts": 3, "step_size": 0.01},
    }
    attack = kind(eps=0.03, norm=norm, **budgets.get(kind.name, {"steps": 15}))
    together = attack(Objective(target, "ensemble"), images, labels, 4)
    order = np.random.default_rng(2).permutation(24)[:11]
    among_others = attack(Objective(target, "ensemble"), images[order], labels[order], 4)
    np.testing.assert_allclose(among_others, together[order], atol=1e-6)
    small, large = (run(target, (images, labels), attack, seed=4, batch_size=size) for size in (5, 24))
    np.testing.assert_array_equal(small.attacks[0].predictions, large.attacks[0].predictions)
    np.testing.assert_allclose(small.attacks[0].l2, large.attacks[0].l2, atol=1e-6)
    assert not np.array_equal(attack(Objective(target, "ensemble"), images, labels, 5), together)
