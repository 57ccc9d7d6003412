"""Checks whether a target's gradients mislead the attacks that follow them.

The checks are from Athalye et al. (2018, "Obfuscated Gradients Give a False Sense of Security") and Carlini
et al. (2019, "On Evaluating Adversarial Robustness"); ``docs/masked_gradients.md`` explains each of them.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ncen_tf.attack.attack import Array, Attack, Labels
from ncen_tf.attack.iterative import IterativeGradient, RandomStartPgd
from ncen_tf.attack.objectives import Mask, Objective
from ncen_tf.attack.square import Square
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.report.results import GradientCheck, MaskedGradients, SuiteResult
from ncen_tf.targets.target import Target

EXAMPLES = 100
"""Images that a verdict needs: a share of 0.02 of them is two."""
STEPS = 40
NOISE_DRAWS = 10
QUERIES = 500
LARGE_EPS = 0.5
"""From anywhere in [0, 1], this bound reaches mid-grey: every image can become the same one."""

TOLERATED = 0.02
"""Share of the examples that a comparison may go the wrong way on: two attacks differ by luck."""
ROUNDOFF = 1e-9
"""What sums and differences of shares may be off by as floating-point numbers."""
ROUNDING = 1e-3
"""Change of a probability that batches of another shape or order explain."""


@dataclasses.dataclass(frozen=True)
class Symptoms:
    """Measurements on n images that the target classifies correctly; arrays are bool [n]."""

    eps: float
    """Linf bound of everything but ``radii``."""
    classes: int
    noise: Mask
    """Whether the prediction stays correct under 10 draws of uniform noise."""
    one_step: Mask
    """Whether it stays correct under FGSM."""
    iterative: Mask
    """Whether it stays correct under PGD with 40 steps."""
    black_box: Mask
    """Whether it stays correct under Square with 500 queries."""
    radii: dict[float, float]
    """Linf bound -> robust accuracy under PGD; the last bound is 0.5."""
    zero_gradient: Mask
    """Whether the loss has a gradient of exactly zero, or one that is not finite."""
    ascends: Mask
    """Whether a step of eps / 100 along the gradient's sign raises the loss."""
    batch_difference: float
    """Largest change of a class probability when the other images of the batch change."""
    repeat_difference: float
    """Largest change of a class probability between two calls on the same batch."""
    logits_are_probabilities: bool
    """Whether what should be logits lies in [0, 1] and sums to 1."""


def examine_gradients(
    target: Target, suite: Suite, result: SuiteResult, images: Array, seed: int
) -> MaskedGradients:
    """Judge a target's gradients, by measurements of their own and by what a suite has measured.

    The measurements are made at the suite's ``gradient_check_eps``; a suite without one is judged by its own
    results alone, and ``eps`` is ``None``. A target that is never right gets no clean verdict.

    Args:
        target: What the suite attacked.
        suite: Its bound and batch size are taken.
        result: What its attacks measured.
        images: The images that it attacked, float32 [N, H, W, C] in [0, 1]; the first :data:`EXAMPLES` are
            examined.
        seed: In [0, 2^31).
    """
    eps, labels = suite.gradient_check_eps(), result.labels
    checks, examples = judge_suite(suite, result), len(labels)
    right = result.clean_predictions[:EXAMPLES] == labels[:EXAMPLES]
    if eps is not None and not right.any():
        finding = f"none of {len(right)} images is classified correctly"
        checks, examples = [_check("nothing_to_examine", False, finding), *checks], 0
    elif eps is not None:
        batch_size = min(suite.batch_size, EXAMPLES)
        symptoms = measure_symptoms(
            target, images[:EXAMPLES], labels[:EXAMPLES], eps, batch_size=batch_size, seed=seed
        )
        checks, examples = [*judge(symptoms), *checks], len(symptoms.iterative)
    clean = all(check.passed for check in checks)
    return MaskedGradients(clean=clean, examples=examples, eps=eps, checks=tuple(checks))


