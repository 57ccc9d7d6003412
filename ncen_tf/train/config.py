"""Everything that decides the weights a training run ends with."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.flags import flags_of, flatten, unflatten
from ncen_tf.base.settings import LARGEST, Settings
from ncen_tf.data.datasets import DATASETS
from ncen_tf.ensembles.adversarial import AdversarialTraining
from ncen_tf.ensembles.regularizers import ADP, GAL, GPMR, NCE
from ncen_tf.ensembles.structures import parse_architecture, structure_architecture
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
            if not abs(getattr(self, name)) <= LARGEST:
                raise InputError(f"--{name} is finite in float32; got {getattr(self, name)}.")
        for name in ("learning_rate", "min_learning_rate", "noise_eps"):
            if not 0 <= getattr(self, name) <= LARGEST:
                raise InputError(
                    f"--{name} is finite in float32 and not negative; got {getattr(self, name)}."
                )
        for name in ("at_eps", "at_step_size", "trades_beta"):
            if not 0 < getattr(self, name) <= LARGEST:
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


class TrainConfig(Settings):
    """Settings of a training run: what decides the weights it ends with, and where it runs.

    The defaults are those for FashionMNIST; :meth:`for_dataset` fills in those of another dataset (Luo et
    al., section IV-A).

    Raises:
        InputError: A value is out of its range, or two settings do not go together.

    Example:
        >>> import ncen_tf
        >>> config = ncen_tf.TrainConfig.for_dataset(
        ...     "cifar10", members=["resnet8"] * 3, regularizer=ncen_tf.NCE(0.02, 0.02), epochs=4
        ... )
        >>> config.noise_eps, config.flip
        (0.09, True)
    """

    defaults_of_datasets: ClassVar[dict[str, dict[str, Any]]] = {
        "fashion_mnist": {},
        "fashion_mnist_sample": {},
        "cifar10": {
            "epochs": 60,
            "noise_eps": 0.09,
            "flip": True,
            "lambda_cos": 0.06,
            "lambda_norm": 0.04,
            "lambda_div": 0.04,
            "at_eps": 8 / 255,
        },
    }
    """Flat flag names and values, for each known dataset, that differ from the defaults of the fields."""

    dataset: str = Field(default="fashion_mnist", description="Name of the dataset to train on")
    train_examples: int | None = Field(
        default=None, ge=1, description="Size of the class-balanced part of the training images that is used"
    )
    test_examples: int | None = Field(
        default=None, ge=1, description="Size of the class-balanced part of the test images that is used"
    )
    members: tuple[str, ...] = Field(
        default=("resnet20",) * 3,
        description="Names of the members, such as resnet20,resnet20,resnet32",
        json_schema_extra={"flag": "architecture"},
    )
    regularizer: Annotated[NCE | GAL | GPMR | ADP, Field(discriminator="name")] | None = Field(
        default=NCE(), description="Penalty on the members' input gradients or predictions"
    )
    adversarial_training: AdversarialTraining | None = Field(
        default=None, description="Form of adversarial training"
    )
    ce_on: Literal["logits", "probabilities"] = Field(
        default="logits", description="Input of the cross-entropy; probabilities as in the authors' code"
    )
    initial_run: str | None = Field(
        default=None,
        description="Run directory whose ensemble gives the initial weights, instead of random ones",
    )
    epochs: int = Field(
        default=40, ge=1, description="Number of passes over the images and their noisy copies"
    )
    batch_size: int = Field(default=64, ge=1, description="Number of images in a step, over all replicas")
    learning_rate: float = Field(default=1e-3, ge=0, le=LARGEST, description="Initial learning rate of Adam")
    schedule: Literal["steps", "cosine"] = Field(
        default="steps", description="Decay of the learning rate: division by 10 in steps, or half a cosine"
    )
    decay_every: int = Field(default=15, ge=1, description="Number of epochs between two divisions by 10")
    min_learning_rate: float = Field(
        default=1e-5, ge=0, le=LARGEST, description="Lower bound of the learning rate"
    )
    crop_padding: int = Field(default=4, ge=0, description="Padding in pixels before random crops")
    noise_eps: float = Field(
        default=0.3, ge=0, le=LARGEST, description="Bound of the noise in the noisy copies"
    )
    flip: bool = Field(default=False, description="Random horizontal flips")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of weights, order, augmentation and noise")
    precision: Literal["float32", "mixed_bfloat16"] = Field(
        default="float32", description="Keras dtype policy"
    )
    jit_compile: bool = Field(default=False, description="Compilation of loss and gradients with XLA")
    deterministic: bool = Field(default=False, description="Restriction to deterministic TensorFlow kernels")
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = Field(
        default="auto", description="Distribution strategy; auto mirrors the ensemble over several devices"
    )
    virtual_devices: int = Field(
        default=1, ge=1, description="Number of devices that the GPU or CPU is split into"
    )
    sync_batch_norm: bool = Field(default=False, description="Batch statistics over all replicas")
    checkpoint_every: int = Field(default=500, ge=1, description="Number of steps between two checkpoints")

    @field_validator("members")
    @classmethod
    def _check_members(cls, members: tuple[str, ...]) -> tuple[str, ...]:
        return parse_architecture(list(members))

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.virtual_devices > 1 and self.strategy in ("one_device", "multi_worker"):
            raise InputError("`virtual_devices` above 1 needs the `strategy` auto or mirrored.")
        if self.sync_batch_norm and self.jit_compile and self.strategy != "one_device":
            raise InputError(
                "`jit_compile` compiles each replica on its own: with `sync_batch_norm` it needs the "
                "`strategy` one_device."
            )
        return self

    @classmethod
    def for_dataset(cls, name: str, **changes: Any) -> Self:
        """Make the settings for a dataset: its defaults, and what is given.

        Args:
            name: ``fashion_mnist``, ``fashion_mnist_sample`` or ``cifar10``.
            **changes: Fields of this class.

        Raises:
            InputError: An unknown dataset, or a value that cannot be used.
        """
        defaults = unflatten(cls, cls._defaults(name))
        return cls(**{"dataset": name} | defaults | changes)

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Make settings of flat flag names and values, the inverse of :meth:`flat`.

        Flags that are missing or ``None`` have the dataset's defaults. ``structure`` and ``members`` (a
        number) may replace ``architecture``: structures of the paper, such as ``Ensemble4`` with 5 members.

        Args:
            flags: For example ``{"dataset": "cifar10", "regularizer": "gal", "gal_coefficient": 0.3}``.

        Raises:
            InputError: A flag is unknown, or its value cannot be used.
        """
        values = {name: value for name, value in flags.items() if value is not None}
        structure, count = values.pop("structure", "Ensemble1"), values.pop("members", 3)
        if "architecture" not in values:
            values["architecture"] = structure_architecture(structure, count)
        dataset = values.get("dataset", cls.__pydantic_fields__["dataset"].default)
        return cls(**unflatten(cls, cls._defaults(dataset) | values))

    @classmethod
    def _defaults(cls, dataset: str) -> dict[str, Any]:
        if dataset not in cls.defaults_of_datasets:
            known = ", ".join(cls.defaults_of_datasets)
            raise InputError(f"`dataset` must be one of {known}, got {dataset!r}.")
        return cls.defaults_of_datasets[dataset]

    def flat(self) -> dict[str, Any]:
        """Make a flat dictionary of flag names and values, without settings that have no effect."""
        values = flatten(self)
        return {name: value for name, value in values.items() if not _is_idle(name, values)}

    def without_effect(self, given: Iterable[str]) -> dict[str, str]:
        """List the given flags that have no effect, each with the setting that is the reason.

        Args:
            given: Names of flags.
        """
        values, reasons = self.flat(), {}
        for name in given:
            owner = _OWNERS.get(name)
            if owner and name not in values:
                reasons[name] = f"`{owner}` {values[owner]}"
        return reasons


_OWNERS = {flag.name: flag.path[0] for flag in flags_of(TrainConfig) if len(flag.path) > 1}
_OWNERS |= {"decay_every": "schedule"}
"""Flags that have an effect only with some values of another flag."""


def _is_idle(name: str, values: Mapping[str, Any]) -> bool:
    return (name == "decay_every" and values["schedule"] != "steps") or (
        name == "trades_beta" and values["adversarial_training"] != "trades"
    )
