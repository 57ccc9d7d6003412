"""Everything that decides the weights a training run ends with."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from ncen_tf.base.errors import InputError
from ncen_tf.data.datasets import DATASETS
from ncen_tf.ensembles.structures import parse_architecture
from ncen_tf.untrusted.input_files import check_flag_size

COEFFICIENTS: dict[str, tuple[str, ...]] = {
    "none": (),
    "gal": ("gal_coefficient",),
    "gpmr": ("lambda_div", "lambda_eq"),
    "adp": ("adp_alpha", "adp_beta"),
    "nce": ("lambda_cos", "lambda_norm"),
}
"""Of the regularizers; a negative one turns its term around."""
REGULARIZERS = tuple(COEFFICIENTS)
ADVERSARIAL_TRAININGS = ("none", "pgd", "trades")
ADVERSARY_LOSSES = ("ensemble", "members")
PRECISIONS = ("float32", "mixed_bfloat16")
SCHEDULES = ("steps", "cosine")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")

_ADVERSARY = ("at_eps", "at_steps", "at_step_size", "at_random_start", "at_loss", "at_fraction")
_ONLY_WITH: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {
    **{("regularizer", (name,)): own for name, own in COEFFICIENTS.items()},
    ("regularizer", ("nce",)): (*COEFFICIENTS["nce"], "nce_form"),
    ("adversarial_training", ("pgd", "trades")): _ADVERSARY,
    ("adversarial_training", ("trades",)): ("trades_beta",),
    ("schedule", ("steps",)): ("decay_every",),
}
"""Some values of a setting, and other settings that mean something with these values alone."""

_LARGEST = 3.4028234e38
"""float32 has nothing between this and infinity."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Resolved settings of a run; the names are those of ``ncen_tf.train``'s flags.

    Raises:
        InputError: a value out of its range, or a combination that cannot work.
    """

    dataset: str
    architecture: tuple[str, ...]
    regularizer: str
    lambda_cos: float
    lambda_norm: float
    epochs: int
    noise_eps: float
    nce_form: str = "paper"
    ce_on: str = "logits"
    gal_coefficient: float = 0.5
    lambda_div: float = 0.1
    lambda_eq: float = 10.0
    adp_alpha: float = 2.0
    adp_beta: float = 0.5
    adversarial_training: str = "none"
    at_eps: float = 0.1
    at_steps: int = 10
    at_step_size: float = 0.025
    at_random_start: bool = True
    at_loss: str = "ensemble"
    at_fraction: float = 1.0
    trades_beta: float = 6.0
    initial_run: str | None = None
    train_examples: int | None = None
    test_examples: int | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    schedule: str = "steps"
    decay_every: int = 15
    min_learning_rate: float = 1e-5
    crop_padding: int = 4
    seed: int = 0
    precision: str = "float32"
    jit_compile: bool = False
    deterministic: bool = False
    strategy: str = "auto"
    virtual_devices: int = 1
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        choices = {
            "dataset": tuple(DATASETS),
            "regularizer": REGULARIZERS,
            "nce_form": ("paper", "released"),
            "ce_on": ("logits", "probabilities"),
            "adversarial_training": ADVERSARIAL_TRAININGS,
            "at_loss": ADVERSARY_LOSSES,
            "schedule": SCHEDULES,
            "precision": PRECISIONS,
            "strategy": STRATEGIES,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"--{name} is one of {', '.join(allowed)}; got {getattr(self, name)!r}.")
        for name, value in dataclasses.asdict(self).items():
            check_flag_size(name, value)
        for name in ("epochs", "batch_size", "decay_every", "virtual_devices", "at_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is at least 1; got {getattr(self, name)}.")
        if not 0 <= self.crop_padding < min(DATASETS[self.dataset].image_shape[:2]):
            raise InputError(
                f"--crop_padding is at least 0 and less than the image's size; got {self.crop_padding}."
            )
        for name in itertools.chain(*COEFFICIENTS.values()):
            if not abs(getattr(self, name)) <= _LARGEST:
                raise InputError(f"--{name} is finite in float32; got {getattr(self, name)}.")
        for name in ("learning_rate", "min_learning_rate", "noise_eps"):
            if not 0 <= getattr(self, name) <= _LARGEST:
                raise InputError(
                    f"--{name} is finite in float32 and not negative; got {getattr(self, name)}."
                )
        for name in ("at_eps", "at_step_size", "trades_beta"):
            if not 0 < getattr(self, name) <= _LARGEST:
                raise InputError(f"--{name} is finite in float32 and above 0; got {getattr(self, name)}.")
        if not 0 < self.at_fraction <= 1:
            raise InputError(f"--at_fraction is above 0 and at most 1; got {self.at_fraction}.")
        if self.adversarial_training == "trades" and not self.at_random_start:
            raise InputError(
                "--adversarial_training=trades has no gradient at the image: it needs --at_random_start."
            )
        if not 0 <= self.seed < 2**31:
            raise InputError(f"--seed is in [0, 2^31); got {self.seed}.")
        if self.virtual_devices > 1 and self.strategy in ("one_device", "multi_worker"):
            raise InputError("--virtual_devices above 1 needs --strategy=auto or mirrored.")
        if self.sync_batch_norm and self.jit_compile and self.strategy != "one_device":
            raise InputError(
                "--jit_compile compiles each replica on its own: with --sync_batch_norm it needs "
                "--strategy=one_device."
            )
        parse_architecture(list(self.architecture))
        if self.regularizer == "adp" and len(self.architecture) >= len(DATASETS[self.dataset].class_names):
            raise InputError(
                "--regularizer=adp needs fewer members than classes; got "
                f"{len(self.architecture)} members for {len(DATASETS[self.dataset].class_names)} classes."
            )

    def without_effect(self, given: Iterable[str]) -> dict[str, str]:
        """Which of these settings this run does not look at, and the flag that is the reason."""
        idle = {
            name: f"--{setting}={getattr(self, setting)}"
            for (setting, values), names in _ONLY_WITH.items()
            if getattr(self, setting) not in values
            for name in names
        }
        return {name: idle[name] for name in given if name in idle}

    @classmethod
    def from_flags(cls, flags: dict[str, str]) -> "TrainingConfig":
        """The inverse of :meth:`to_flags`.

        Raises:
            InputError: a flag is missing, unknown, or has a value of the wrong type.
        """
        try:
            return cls(**{name: _PARSERS[cls.__annotations__[name]](text) for name, text in flags.items()})
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"These are not the flags of a run: {error}.") from error

    def to_flags(self) -> dict[str, str]:
        """Every setting as the text of its flag; settings that are ``None`` are left out."""
        values = dataclasses.asdict(self)
        return {name: _flag_text(value) for name, value in values.items() if value is not None}


def default_at_step_size(eps: float, steps: int) -> float:
    """Step of an adversary that states none: 1.25 eps of a single one, 2.5 eps / steps of more."""
    return 1.25 * eps if steps == 1 else 2.5 * eps / max(steps, 1)


_PARSERS: dict[object, Callable[[str], Any]] = {
    str: str,
    str | None: str,
    int: int,
    float: float,
    int | None: int,
    bool: {"true": True, "false": False}.__getitem__,
    tuple[str, ...]: lambda text: tuple(text.split(",")),
}


def _flag_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)