def judge(symptoms: Symptoms) -> list[GradientCheck]:
    """Decide for each symptom whether it is one of gradients that mislead."""
    s = symptoms
    noise, one_step, iterative = (float(correct.mean()) for correct in (s.noise, s.one_step, s.iterative))
    only_black_box = float((s.iterative & ~s.black_box).mean())
    zero, ascends = float(s.zero_gradient.mean()), float(s.ascends.mean())
    # Where neither breaks examples, PGD does no better than noise: the bound is small, or images are few.
    # If others break them all the same, black_box_beats_white_box and one_step_beats_iterative tell.
    breakable = ~(s.noise & s.iterative)
    hopeless = breakable.sum() <= 2 or _at_most(float(breakable.mean()), TOLERATED)
    shown = ", ".join(f"{share:.1%} at {radius:g}" for radius, share in s.radii.items())
    return [
        _check(
            "black_box_beats_white_box",
            only_black_box <= TOLERATED,
            f"Square breaks {only_black_box:.1%} of the examples that PGD does not break",
        ),
        _check(
            "one_step_beats_iterative",
            _at_most(iterative - one_step, TOLERATED),
            f"robust accuracy is {one_step:.1%} under FGSM and {iterative:.1%} under PGD",
        ),
        _check(
            "noise_is_as_strong",
            iterative <= TOLERATED or hopeless or _at_most(TOLERATED, noise - iterative),
            f"robust accuracy is {noise:.1%} under random noise and {iterative:.1%} under PGD",
        ),
        _check(
            "accuracy_survives_large_eps",
            _at_most(s.radii[LARGE_EPS], 1 / s.classes + TOLERATED) and never_rises(s.radii),
            f"robust accuracy under PGD is {shown}",
        ),
        _check("zero_gradients", zero <= TOLERATED, f"{zero:.1%} of the examples have no gradient"),
        _check(
            "loss_does_not_ascend",
            _at_most(1 - ascends, 5 * TOLERATED),
            f"a small step along the gradient raises the loss of {ascends:.1%} of the examples",
        ),
        _check(
            "depends_on_batch",
            s.batch_difference <= max(ROUNDING, 2 * s.repeat_difference),
            f"other images in the batch change a probability by up to {s.batch_difference:.1e}",
        ),
        _check(
            "not_deterministic",
            s.repeat_difference <= ROUNDING,
            f"a second call on the same images changes a probability by up to {s.repeat_difference:.1e}",
        ),
        _check(
            "probabilities_as_logits",
            not s.logits_are_probabilities,
            f"the outputs named logits are {'' if s.logits_are_probabilities else 'not '}probabilities",
        ),
    ]


def never_rises(radii: dict[float, float]) -> bool:
    """Tell whether accuracy never rises with the bound, up to luck."""
    shares = [share for _, share in sorted(radii.items())]
    return all(_at_most(later - earlier, TOLERATED) for earlier, later in itertools.pairwise(shares))


def judge_suite(suite: Suite, result: SuiteResult) -> list[GradientCheck]:
    """Decide whether attacks without gradients break more, at each norm and eps that both kinds have."""
    right = result.clean_predictions == result.labels
    checks = []
    for norm, eps in suite.comparable_threat_models():
        broken = {gradient_free: np.zeros(len(right), bool) for gradient_free in (True, False)}
        for attack, found in zip(suite.attacks, result.attacks, strict=True):
            if attack.threat_model == (norm, eps):
                broken[attack.gradient_free] |= found.predictions != result.labels
        only = float((right & broken[True] & ~broken[False]).mean())
        where = f"of the examples at {norm} {eps:.4g}"
        finding = (
            f"attacks without gradients break {only:.1%} {where} that attacks with gradients do not break"
        )
        checks.append(_check("black_box_beats_suite", only <= TOLERATED, finding))
    return checks


