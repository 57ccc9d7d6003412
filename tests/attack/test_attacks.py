"""Every attack in one table, and what each of the project's own ones promises."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.diverse_input import DiverseInput
from ncen_tf.attack.foolbox_attacks import DeepFool
from ncen_tf.attack.momentum_iterative import MomentumIterative
from ncen_tf.attack.objectives import Objective, ObjectiveName
from ncen_tf.attack.projected_gradient_descent import ProjectedGradientDescent
from ncen_tf.attack.registry import ATTACKS
from ncen_tf.attack.square import Square
from ncen_tf.base.errors import InputError
from tests.attack.conftest import Examples
from tests.attack.stand_in import KerasTarget, ResidualTarget

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]

# Cheap settings, the number of images, and the module an attack needs.
TABLE: dict[str, tuple[dict[str, Any], int, str]] = {
    "FGSM": ({"eps": 0.1}, 8, "cleverhans"),
    "MI-FGSM": ({"eps": 0.1, "steps": 8, "step_size": 0.02}, 8, "cleverhans"),
    "PGD": ({"eps": 0.1, "steps": 8, "step_size": 0.02}, 8, "cleverhans"),
    "BIM": ({"eps": 0.1, "steps": 8, "step_size": 0.02}, 8, "cleverhans"),
    "DIM": ({"eps": 0.1, "steps": 8, "step_size": 0.02}, 8, "cleverhans"),
    "SGM": ({"eps": 0.1, "steps": 8, "step_size": 0.02}, 8, "cleverhans"),
    "PGD-restarts": ({"eps": 0.1, "steps": 8, "step_size": 0.02, "restarts": 2}, 8, "tensorflow"),
    "APGD-CE": ({"eps": 0.1, "steps": 8}, 8, "tensorflow"),
    "APGD-DLR": ({"eps": 0.1, "steps": 8}, 8, "tensorflow"),
    "APGD-T": ({"eps": 0.1, "steps": 8, "targets": 3}, 8, "tensorflow"),
    "Transfer-mean-logit": ({"eps": 0.1, "steps": 8}, 8, "tensorflow"),
    "Transfer-members": ({"eps": 0.1, "steps": 8}, 8, "tensorflow"),
    "Square": ({"eps": 0.1, "queries": 100}, 8, "tensorflow"),
    "DeepFool": ({"eps": 3.0, "steps": 20}, 8, "foolbox"),
    "CW": ({"eps": 3.0, "steps": 60, "binary_search_steps": 3, "step_size": 0.05}, 8, "foolbox"),
    "ZOO": ({"eps": 5.0, "iterations": 20, "step_size": 0.2}, 3, "art"),
    "Boundary": ({"eps": 8.0, "iterations": 40}, 3, "art"),
    "HopSkipJump": ({"eps": 5.0, "iterations": 2, "evaluations": 200}, 3, "art"),
}
# Changes to the settings of attacks that know both norms.
IN_L2: dict[str, dict[str, Any]] = {
    "MI-FGSM": {"norm": "L2", "eps": 2.0, "step_size": 0.3},
    "PGD-restarts": {"norm": "L2", "eps": 2.0, "step_size": 0.5},
    "APGD-CE": {"norm": "L2", "eps": 2.0},
    "APGD-DLR": {"norm": "L2", "eps": 2.0},
    "APGD-T": {"norm": "L2", "eps": 2.0},
    "Transfer-members": {"norm": "L2", "eps": 2.0},
    "Square": {"norm": "L2", "eps": 4.0},
}


def broken(objective: Objective, images: Array, labels: Labels) -> int:
    return int((np.argmax(objective.log_probabilities(images), axis=1) != labels).sum())


def right_examples(objective: Objective, examples: Examples, count: int) -> Examples:
    images, labels = examples
    right = np.argmax(objective.log_probabilities(images), axis=1) == labels
    return images[right][:count], labels[right][:count]


def test_the_table_is_complete() -> None:
    assert TABLE.keys() == ATTACKS.keys()


@pytest.mark.parametrize(("name", "changes"), [*((name, {}) for name in TABLE), *IN_L2.items()])
def test_every_attack_breaks_images_inside_its_ball(
    name: str,
    changes: dict[str, Any],
    residual_target: ResidualTarget,
    target: KerasTarget,
    examples: Examples,
) -> None:
    settings, count, module = TABLE[name]
    pytest.importorskip(module)
    attack = ATTACKS[name](**(settings | changes))
    several = name.startswith("Transfer")  # a single classifier has no stand-ins to attack
    objective = Objective(target if several else residual_target, "member_average")
    images, labels = right_examples(objective, examples, count)
    batch = tf.constant(images), tf.constant(labels, tf.int32)
    found = np.asarray(attack(objective, *batch, seed=5))
    assert found.dtype == np.float32
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    change = (found - images).reshape(count, -1)
    sizes = np.linalg.norm(change, ord=np.inf if attack.norm == "Linf" else 2, axis=1)
    assert sizes.max() <= attack.eps + 1e-6
    assert broken(objective, found, labels) > 0
    np.testing.assert_array_equal(found, attack(objective, *batch, seed=5))


def test_minimal_perturbations_beyond_eps_do_not_count() -> None:
    clean = np.zeros((3, 2, 2, 1), np.float32)
    found = clean + np.array([0.1, 0.3, np.nan], np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    kept = DeepFool(eps=0.5).within_eps(clean, found)  # L2 sizes 0.2, 0.6, NaN
    np.testing.assert_array_equal(kept, np.stack([found[0], clean[1], clean[2]]))


def test_a_larger_radius_never_leaves_more_images_right(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "ensemble")
    batch = tf.constant(examples[0]), tf.constant(examples[1], tf.int32)
    counts = []
    for eps in (0.005, 0.02, 0.05, 0.15):
        found = ProjectedGradientDescent(eps=eps, steps=10, step_size=eps / 4)(objective, *batch, seed=0)
        counts.append(broken(objective, found, examples[1]))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_all_attacks_share_one_trace(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "member_average")
    for size in (8, 5):  # a batch size of its own for the traces around it
        batch = tf.constant(examples[0][:size]), tf.constant(examples[1][:size], tf.int32)
        for name in ("FGSM", "MI-FGSM", "PGD", "BIM", "DIM", "Square"):
            ATTACKS[name](**TABLE[name][0])(objective, *batch, seed=0)
            objective.log_probabilities(batch[0])
    assert target.traces == 1


def test_square_beats_noise_and_follows_its_schedule(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "ensemble")
    images, labels = right_examples(objective, examples, 24)
    attack = Square(eps=0.1, queries=150)
    found = np.asarray(attack(objective, tf.constant(images), tf.constant(labels, tf.int32), seed=0))
    signs = np.random.default_rng(0).choice([-0.1, 0.1], size=images.shape)
    noise = np.clip(images + signs, 0, 1).astype(np.float32)
    assert objective.gradients == 0
    assert objective.queries <= 151 * 24 + len(examples[0])
    assert broken(objective, found, labels) > broken(objective, noise, labels) + 3
    corner = np.isclose(np.abs(found - images), 0.1, atol=1e-6) | (found == 0) | (found == 1)
    assert corner.all()  # patches replace each other and add to the stripes
    steps = [1, 10, 11, 51, 201, 8001]
    areas = [Square(eps=0.1, queries=10_000).area(step) for step in steps]
    np.testing.assert_allclose(areas, [0.8, 0.8, 0.4, 0.2, 0.1, 0.8 / 2**9])


@pytest.mark.parametrize("name", ["Square", "DeepFool"])
def test_some_attacks_ignore_the_objective(name: str, target: KerasTarget, examples: Examples) -> None:
    """The averaged loss's extra column is no class that they could end in."""
    settings, count, module = TABLE[name]
    pytest.importorskip(module)
    batch = tf.constant(examples[0][:count]), tf.constant(examples[1][:count], tf.int32)
    objectives: tuple[ObjectiveName, ...] = ("member_average", "ensemble")
    found = [ATTACKS[name](**settings)(Objective(target, o), *batch, seed=0) for o in objectives]
    np.testing.assert_array_equal(*found)


