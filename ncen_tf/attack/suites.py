"""Named groups of attacks, and groups read from a file."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from ncen_tf.attack.attack import Attack, Norm
from ncen_tf.attack.basic_iterative import BasicIterative
from ncen_tf.attack.fast_gradient import FastGradient
from ncen_tf.attack.momentum_iterative import MomentumIterative
from ncen_tf.attack.projected_gradient_descent import ProjectedGradientDescent
from ncen_tf.attack.registry import ATTACKS
from ncen_tf.attack.square import Square
from ncen_tf.attack.strict import strict_attacks
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import read_toml

if TYPE_CHECKING:  # suites are read without TensorFlow
    from ncen_tf.attack.objectives import ObjectiveName


@dataclasses.dataclass(frozen=True)
class Suite:
    """Attacks that are run and reported together; ``name`` is the protocol in reports."""

    name: str
    attacks: tuple[Attack, ...]
    objective: ObjectiveName = "member_average"
    """What gradient attacks maximise."""
    batch_size: int = 100
    """Images attacked at a time."""
    batch_statistics: bool = False
    """Whether BatchNorm normalises with the statistics of the attacked batch, as in training."""
    cumulative: bool = False
    """Whether an attack meets only what those before it, at the same norm and eps, left right."""
    check_gradients: bool = False
    """Whether a report has a verdict on masked gradients, unless the user says otherwise."""
    examples: int = 1000
    """Test images, unless the user says otherwise; 0 for all."""
    fixed: frozenset[str] = frozenset()
    """Which of ``objective`` and ``batch_size`` belong to the protocol and are not the user's choice."""

    def with_choices(
        self,
        objective: ObjectiveName | None = None,
        batch_size: int | None = None,
        norm: Norm | None = None,
        check_gradients: bool | None = None,
    ) -> Suite:
        """The suite with what the user chose; ``None`` keeps the suite's own.

        Args:
            objective: what gradient attacks maximise.
            batch_size: images attacked at a time.
            norm: keep only the attacks in this norm.
            check_gradients: whether a report has a verdict on masked gradients.

        Raises:
            InputError: the protocol fixes it to something else, no attack is left, or ``check_gradients``
                with neither a :meth:`gradient_check_eps` nor :meth:`comparable_balls`.
        """
        chosen: dict[str, Any] = {"objective": objective, "batch_size": batch_size}
        changes = {name: value for name, value in chosen.items() if value not in (None, getattr(self, name))}
        for name in changes.keys() & self.fixed:
            raise InputError(
                f"Suite {self.name!r} is measured with --{name}={getattr(self, name)}: leave the flag out, "
                "or choose another suite."
            )
        attacks = tuple(attack for attack in self.attacks if norm in (None, attack.norm))
        if not attacks:
            raise InputError(f"Suite {self.name!r} has no attack in {norm}: leave --norm out.")
        if check_gradients is None:
            check_gradients = self.check_gradients
        suite = dataclasses.replace(self, attacks=attacks, check_gradients=check_gradients, **changes)
        if check_gradients and suite.gradient_check_eps() is None and not suite.comparable_balls():
            raise InputError(
                "--check_gradients needs a gradient attack in Linf, or attacks with and without gradients at "
                f"the same norm and eps; suite {self.name!r} has neither."
            )
        return suite

    def gradient_check_eps(self) -> float | None:
        """The radius at which gradients are checked: the smallest of the gradient attacks in Linf, if any."""
        gradient_attacks = [each for each in self.attacks if each.norm == "Linf" and not each.gradient_free]
        return min((attack.eps for attack in gradient_attacks), default=None)

    def comparable_balls(self) -> list[tuple[Norm, float]]:
        """Norm and eps of attacks both with gradients and without."""
        kinds: dict[tuple[Norm, float], set[bool]] = {}
        for attack in self.attacks:
            kinds.setdefault(attack.ball, set()).add(attack.gradient_free)
        return [ball for ball, found in kinds.items() if len(found) == 2]


@dataclasses.dataclass(frozen=True)
class _Radii:
    """Eps for images in [0, 1]."""

    single_step: tuple[float, ...]
    """The paper's, Linf, for FGSM and MI-FGSM (Luo et al., section IV-A)."""
    iterative: tuple[float, ...]
    """The paper's, Linf, for PGD and BIM."""
    strict: dict[Norm, float]
    """One a norm; of CIFAR-10, those of RobustBench (Croce et al., 2021, arXiv:2010.09670)."""


_FASHION_MNIST = _Radii((0.1, 0.3), (0.1, 0.15), {"Linf": 0.1, "L2": 1.5})
_RADII = {
    "fashion_mnist": _FASHION_MNIST,
    "fashion_mnist_sample": _FASHION_MNIST,
    "cifar10": _Radii((0.03, 0.09), (0.01, 0.02), {"Linf": 8 / 255, "L2": 0.5}),
}


