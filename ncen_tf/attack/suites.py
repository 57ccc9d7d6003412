"""Named groups of attacks with their perturbation bounds, and groups read from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, InstanceOf

from ncen_tf.attack.adaptive_boundary import AdaptiveBoundary, TargetedAdaptiveBoundary
from ncen_tf.attack.attack import Attack, Budget, Norm, find_attack
from ncen_tf.attack.auto_pgd import (
    AutoPgdCrossEntropy,
    AutoPgdLogitRatio,
    AutoPgdTargeted,
    MeanLogitTransfer,
)
from ncen_tf.attack.iterative import MomentumIterative
from ncen_tf.attack.losses import ObjectiveName
from ncen_tf.attack.square import Square
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import read_toml
from ncen_tf.base.flags import parse_number
from ncen_tf.base.settings import Settings
from ncen_tf.data.dataset import ImageKind, ImageShape, image_kind

NEAR = 0.5
"""Share of its clean margin, in log-probabilities, at which an image is near the boundary, or below."""


class Suite(Settings):
    """Attacks that are run and reported together; name and version are the protocol in reports.

    Examples:
        >>> import ncen_tf
        >>> suite = ncen_tf.load_suite("strict", (32, 32, 3))
        >>> chosen = ncen_tf.Suite(name="two of strict", attacks=suite.attacks[:2], objective="ensemble")
        >>> [attack.label for attack in chosen.attacks]
        ['MI-FGSM Linf 0.0313725', 'APGD-CE Linf 0.0313725']
    """

    name: str
    version: int = Field(default=1, gt=0)
    """Rises when a named suite changes, so that figures of two versions are not mixed."""
    attacks: tuple[InstanceOf[Attack], ...]
    objective: ObjectiveName = "member_average"
    """What gradient attacks maximise."""
    batch_size: int = Field(default=100, gt=0)
    """Number of images attacked at a time."""
    batch_statistics: bool = False
    """Whether BatchNorm normalises with the statistics of the attacked batch, as in training."""
    cumulative: bool = False
    """Whether an attack is only run on what those before it, at the same norm and eps, left correct."""
    round_to_8bit: bool = False
    """Whether clean and adversarial images are rounded to multiples of 1/255, within the bounds."""
    near_only: frozenset[InstanceOf[Attack]] = frozenset()
    """Attacks of a cumulative suite that are only run on images near the boundary, see ``NEAR``."""
    allowance: Budget | None = None
    """Passes for an image at each norm and eps, on average: an attack is only run on as many images, those of
    the smallest margins, as what the attacks before it left of the passes of all images allows."""
    check_gradients: bool = False
    """Whether a report has a verdict on masked gradients, unless the user says otherwise."""
    examples: int = Field(default=1000, ge=0)
    """Number of test images, unless the user says otherwise; 0 for all."""
    fixed: frozenset[Literal["objective", "batch_size"]] = frozenset()
    """What belongs to the protocol and is not the user's choice."""

    @property
    def protocol(self) -> str:
        """The name, with the version from the second on, and the rounding: ``strict 4, 8-bit images``."""
        version = f" {self.version}" if self.version > 1 else ""
        return f"{self.name}{version}{', 8-bit images' if self.round_to_8bit else ''}"

    def with_choices(
        self,
        *,
        objective: ObjectiveName | None = None,
        batch_size: int | None = None,
        norm: Norm | None = None,
        check_gradients: bool | None = None,
        round_to_8bit: bool = False,
        classes: int = 4,
        members: int = 2,
    ) -> Suite:
        """Return the suite with what the user chose; ``None`` keeps the suite's own.

        ``norm`` keeps only the attacks in this norm. Named suites leave out attacks that need more
        ``classes`` or ``members`` than the target has.

        Raises:
            InputError: The protocol fixes it to something else, no attack is left, or ``check_gradients``
                with neither a ``gradient_check_eps`` nor ``comparable_threat_models``.
        """
        chosen: dict[str, Any] = {"objective": objective, "batch_size": batch_size}
        changes = {name: value for name, value in chosen.items() if value not in (None, getattr(self, name))}
        for name in changes.keys() & self.fixed:
            raise InputError(
                f"Suite {self.name!r} is measured with `{name}`={getattr(self, name)}: leave it out, or "
                "choose another suite."
            )
        if norm not in (None, *get_args(Norm)):
            raise InputError(f"`norm` must be one of {', '.join(get_args(Norm))}, got {norm!r}.")
        attacks = tuple(attack for attack in self.attacks if norm in (None, attack.norm))
        if self.name in SUITES:
            attacks = tuple(attack for attack in attacks if attack.suits(classes, members))
        if not attacks:
            raise InputError(f"Suite {self.name!r} has no attack in {norm}: leave `norm` out.")
        if check_gradients is None:
            check_gradients = self.check_gradients
        values = dict(self) | changes | {"attacks": attacks, "check_gradients": check_gradients}
        values["round_to_8bit"] = self.round_to_8bit or round_to_8bit
        suite = Suite(**values)
        if check_gradients and suite.gradient_check_eps() is None and not suite.comparable_threat_models():
            raise InputError(
                "`check_gradients` needs a gradient attack in Linf, or attacks with and without gradients at "
                f"the same norm and eps; suite {self.name!r} has neither."
            )
        return suite

    def budget(self, classes: int, members: int) -> Budget | None:
        """Sum up the attacks' budgets, or allowances: the most for an image; ``None`` if one is not known."""
        budgets = [attack.budget(classes, members) for attack in self.attacks]
        if None in budgets:
            return None
        total = Budget(*(sum(passes) for passes in zip(*filter(None, budgets), strict=True)))
        if self.allowance is None:
            return total
        times = len({attack.threat_model for attack in self.attacks})
        return Budget(*(min(most, times * each) for most, each in zip(total, self.allowance, strict=True)))

    def gradient_check_eps(self) -> float | None:
        """Return the eps at which gradients are checked: the smallest of the gradient attacks in Linf."""
        gradient_attacks = [each for each in self.attacks if each.norm == "Linf" and not each.gradient_free]
        return min((attack.eps for attack in gradient_attacks), default=None)

    def comparable_threat_models(self) -> list[tuple[Norm, float]]:
        """Return norm and eps wherever there are attacks both with gradients and without."""
        kinds: dict[tuple[Norm, float], set[bool]] = {}
        for attack in self.attacks:
            kinds.setdefault(attack.threat_model, set()).add(attack.gradient_free)
        return [threat_model for threat_model, found in kinds.items() if len(found) == 2]