def measure_symptoms(
    target: Target, images: Array, labels: Labels, eps: float, *, batch_size: int = 50, seed: int = 0
) -> Symptoms:
    """Attack, query and differentiate a target on the images that it classifies correctly.

    Args:
        target: What to examine; differentiable.
        images: float32 [N, H, W, C] in [0, 1]; the first :data:`EXAMPLES` are enough.
        labels: int32 [N], their classes.
        eps: Linf bound that robustness is measured at, > 0.
        batch_size: Images at once.
        seed: Of everything random, in [0, 2^31).

    Raises:
        InputError: The target classifies none of the images correctly.
    """
    objective = Objective(target, "ensemble")

    def batchwise(function: Callable[..., npt.NDArray[Any]], *arrays: npt.NDArray[Any]) -> npt.NDArray[Any]:
        starts = range(0, len(arrays[0]), batch_size)
        return np.concatenate(
            [function(*(a[start : start + batch_size] for a in arrays)) for start in starts]
        )

    def correct(shown: Array) -> Mask:
        return batchwise(objective.log_probabilities, shown).argmax(1) == labels

    right = correct(images)
    if not right.any():
        raise InputError(f"{target.description} classifies none of {len(labels)} images correctly.")
    images, labels = images[right], labels[right]
    gradients = batchwise(lambda x, y: objective.loss_and_gradient(x, y)[1], images, labels)
    radii = sorted({eps, 2 * eps, LARGE_EPS} if 2 * eps < LARGE_EPS else {eps, LARGE_EPS})
    attacks: dict[str | float, Attack] = {
        "one step": IterativeGradient(eps=eps, steps=1, step_size=eps),
        "black box": Square(eps=eps, queries=QUERIES),
        **{radius: RandomStartPgd(eps=radius, steps=STEPS, step_size=radius / 10) for radius in radii},
    }
    withstands = {}
    for name, attack in tqdm(attacks.items(), desc="masked gradients", unit="attack", disable=None):
        found = batchwise(lambda x, y, attack=attack: attack(objective, x, y, seed), images, labels)
        withstands[name] = correct(found)
    generator = np.random.default_rng(seed)
    noise = np.ones(len(images), bool)
    for _ in range(NOISE_DRAWS):
        noisy = images + generator.uniform(-eps, eps, images.shape)
        noise &= correct(np.clip(noisy, 0, 1).astype(np.float32))

    def losses(x: Array, y: Labels) -> npt.NDArray[np.float32]:
        return -objective.log_probabilities(x)[np.arange(len(y)), y]

    # Not clipped: at the border of [0, 1] half of the steps would vanish.
    moved = (images + eps / 100 * np.sign(gradients)).astype(np.float32)
    return Symptoms(
        eps=eps,
        classes=target.classes,
        noise=noise,
        one_step=withstands["one step"],
        iterative=withstands[eps],
        black_box=withstands["black box"],
        radii={radius: float(withstands[radius].mean()) for radius in radii},
        zero_gradient=~np.isfinite(gradients).all((1, 2, 3)) | (gradients == 0).all((1, 2, 3)),
        ascends=batchwise(losses, moved, labels) > batchwise(losses, images, labels),
        batch_difference=_batch_difference(objective, images[:batch_size], seed),
        repeat_difference=repeat_difference(objective, images[:batch_size]),
        logits_are_probabilities=target.gives_logits
        and _are_probabilities(target.logits(images[:batch_size])),
    )


def _batch_difference(objective: Objective, batch: Array, seed: int) -> float:
    companions = np.random.default_rng(seed).uniform(size=batch.shape).astype(np.float32)
    together = np.concatenate([batch, companions])
    alone, among = (np.exp(objective.log_probabilities(x))[: len(batch)] for x in (batch, together))
    return float(np.abs(alone - among).max())


def repeat_difference(objective: Objective, batch: Array) -> float:
    """Compute the largest change of a class probability between two calls on the same images [N, H, W, C]."""
    first, second = (np.exp(objective.log_probabilities(batch)) for _ in range(2))
    return float(np.abs(first - second).max())


def _are_probabilities(outputs: Array) -> bool:
    return bool((outputs >= 0).all() and np.abs(outputs.sum(-1) - 1).max() < 1e-3)


def _at_most(share: float, bound: float) -> bool:
    return share <= bound + ROUNDOFF


def _check(name: str, passed: bool, finding: str) -> GradientCheck:
    return GradientCheck(name=name, passed=bool(passed), finding=finding)