def _paper(radii: _Radii) -> tuple[Attack, ...]:
    return (
        *(FastGradient(eps=eps) for eps in radii.single_step),
        *(MomentumIterative(eps=eps, steps=40, step_size=0.01, decay=1.0) for eps in radii.single_step),
        *(ProjectedGradientDescent(eps=eps, steps=40, step_size=eps) for eps in radii.iterative),
        *(BasicIterative(eps=eps, steps=10, step_size=eps) for eps in radii.iterative),
    )


def _blackbox(radii: _Radii) -> tuple[Attack, ...]:
    return tuple(Square(eps=eps) for eps in sorted({*radii.single_step, *radii.iterative}))


def _quick(radii: _Radii) -> tuple[Attack, ...]:
    eps = radii.iterative[0]
    return FastGradient(eps=eps), ProjectedGradientDescent(eps=eps, steps=10, step_size=eps / 4)


def _strict(radii: _Radii) -> tuple[Attack, ...]:
    return tuple(attack for norm, eps in radii.strict.items() for attack in strict_attacks(eps, norm))


# What differs from the paper's text in what the authors' code measures: same attacks, another model.
_PROTOCOLS: dict[str, dict[str, Any]] = {
    "released": {
        "objective": "stacked_softmax",
        "batch_size": 64,
        "batch_statistics": True,
        "fixed": frozenset({"objective", "batch_size"}),
    },
    "strict": {
        "objective": "ensemble",
        "cumulative": True,
        "check_gradients": True,
        "examples": 0,
        "fixed": frozenset({"objective"}),
    },
}
SUITES: dict[str, Callable[[_Radii], tuple[Attack, ...]]] = {
    "paper": _paper,
    "released": _paper,
    "strict": _strict,
    "blackbox": _blackbox,
    "quick": _quick,
}


def load_suite(name: str, dataset: str) -> Suite:
    """A named suite with the dataset's radii, or a suite read from a TOML file.

    Args:
        name: a key of :data:`SUITES`, or the path of a file that ends in ``.toml``.
        dataset: a key of ``ncen_tf.data.datasets.DATASETS``; a file states its own radii.

    Raises:
        InputError: an unknown suite, or a file that cannot be used; the entry is named.
    """
    if name.endswith(".toml"):
        return read_suite(Path(name))
    if name not in SUITES:
        raise InputError(f"Unknown suite {name!r}: known are {', '.join(SUITES)}, or name a .toml file.")
    if dataset not in _RADII:
        raise InputError(f"Suite {name!r} has no radii for {dataset!r}; known: {', '.join(_RADII)}.")
    return Suite(name, SUITES[name](_RADII[dataset]), **_PROTOCOLS.get(name, {}))


def read_suite(file: Path) -> Suite:
    """A custom suite: ``[[attack]]`` tables with ``name``, ``eps`` and the attack's parameters.

    Raises:
        InputError: a file that is missing, no TOML, or has an entry that cannot be used.
    """
    content = read_toml(file)
    unknown = content.keys() - {"attack"}
    entries = content.get("attack")
    if unknown or not isinstance(entries, list) or not entries:
        found = f"it has {', '.join(sorted(unknown))}" if unknown else "it has none"
        raise InputError(f"The suite file {file} holds [[attack]] tables and nothing else; {found}.")
    attacks = []
    for number, entry in enumerate(entries, start=1):
        try:
            attacks.append(_build_attack(entry))
        except InputError as error:
            raise InputError(f"{file}, attack {number}: {error}") from error
    return Suite(f"custom ({file.name})", tuple(attacks))


def _build_attack(entry: Any) -> Attack:
    if not isinstance(entry, dict):
        raise InputError("an attack is a table with name, eps and parameters.")
    name = entry.get("name")
    if not isinstance(name, str) or name not in ATTACKS:
        raise InputError(f"name is one of {', '.join(ATTACKS)}; got {name!r}.")
    attack = ATTACKS[name]
    parameters = inspect.signature(attack).parameters
    types = get_type_hints(attack)
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key == "name":
            continue
        if key not in parameters:
            raise InputError(f"{name} has no parameter {key!r}; it has {', '.join(parameters)}.")
        if types[key] is Norm:  # the attack itself knows which there are
            values[key] = value
            continue
        # TOML's true is a Python int; 1 is as good as 1.0 where a float is wanted.
        if isinstance(value, bool) or not isinstance(value, (int, types[key])):
            kind = "an integer" if types[key] is int else "a number"
            raise InputError(f"{name}: {key} is {kind}; got {value!r}.")
        values[key] = types[key](value)
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in values]
    if missing:
        raise InputError(f"{name} needs {', '.join(missing)}.")
    return attack(**values)