class Radii(Settings):
    """Perturbation bounds for images in [0, 1]."""

    single_step: tuple[float, ...]
    """Linf, for FGSM and MI-FGSM of the suites ``paper`` and ``released``."""
    iterative: tuple[float, ...]
    """Linf, for PGD and BIM of the same suites."""
    strict: dict[Norm, float]
    """One a norm."""


RADII: dict[ImageKind, Radii] = {
    # Luo et al., section IV-A, for FashionMNIST.
    "small grey images": Radii(
        single_step=(0.1, 0.3), iterative=(0.1, 0.15), strict={"Linf": 0.1, "L2": 1.5}
    ),
    # Luo et al. for CIFAR-10; ``strict``: RobustBench (Croce et al., 2021, arXiv:2010.09670).
    "small colour images": Radii(
        single_step=(0.03, 0.09), iterative=(0.01, 0.02), strict={"Linf": 8 / 255, "L2": 0.5}
    ),
    # ImageNet at 224 x 224: Linf of RobustBench, L2 of Engstrom et al. (2019), robustness package.
    "large images": Radii(single_step=(4 / 255,), iterative=(4 / 255,), strict={"Linf": 4 / 255, "L2": 3.0}),
}


def radii_for(image_shape: ImageShape, eps: float | None = None, norm: Norm | None = None) -> Radii:
    """Return the bound of a user, in Linf by default, or the usual ones for the size of the images."""
    if eps is not None:
        return Radii(single_step=(eps,), iterative=(eps,), strict={norm or "Linf": eps})
    return RADII[image_kind(image_shape)]