def test_diverse_input_without_diversity_is_momentum(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "ensemble")
    batch = tf.constant(examples[0][:8]), tf.constant(examples[1][:8], tf.int32)
    plain = MomentumIterative(eps=0.1, steps=3, step_size=0.02)(objective, *batch, seed=0)
    same = DiverseInput(eps=0.1, steps=3, step_size=0.02, least_scale=1.0)(objective, *batch, seed=0)
    assert np.mean(np.abs(plain - same) > 1e-5) < 0.002


def test_diverse_input_shrinks_and_shifts(examples: Examples) -> None:
    attack = DiverseInput(eps=0.1, probability=1.0, least_scale=0.5)
    white = tf.ones([2, 28, 28, 1])
    areas = []
    for seed in range(20):
        copy = np.asarray(attack.diversify(white, np.random.default_rng(seed)))
        assert copy.shape == white.shape
        assert set(np.unique(copy)) <= {0.0, 1.0}
        areas.append(copy[0].sum())
    assert min(areas) >= 14 * 14
    assert len(set(areas)) > 5


@pytest.mark.parametrize(
    ("attack", "settings", "says"),
    [
        ("FGSM", {"eps": -0.1}, "FGSM: eps is a finite number above 0; got -0.1"),
        ("PGD", {"eps": float("nan"), "steps": 1, "step_size": 0.1}, "eps is a finite"),
        ("PGD", {"eps": 0.1, "steps": 10, "step_size": 0.2}, "step_size is at most eps"),
        ("MI-FGSM", {"eps": 0.1, "steps": 0}, "steps"),
        ("DIM", {"eps": 0.1, "probability": 1.5}, "probability is at most 1"),
        ("SGM", {"eps": 0.1, "gamma": 2.0}, "gamma is at most 1"),
        ("Square", {"eps": 0.1, "initial_area": 1.5}, "initial_area is at most 1"),
        ("APGD-CE", {"eps": 0.1, "norm": "L1"}, "APGD-CE: norm is Linf or L2; got 'L1'"),
        ("APGD-T", {"eps": 0.1, "targets": 0}, "targets is a finite number above 0"),
    ],
)
def test_impossible_settings_are_refused(attack: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ATTACKS[attack](**settings)


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("CW", "foolbox", "foolbox"), ("ZOO", "art.attacks", "art")]
)
def test_a_missing_extra_is_named(
    name: str,
    module: str,
    extra: str,
    target: KerasTarget,
    examples: Examples,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    attack: Attack = ATTACKS[name](eps=1.0)
    with pytest.raises(InputError, match=rf"pip install ncen-tf\[{extra}\]"):
        attack(Objective(target, "ensemble"), tf.constant(examples[0][:1]), tf.constant(examples[1][:1]), 0)
