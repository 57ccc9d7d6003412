"""Cheap attacks, and a short way to run them."""

from typing import Any

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.fast_gradient import FastGradient
from ncen_tf.attack.projected_gradient_descent import ProjectedGradientDescent
from ncen_tf.attack.results import SuiteResult
from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.square import Square
from ncen_tf.attack.suites import Suite
from tests.attack.conftest import Examples
from tests.attack.stand_in import KerasTarget

FGSM = FastGradient(eps=0.1)
PGD = ProjectedGradientDescent(eps=0.1, steps=3, step_size=0.05)
SQUARE = Square(eps=0.1, queries=10)


def run(target: KerasTarget, examples: tuple[Any, Any], *attacks: Attack, **options: Any) -> SuiteResult:
    settings: dict[str, Any] = {"objective": "ensemble", "batch_size": 8} | options
    return run_suite(target, *examples, Suite("test", attacks), **settings)


def first(examples: Examples, count: int) -> Examples:
    return examples[0][:count], examples[1][:count]