def _paper(radii: Radii) -> tuple[Attack, ...]:
    fgsm, momentum, pgd, bim = (_builder(name) for name in ("FGSM", "MI-FGSM", "PGD", "BIM"))
    return (
        *(fgsm(eps=eps) for eps in radii.single_step),
        *(momentum(eps=eps, steps=40, step_size=min(0.01, eps), decay=1.0) for eps in radii.single_step),
        *(pgd(eps=eps, steps=40, step_size=eps) for eps in radii.iterative),
        *(bim(eps=eps, steps=10, step_size=eps) for eps in radii.iterative),
    )


def _blackbox(radii: Radii) -> tuple[Attack, ...]:
    return tuple(Square(eps=eps) for eps in sorted({*radii.single_step, *radii.iterative}))


def _quick(radii: Radii) -> tuple[Attack, ...]:
    eps = radii.iterative[0]
    return _builder("FGSM")(eps=eps), _builder("PGD")(eps=eps, steps=10, step_size=eps / 4)


def _screen(radii: Radii) -> tuple[Attack, ...]:
    """List attacks for an allowance of 150 gradients and 500 forward passes.

    The first four cost 150 gradients and 491 forward passes for an example that withstands them. FAB ranks up
    to 12 classes at first, for which a target with fewer of them costs less: 147 with ten. The others take
    what is left where most examples are soon broken.
    """
    return tuple(
        attack
        for norm, eps in radii.strict.items()
        for attack in (
            AutoPgdCrossEntropy(eps=eps, norm=norm, steps=21),
            MeanLogitTransfer(eps=eps, norm=norm, steps=20),
            AdaptiveBoundary(eps=eps, norm=norm, steps=57),
            Square(eps=eps, norm=norm, queries=350),
            AutoPgdCrossEntropy(eps=eps, norm=norm, steps=50),
            AutoPgdTargeted(eps=eps, norm=norm, targets=5),
            AutoPgdLogitRatio(eps=eps, norm=norm, steps=50),
            TargetedAdaptiveBoundary(eps=eps, norm=norm, steps=80),
            AutoPgdCrossEntropy(eps=eps, norm=norm),
            MeanLogitTransfer(eps=eps, norm=norm),
            Square(eps=eps, norm=norm),
        )
    )


def _strict(radii: Radii) -> dict[Attack, bool]:
    """List attacks, and which of them only images near the boundary get.

    FAB-T comes after the short Square: where gradients mislead the attacks before, Square moves images near
    the boundary that FAB-T then breaks. AutoAttack takes 100 steps of Auto-PGD and FAB, 9 target classes, and
    5,000 queries for Square.
    """
    return {
        attack: near_only
        for norm, eps in radii.strict.items()
        for attack, near_only in (
            (MomentumIterative(eps=eps, norm=norm, steps=10, step_size=eps / 10, decay=1.0), False),
            (AutoPgdCrossEntropy(eps=eps, norm=norm, steps=50), False),
            (AutoPgdLogitRatio(eps=eps, norm=norm, steps=50), False),
            (AutoPgdCrossEntropy(eps=eps, norm=norm), True),
            (MeanLogitTransfer(eps=eps, norm=norm), True),
            (AutoPgdTargeted(eps=eps, norm=norm, targets=5), True),
            (Square(eps=eps, norm=norm, queries=300), False),
            (TargetedAdaptiveBoundary(eps=eps, norm=norm, steps=80), True),
            (Square(eps=eps, norm=norm), True),
            (Square(eps=eps, norm=norm, queries=600), False),
        )
    }


def _builder(name: str) -> Callable[..., Attack]:
    return find_attack(name)


