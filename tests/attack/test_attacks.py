"""Every attack in one table, and what each promises: its bound, its steps, its definition."""

import sys
from typing import Any, ClassVar

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from ncen_tf.attack.attack import ATTACKS, MinimalPerturbation, find_attack
from ncen_tf.attack.cleverhans_attacks import ProjectedGradientDescent
from ncen_tf.attack.iterative import MomentumIterative
from ncen_tf.attack.losses import ObjectiveName
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.square import Square
from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import settings
from ncen_tf.targets.tensorflow_targets import KerasTarget, TensorFlowTarget
from tests.attack.helpers import Examples

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
    "FAB": ({"eps": 0.1, "steps": 20}, 8, "numpy"),
    "FAB-T": ({"eps": 0.1, "steps": 20, "targets": 3}, 8, "numpy"),
    "Transfer-mean-logit": ({"eps": 0.1, "steps": 8}, 8, "tensorflow"),
    "Transfer-members": ({"eps": 0.1, "steps": 8}, 8, "tensorflow"),
    "MORA": ({"eps": 0.1, "steps": 8}, 8, "tensorflow"),
    "Square": ({"eps": 0.1, "queries": 100}, 8, "tensorflow"),
    "DeepFool": ({"eps": 3.0, "steps": 20}, 8, "foolbox"),
    "CW": ({"eps": 3.0, "steps": 60, "binary_search_steps": 3, "step_size": 0.05}, 8, "foolbox"),
    "ZOO": ({"eps": 5.0, "iterations": 20, "step_size": 0.2}, 3, "art"),
    "AutoZOOM": ({"eps": 5.0, "queries": 1000, "step_size": 0.05, "reduction": 4}, 4, "numpy"),
    "Boundary": ({"eps": 8.0, "iterations": 40}, 3, "art"),
    "FMN": ({"eps": 0.1, "steps": 30}, 8, "numpy"),
    "DDN": ({"eps": 3.0, "norm": "L2", "steps": 30}, 8, "numpy"),
    "sigma-zero": ({"eps": 100.0, "norm": "L0", "steps": 50}, 8, "numpy"),
    "HopSkipJump": ({"eps": 5.0, "iterations": 2, "evaluations": 200}, 3, "art"),
}
# Changes to the settings of attacks that know both norms.
IN_L2: dict[str, dict[str, Any]] = {
    "MI-FGSM": {"norm": "L2", "eps": 2.0, "step_size": 0.3},
    "PGD-restarts": {"norm": "L2", "eps": 2.0, "step_size": 0.5},
    "APGD-CE": {"norm": "L2", "eps": 2.0},
    "APGD-DLR": {"norm": "L2", "eps": 2.0},
    "APGD-T": {"norm": "L2", "eps": 2.0},
    "FAB": {"norm": "L2", "eps": 2.0},
    "FAB-T": {"norm": "L2", "eps": 2.0},
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
def test_every_attack_breaks_images_within_its_bound(
    name: str,
    changes: dict[str, Any],
    residual_target: KerasTarget,
    target: KerasTarget,
    examples: Examples,
) -> None:
    settings, count, module = TABLE[name]
    pytest.importorskip(module)
    attack = find_attack(name)(**(settings | changes))
    several = name == "MORA" or name.startswith("Transfer")  # a single classifier has no surrogates
    objective = Objective(target if several else residual_target, "member_average")
    images, labels = right_examples(objective, examples, count)
    found = attack(objective, images, labels, seed=5)
    assert found.dtype == np.float32
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    change = (found - images).reshape(count, -1)
    sizes = np.linalg.norm(change, ord=np.inf if attack.norm == "Linf" else 2, axis=1)
    assert sizes.max() <= attack.eps + 1e-6
    assert broken(objective, found, labels) > 0
    np.testing.assert_array_equal(found, attack(objective, images, labels, seed=5))


@settings
class Minimal(MinimalPerturbation):
    """Returns the images."""

    name: ClassVar[str] = "Minimal"

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        return images


def test_minimal_perturbations_beyond_eps_do_not_count() -> None:
    clean = np.zeros((3, 2, 2, 1), np.float32)
    found = clean + np.array([0.1, 0.3, np.nan], np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    kept = Minimal(eps=0.5).within_eps(clean, found)  # L2 sizes 0.2, 0.6, NaN
    np.testing.assert_array_equal(kept, np.stack([found[0], clean[1], clean[2]]))


def test_a_larger_radius_never_leaves_more_images_right(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "ensemble")
    batch = examples
    counts = []
    for eps in (0.005, 0.02, 0.05, 0.15):
        found = ProjectedGradientDescent(eps=eps, steps=10, step_size=eps / 4)(objective, *batch, seed=0)
        counts.append(broken(objective, found, examples[1]))
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_all_attacks_share_one_trace(trained: list[keras.Model], examples: Examples) -> None:
    traces = 0

    def function(images: tf.Tensor) -> tf.Tensor:
        nonlocal traces
        traces += 1
        return tf.stack([member(images) for member in trained], axis=1)

    target = TensorFlowTarget(function, (28, 28, 1), "counted", "0" * 64)
    objective, before = Objective(target, "member_average"), traces
    for size in (8, 5):
        for name in ("FGSM", "MI-FGSM", "PGD", "BIM", "DIM", "Square"):
            find_attack(name)(**TABLE[name][0])(objective, examples[0][:size], examples[1][:size], seed=0)
            objective.log_probabilities(examples[0][:size])
    assert traces == before


def test_square_beats_noise_and_follows_its_schedule(target: KerasTarget, examples: Examples) -> None:
    objective = Objective(target, "ensemble")
    images, labels = right_examples(objective, examples, 24)
    attack = Square(eps=0.1, queries=150)
    found = attack(objective, images, labels, seed=0)
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
    batch = examples[0][:count], examples[1][:count]
    objectives: tuple[ObjectiveName, ...] = ("member_average", "ensemble")
    found = [find_attack(name)(**settings)(Objective(target, o), *batch, seed=0) for o in objectives]
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize(
    ("attack", "settings", "says"),
    [
        ("FGSM", {"eps": -0.1}, "`eps` must be greater than 0, got -0.1"),
        ("PGD", {"eps": float("nan"), "steps": 1, "step_size": 0.1}, "`eps` must be"),
        ("PGD", {"eps": 0.1, "steps": 10, "step_size": 0.2}, "`step_size` must be at most eps"),
        ("MI-FGSM", {"eps": 0.1, "steps": 0}, "steps"),
        ("DIM", {"eps": 0.1, "probability": 1.5}, "`probability` must be less than or equal to 1"),
        ("SGM", {"eps": 0.1, "gamma": 2.0}, "`gamma` must be less than or equal to 1"),
        ("Square", {"eps": 0.1, "initial_area": 1.5}, "`initial_area` must be less than or equal to 1"),
        ("APGD-CE", {"eps": 0.1, "norm": "L1"}, "APGD-CE: `norm` must be Linf or L2, got L1"),
        ("FGSM", {"eps": 0.1, "norm": "L2"}, "FGSM: `norm` must be Linf"),
        ("FGSM", {"eps": 8}, "`eps` must be at most 1 in Linf, got 8: .* write 8/255"),
        ("Square", {"eps": 16.0}, "write 16/255"),
        ("APGD-T", {"eps": 0.1, "targets": 0}, "`targets` must be greater than 0"),
    ],
)
def test_impossible_settings_are_refused(attack: str, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        find_attack(attack)(**settings)


@pytest.mark.parametrize(("name", "module"), [("CW", "foolbox"), ("ZOO", "art")])
def test_a_missing_extra_is_named(name: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, f"ncen_tf.attack.{module}_attacks", raising=False)
    for loaded in [key for key in sys.modules if key.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install ncen-tf\[{module}\]"):
        find_attack(name)


# Two steps: the sign of a gradient near zero is noise, and more steps would spread it.
_TWO_STEPS = {"eps": 0.1, "steps": 2, "step_size": 0.06}
SETTINGS: dict[str, dict[str, Any]] = {
    "FGSM": {"eps": 0.1},
    "MI-FGSM": _TWO_STEPS | {"decay": 0.7},
    "NumPy MI-FGSM": _TWO_STEPS | {"decay": 0.7},
    "PGD": _TWO_STEPS,
    "BIM": _TWO_STEPS,
}


def gradient(target: KerasTarget, objective: ObjectiveName, images: Array, labels: Labels) -> Array:
    """Of the cross-entropy that the objective stands for, without its columns."""
    x = tf.constant(images)
    assert target.tensorflow_logits is not None
    chosen = tf.one_hot(labels, target.classes)[:, tf.newaxis]
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = target.tensorflow_logits(x)
        if objective == "member_average":
            chosen = tf.repeat(chosen, target.members, axis=1)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(chosen, logits), axis=1)
        else:
            mean = tf.reduce_mean(tf.nn.softmax(logits), axis=1)
            loss = -tf.math.log(tf.reduce_sum(mean * chosen[:, 0], axis=1))
    return np.asarray(tape.gradient(loss, x))


def written_out(
    attack: Any, target: KerasTarget, objective: ObjectiveName, start: Array, images: Array, labels: Labels
) -> Array:
    """The definition of each attack, in NumPy."""
    if attack.name == "FGSM":
        return np.clip(images + attack.eps * np.sign(gradient(target, objective, images, labels)), 0, 1)
    x, momentum = start, np.zeros_like(images)
    for _ in range(attack.steps):
        direction = gradient(target, objective, x, labels)
        if attack.name == "MI-FGSM":
            momentum = attack.decay * momentum + direction / np.abs(direction).mean((1, 2, 3), keepdims=True)
            direction = momentum
        x = np.clip(x + attack.step_size * np.sign(direction), images - attack.eps, images + attack.eps)
        x = np.clip(x, 0, 1)
    return x


@pytest.mark.parametrize("objective", ["member_average", "ensemble"])
@pytest.mark.parametrize("name", SETTINGS)
def test_attacks_take_the_steps_of_their_definition(
    name: str, objective: ObjectiveName, target: KerasTarget, examples: Examples
) -> None:
    images, labels = examples[0][:10], examples[1][:10]
    kind = MomentumIterative if name == "NumPy MI-FGSM" else find_attack(name)
    attack = kind(**SETTINGS[name])
    attacked = Objective(target, objective)
    found = attack(attacked, images, labels, seed=9)
    start = images
    if name == "PGD":
        tf.random.set_seed(9)
        noise = tf.random.uniform(images.shape, -attack.eps, attack.eps)
        start = np.clip(images + noise, 0, 1)
    expected = written_out(attack, target, objective, start, images, labels)
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.002
    steps = getattr(attack, "steps", 1)
    assert (attacked.queries, attacked.gradients) == (10 * steps, 10 * steps)


def test_pgd_starts_at_random(target: KerasTarget, examples: Examples) -> None:
    attack = find_attack("PGD")(**SETTINGS["PGD"])
    objective = Objective(target, "ensemble")
    batch = examples[0][:4], examples[1][:4]
    assert np.any(attack(objective, *batch, seed=1) != attack(objective, *batch, seed=2))
