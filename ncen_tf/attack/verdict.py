"""From measured symptoms to a verdict that a reader can act on."""

import itertools

import numpy as np

from ncen_tf.attack.results import SuiteResult
from ncen_tf.attack.suites import Suite
from ncen_tf.attack.symptoms import EXAMPLES, LARGE_EPS, Images, Symptoms, measure_symptoms
from ncen_tf.report.results import GradientCheck, MaskedGradients
from ncen_tf.targets.target import Target

TOLERATED = 0.02
"""Share of the examples that a comparison may go the wrong way on: two attacks differ by luck."""
ROUNDOFF = 1e-9
"""What sums and differences of shares may be off by as floating-point numbers."""
ROUNDING = 1e-3
"""Change of a probability that batches of another shape or order explain."""


def _check(name: str, passed: bool, finding: str) -> GradientCheck:
    return GradientCheck(name=name, passed=passed, finding=finding)


def judge(symptoms: Symptoms) -> list[GradientCheck]:
    """Whether each symptom is one of gradients that mislead.

    Args:
        symptoms: as :func:`ncen_tf.attack.symptoms.measure_symptoms` found them.
    """
    s = symptoms
    noise, one_step, iterative = (float(flags.mean()) for flags in (s.noise, s.one_step, s.iterative))
    only_black_box = float((s.iterative & ~s.black_box).mean())
    largest = s.radii[LARGE_EPS]
    zero, ascends = float(s.zero_gradient.mean()), float(s.ascends.mean())
    shown = ", ".join(f"{share:.1%} at {radius:g}" for radius, share in s.radii.items())
    return [
        _check(
            "black_box_beats_white_box",
            only_black_box <= TOLERATED,
            f"Square breaks {only_black_box:.1%} of the examples although PGD leaves them standing",
        ),
        _check(
            "one_step_beats_iterative",
            _at_most(iterative - one_step, TOLERATED),
            f"FGSM leaves {one_step:.1%} standing, PGD {iterative:.1%}",
        ),
        _check(
            "noise_is_as_strong",
            iterative <= TOLERATED or _at_most(TOLERATED, noise - iterative),
            f"random noise leaves {noise:.1%} standing, PGD {iterative:.1%}",
        ),
        _check(
            "accuracy_survives_large_eps",
            _at_most(largest, 1 / s.classes + TOLERATED) and all_falling(s.radii),
            f"PGD leaves standing {shown}",
        ),
        _check("zero_gradients", zero <= TOLERATED, f"{zero:.1%} of the examples have no gradient"),
        _check(
            "loss_does_not_ascend",
            _at_most(1 - ascends, 5 * TOLERATED),
            f"a small step along the gradient raises the loss of {ascends:.1%} of the examples",
        ),
        _check(
            "depends_on_batch",
            s.batch_difference <= ROUNDING,
            f"other images in the batch change a probability by up to {s.batch_difference:.1e}",
        ),
        _check(
            "probabilities_as_logits",
            not s.logits_are_probabilities,
            "the outputs named logits are probabilities"
            if s.logits_are_probabilities
            else "the outputs named logits are no probabilities",
        ),
    ]


def all_falling(radii: dict[float, float]) -> bool:
    """Whether accuracy never rises with the radius, up to luck."""
    shares = [share for _, share in sorted(radii.items())]
    return all(_at_most(later - earlier, TOLERATED) for earlier, later in itertools.pairwise(shares))


def _at_most(share: float, bound: float) -> bool:
    return share <= bound + ROUNDOFF


def judge_suite(suite: Suite, result: SuiteResult) -> list[GradientCheck]:
    """Whether attacks without gradients break what none with gradients does, at each norm and eps of both.

    Args:
        suite: the attacks.
        result: what they came to.
    """
    right = result.clean_predictions == result.labels
    checks = []
    for ball in suite.comparable_balls():
        norm, eps = ball
        broken = {gradient_free: np.zeros(len(right), bool) for gradient_free in (True, False)}
        for attack, found in zip(suite.attacks, result.attacks, strict=True):
            if attack.ball == ball:
                broken[attack.gradient_free] |= found.predictions != result.labels
        only = float((right & broken[True] & ~broken[False]).mean())
        finding = (
            f"attacks without gradients break {only:.1%} of the examples at {norm} {eps:.4g} although all "
            "others leave them standing"
        )
        checks.append(_check("black_box_beats_suite", only <= TOLERATED, finding))
    return checks


def examine(target: Target, suite: Suite, result: SuiteResult, images: Images, seed: int) -> MaskedGradients:
    """The verdict on a target's gradients, for a report: ``clean``, and each check with its finding.

    Symptoms are measured at the suite's ``gradient_check_eps``; a suite without one is judged by its own
    results alone, and ``eps`` is ``None``. A target that is never right has no clean verdict: there is
    nothing to examine.

    Args:
        target: what the suite attacked.
        suite: its radius and batch size are taken.
        result: what its attacks came to.
        images: that it attacked, float32 [N, H, W, C] in [0, 1]; symptoms are measured on the first
            :data:`EXAMPLES`.
        seed: in [0, 2^31).
    """
    eps, labels = suite.gradient_check_eps(), result.labels
    checks, examples = judge_suite(suite, result), len(labels)
    right = result.clean_predictions[:EXAMPLES] == labels[:EXAMPLES]
    if eps is not None and not right.any():
        finding = f"none of {len(right)} images is classified right"
        checks, examples = [_check("nothing_to_examine", False, finding), *checks], 0
    elif eps is not None:
        batch_size = min(suite.batch_size, EXAMPLES)
        symptoms = measure_symptoms(
            target, images[:EXAMPLES], labels[:EXAMPLES], eps, batch_size=batch_size, seed=seed
        )
        checks, examples = [*judge(symptoms), *checks], len(symptoms.iterative)
    clean = all(check.passed for check in checks)
    return MaskedGradients(clean=clean, examples=examples, eps=eps, checks=tuple(checks))