# What differs from the paper's text in what the authors' code measures: same attacks, another model.
_PROTOCOLS: dict[str, dict[str, Any]] = {
    "released": {
        "objective": "stacked_softmax",
        "batch_size": 64,
        "batch_statistics": True,
        "fixed": frozenset({"objective", "batch_size"}),
    },
    "screen": {
        "version": 4,
        "objective": "ensemble",
        "cumulative": True,
        "allowance": Budget(gradients=150, queries=500),
        "fixed": frozenset({"objective"}),
    },
    "strict": {
        "version": 4,
        "objective": "ensemble",
        "cumulative": True,
        "check_gradients": True,
        "examples": 0,
        "fixed": frozenset({"objective"}),
    },
}
SUITES: dict[str, Callable[[Radii], tuple[Attack, ...]]] = {
    "paper": _paper,
    "released": _paper,
    "strict": lambda radii: tuple(_strict(radii)),
    "screen": _screen,
    "blackbox": _blackbox,
    "quick": _quick,
}


def load_suite(
    name: str | Path, image_shape: ImageShape, *, eps: float | str | None = None, norm: Norm | None = None
) -> Suite:
    """Load a named suite with perturbation bounds, or a suite from a TOML file, which states its own.

    Without ``eps``, the bounds are the usual ones of images of this size: those of FashionMNIST for small
    grey images, of CIFAR-10 for small colour ones, of ImageNet if the shorter side has 64 pixels or more.

    Args:
        name: A key of ``SUITES``, or the path of a file that ends in ``.toml``.
        image_shape: (height, width, channels).
        eps: Bound of every attack, for images in [0, 1]: a number or a fraction such as ``"8/255"``.
        norm: Keep only the attacks in this norm. Needed beside ``eps`` by suites with several norms.

    Raises:
        InputError: The suite is unknown, has no attack in the norm or a bound that cannot be used, or a file
            cannot be used; the entry is named.

    Examples:
        >>> import ncen_tf
        >>> [attack.name for attack in ncen_tf.load_suite("blackbox", (32, 32, 3)).attacks]
        ['Square', 'Square', 'Square', 'Square']
        >>> [attack.label for attack in ncen_tf.load_suite("quick", (224, 224, 3), eps=2 / 255).attacks]
        ['FGSM Linf 0.00784314', 'PGD Linf 0.00784314']
    """
    name = str(name)
    if name.endswith(".toml"):
        if eps is not None:
            raise InputError(f"`eps` is stated in the suite file {name}, attack by attack: leave it out.")
        return read_suite(Path(name)).with_choices(norm=norm)
    if name not in SUITES:
        raise InputError(f"Unknown suite {name!r}: known are {', '.join(SUITES)}, or name a .toml file.")
    if isinstance(eps, str):
        eps = _read_number("eps", eps)
    norms = {attack.norm for attack in SUITES[name](radii_for(image_shape))}
    if eps is not None and norm is None and len(norms) > 1:
        raise InputError(
            f"`eps` bounds one norm, and suite {name!r} has attacks in {' and '.join(sorted(norms))}: set "
            "`norm`."
        )
    radii = radii_for(image_shape, eps, norm)
    values = dict(_PROTOCOLS.get(name, {}), attacks=SUITES[name](radii))
    if name == "strict":
        values["near_only"] = frozenset(attack for attack, near_only in _strict(radii).items() if near_only)
    return Suite(name=name, **values).with_choices(norm=norm)


def read_suite(file: Path) -> Suite:
    """Read a custom suite: ``[[attack]]`` tables with ``name``, ``eps`` and the attack's settings.

    Raises:
        InputError: The file is missing, is not TOML, or has an entry that cannot be used.
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
    return Suite(name=f"custom ({file.name})", attacks=tuple(attacks))


def _build_attack(entry: Any) -> Attack:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InputError("an attack is a table with name, eps and settings.")
    settings = {key: value for key, value in entry.items() if key != "name"}
    for key, value in settings.items():
        if isinstance(value, bool):  # which Python counts as a number
            raise InputError(f"`{key}` must be a number, got {str(value).lower()}.")
        if isinstance(value, str) and "/" in value:
            settings[key] = _read_number(key, value)
    return _builder(entry["name"])(**settings)


def _read_number(name: str, text: str) -> float:
    try:
        return parse_number(text)
    except ValueError as error:
        raise InputError(f"`{name}` must be a number or a fraction, got {text!r}.") from error
