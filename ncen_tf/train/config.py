"""Settings of a training run, each declared once: type, range, default and description."""

from collections.abc import Container, Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.flags import flags_of, flatten, unflatten
from ncen_tf.base.settings import LARGEST
from ncen_tf.data.dataset import CLASS_NAMES, Dataset, ImageShape, image_kind
from ncen_tf.data.loading import SourceSettings
from ncen_tf.ensembles.regularizers import ADP, DVERGE, GAL, GPMR, NCE, NCL, TRS, AdversarialTraining
from ncen_tf.ensembles.structures import parse_architecture, structure_architecture

_COLOUR = {"noise_eps": 0.09, "at_eps": 8 / 255, "trs_eps": 8 / 255, "dverge_eps": 0.07}


class TrainConfig(SourceSettings):
    """Settings of a training run: what decides the weights it ends with, and where it runs.

    The defaults are those for FashionMNIST; ``for_dataset`` fills in those of another dataset (Luo et
    al., section IV-A).

    Raises:
        InputError: A value is out of its range, or two settings do not go together.

    Examples:
        >>> import ncen_tf
        >>> config = ncen_tf.TrainConfig.for_dataset(
        ...     "cifar10", members=["resnet8"] * 3, regularizer=ncen_tf.NCE(0.02, 0.02), epochs=4
        ... )
        >>> config.noise_eps, config.flip
        (0.09, True)
    """

    defaults_for: ClassVar[dict[str, dict[str, Any]]] = {
        "cifar10": _COLOUR
        | {"epochs": 60, "flip": True, "lambda_cos": 0.06, "lambda_norm": 0.04, "lambda_div": 0.04},
        "small colour images": _COLOUR,
        "large images": {"noise_eps": 4 / 255, "at_eps": 4 / 255, "trs_eps": 4 / 255, "dverge_eps": 8 / 255},
    }
    """Flat flag names and values, for a dataset or a kind of images, that differ from those of the fields."""

    train_examples: int | None = Field(
        default=None, ge=1, description="Size of the class-balanced part of the training images that is used"
    )
    test_examples: int | None = Field(
        default=None, ge=1, description="Size of the class-balanced part of the test images that is used"
    )
    members: tuple[str, ...] = Field(
        default=("resnet20",) * 3,
        description="Names of the members: resnet20, Keras applications as mobilenet_v2, or module:function",
        json_schema_extra={"flag": "architecture"},
    )
    regularizer: (
        Annotated[NCE | GAL | GPMR | ADP | NCL | TRS | DVERGE, Field(discriminator="name")] | None
    ) = Field(default=NCE(), description="Penalty on the members' input gradients or predictions")
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
    ema_momentum: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Momentum of the moving average of the weights, which is measured and saved; 0 for none",
    )
    crop_padding: int = Field(
        default=4,
        ge=0,
        description="Padding in pixels before random crops; an eighth of the size of images of your own",
    )
    noise_eps: float = Field(
        default=0.3, ge=0, le=LARGEST, description="Bound of the noise in the noisy copies"
    )
    flip: bool = Field(default=False, description="Random horizontal flips")
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of weights, order, augmentation and noise")
    precision: Literal["float32", "mixed_bfloat16", "auto"] = Field(
        default="float32",
        description="Keras dtype policy; auto is mixed_bfloat16 where the hardware has it and it is faster",
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
    by_images: tuple[str, ...] = Field(
        default=(),
        description="Flat names of settings that wait for the images, whose kind and size decide them",
        json_schema_extra={"flag": None},
    )

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
    def for_dataset(cls, dataset: str | Dataset, **changes: Any) -> Self:
        """Make the settings for a dataset: its defaults, and what is given.

        Args:
            dataset: ``fashion_mnist``, ``fashion_mnist_sample``, ``cifar10``, or a dataset that is loaded. Of
                another name or path, settings that depend on the images wait in ``by_images`` until
                :func:`~ncen_tf.train_ensemble` has the images.
            **changes: Fields of this class. A regularizer or adversarial training keeps its own defaults.

        Raises:
            InputError: A value that cannot be used.
        """
        name = dataset.name if isinstance(dataset, Dataset) else dataset
        given = {flag.name for flag in flags_of(cls) if flag.path[0] in changes}
        values = unflatten(cls, cls._defaults(name))
        made = cls(**{"dataset": name, "by_images": _waiting(name, given)} | values | changes)
        return made.for_images(dataset.image_shape) if isinstance(dataset, Dataset) else made

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Make settings of flat flag names and values, the inverse of ``flat``.

        Flags that are missing or ``None`` have the dataset's defaults. ``structure`` and ``members`` (a
        number) may replace ``architecture``: structures of the paper, such as ``Ensemble4`` with 5 members.

        Args:
            flags: For example ``{"dataset": "cifar10", "regularizer": "gal", "gal_coefficient": 0.3}``.

        Raises:
            InputError: A flag is unknown, or its value cannot be used.
        """
        values = {name: value for name, value in flags.items() if value is not None}
        # Checked even where an architecture takes its place.
        members = structure_architecture(values.pop("structure", "Ensemble1"), values.pop("members", 3))
        values.setdefault("architecture", members)
        dataset = values.get("dataset", cls.__pydantic_fields__["dataset"].default)
        return cls(by_images=_waiting(dataset, values), **unflatten(cls, cls._defaults(dataset) | values))

    @classmethod
    def _defaults(cls, dataset: str) -> dict[str, Any]:
        return cls.defaults_for.get(dataset, {}) if dataset in CLASS_NAMES else {}

    def for_images(self, image_shape: ImageShape) -> Self:
        """Give the settings in ``by_images`` the usual values for images of this shape.

        Args:
            image_shape: (height, width, channels).
        """
        kind = image_kind(image_shape)
        usual = self.defaults_for.get(kind, {}) | {"crop_padding": (min(image_shape[:2]) + 4) // 8}
        chosen = {name: value for name, value in usual.items() if name in self.by_images}
        return type(self)(**unflatten(type(self), flatten(self) | chosen)) if self.by_images else self

    def flat(self) -> dict[str, Any]:
        """Make a flat dictionary of flag names and values, without settings that have no effect."""
        values = flatten(self)
        return {name: value for name, value in values.items() if not _is_idle(name, values)}

    def without_effect(self, given: Iterable[str]) -> dict[str, str]:
        """List the given flags that have no effect, with the reasons, such as regularizer=gal.

        Args:
            given: Names of flags.
        """
        values, reasons = self.flat(), {}
        for name in given:
            owner = _OWNERS.get(name)
            if owner and name not in values:
                reasons[name] = f"{owner}={values[owner]}"
        return reasons


_BY_IMAGES = ("crop_padding", *TrainConfig.defaults_for["large images"])


def _waiting(dataset: str, given: Container[str]) -> tuple[str, ...]:
    """List the settings of a dataset, without those that are given, which its images decide."""
    return () if dataset in CLASS_NAMES else tuple(name for name in _BY_IMAGES if name not in given)


_OWNERS = {flag.name: flag.path[0] for flag in flags_of(TrainConfig) if len(flag.path) > 1}
_OWNERS |= {"decay_every": "schedule"}
"""Flags that have an effect only with some values of another flag."""


def _is_idle(name: str, values: Mapping[str, Any]) -> bool:
    if name in SourceSettings.model_fields and name != "dataset":
        return bool(values[name] == SourceSettings.model_fields[name].default)
    return (name == "decay_every" and values["schedule"] != "steps") or (
        name == "trades_beta" and values["adversarial_training"] != "trades"
    )
