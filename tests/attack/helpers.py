"""Small targets, and a short way to run attacks on them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, linprog

from ncen_tf.attack.attack import Attack, Norm
from ncen_tf.attack.cleverhans_attacks import FastGradient, ProjectedGradientDescent
from ncen_tf.attack.iterative import MomentumIterative, RandomStartPgd
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.square import Square
from ncen_tf.attack.suites import Suite
from ncen_tf.report.results import AttackResult, SuiteResult
from ncen_tf.targets.target import Target

Array = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Examples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]

FGSM = FastGradient(eps=0.1)
PGD = ProjectedGradientDescent(eps=0.1, steps=3, step_size=0.05)
SQUARE = Square(eps=0.1, queries=10)
ONE_STEP = MomentumIterative(eps=0.1, steps=1, step_size=0.1)
STEPS = RandomStartPgd(eps=0.1, steps=3, step_size=0.05)


class LinearTarget(Target):
    """Members that are linear in the image: x W_i + b, W [k, 12, C] float64, b [C]."""

    description = "linear"
    sha256 = "0" * 64
    image_shape = (4, 3, 1)

    def __init__(self, weights: Array64, bias: Array64) -> None:
        self.weights, self.bias = weights, bias
        self.members, _, self.classes = weights.shape

    def logits(self, images: Array) -> Array:
        flat, weights = images.reshape(-1, 12), self.weights.astype(np.float32)
        return np.einsum("np,kpc->nkc", flat, weights) + self.bias.astype(np.float32)

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        def pull_back(cotangent: Array) -> Array:
            return np.einsum("nkc,kpc->np", cotangent, self.weights.astype(np.float32)).reshape(-1, 4, 3, 1)

        return self.logits(images), pull_back

    def logits64(self, image: Array64) -> Array64:
        """The same in float64 for one image: [k, C]."""
        return np.einsum("p,kpc->kc", image.reshape(-1), self.weights) + self.bias


def linear_target(members: int = 3, classes: int = 5, scale: float = 3.0, seed: int = 0) -> LinearTarget:
    """Random weights; the images and labels below fit it."""
    weights = np.random.default_rng(seed).normal(scale=scale, size=(members, 12, classes))
    return LinearTarget(weights, np.zeros(classes))


def images_and_predictions(target: LinearTarget, count: int, seed: int = 1) -> Examples:
    """Images in [0, 1], and as labels what the ensemble predicts for them."""
    images = np.random.default_rng(seed).uniform(size=(count, *target.image_shape)).astype(np.float32)
    labels = [mean_probabilities(target.logits64(image)).argmax() for image in images.astype(np.float64)]
    return images, np.array(labels, np.int32)


def box_distances(target: LinearTarget, images: Array, labels: npt.NDArray[np.int32], norm: Norm) -> Array64:
    """Exact distances to the nearest points in [0, 1] of which a linear member predicts another class."""
    weights, found = target.weights[0], []
    for image, label in zip(images.astype(np.float64), labels, strict=True):
        scores, x = target.logits64(image)[0], image.reshape(-1)
        distances = []
        for other in {*range(target.classes)} - {int(label)}:
            slope, gap = weights[:, other] - weights[:, label], scores[label] - scores[other]
            if np.maximum(slope * (1 - x), -slope * x).sum() > gap * (1 + 1e-6):
                distances.append(least_change(x, slope, gap, norm))
        found.append(min(distances, default=np.inf))
    return np.array(found)


def least_change(x: Array64, slope: Array64, gain: float, norm: Norm) -> float:
    """Size of the smallest change d of x [D] with slope . d = gain and x + d in [0, 1]."""
    return (_least_change_linf if norm == "Linf" else _least_change_l2)(x, slope, gain)


def _least_change_linf(x: Array64, slope: Array64, gain: float) -> float:
    """The smallest t with |d| <= t, slope . d = gain and x + d in [0, 1]: a linear program."""
    size, one = len(x), np.ones((len(x), 1))
    solved = linprog(
        c=[0.0] * size + [1.0],
        A_ub=np.block([[np.eye(size), -one], [-np.eye(size), -one]]),
        b_ub=np.zeros(2 * size),
        A_eq=np.append(slope, 0)[np.newaxis],
        b_eq=[gain],
        bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
    )
    assert solved.x is not None
    return float(solved.x[-1])


def _least_change_l2(x: Array64, slope: Array64, gain: float) -> float:
    """By the multiplier of slope . d = gain: d = clip(multiplier slope, -x, 1 - x)."""

    def change(multiplier: float) -> Array64:
        return np.clip(multiplier * slope, -x, 1 - x)

    multiplier = brentq(lambda m: float(slope @ change(m)) - gain, -1e6, 1e6, xtol=1e-12)
    return float(np.linalg.norm(change(multiplier)))


def mean_probabilities(logits: Array64) -> Array64:
    """[k, C] -> [C]."""
    return np.asarray(softmax(logits).mean(axis=0))


def softmax(z: Array64) -> Array64:
    exponentials = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True))


def small_member(seed: int) -> keras.Model:
    """Strided convolutions with a residual branch and a dense layer: 28 x 28 x 1 -> 10 logits."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(8, 5, 2, padding="same", activation="relu")(image)
    y = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = keras.layers.Add()([x, y])
    x = keras.layers.Conv2D(16, 3, 2, padding="same", activation="relu")(x)
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))


def run(target: Target, examples: tuple[Any, Any], *attacks: Attack, **options: Any) -> SuiteResult:
    """Run attacks; options of the suite and of ``run_suite``."""
    of_suite: dict[str, Any] = {"objective": "ensemble", "batch_size": 8} | {
        name: options.pop(name) for name in ("objective", "batch_size", "cumulative") if name in options
    }
    return run_suite(target, *examples, Suite(name="test", attacks=attacks, **of_suite), **options)


def first(examples: Examples, count: int) -> Examples:
    return examples[0][:count], examples[1][:count]


def assert_same(one: AttackResult, other: AttackResult) -> None:
    for field in dataclasses.fields(AttackResult):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
