"""How images go into a classifier and what comes out: as its user says, and as it was found."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings

Array = npt.NDArray[np.float32]
Layout = Literal["NHWC", "NCHW"]
ImageShape = tuple[int, int, int]
Quantization = Literal["straight_through"]

_CHANNELS = (1, 3)


class ModelInterface(Settings):
    """How a classifier takes images and returns its answer. What is not given is found by itself.

    An image x in [0, 1] enters the model as (low + (high - low) x - mean) / std, where (low, high) is
    ``input_range``. ``mean`` and ``std`` have one value, or one for each channel of the model.

    Examples:
        >>> import ncen_tf
        >>> interface = ncen_tf.ModelInterface(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        >>> interface.mean
        (0.485, 0.456, 0.406)
    """

    input_layout: Layout | None = Field(
        default=None, description="Order of the axes of the model's input (default: found by itself)"
    )
    input_range: tuple[float, float] | None = Field(
        default=None,
        description="Values that the model takes for black and white, such as 0,255 or -1,1 (default: "
        "0,1, or 0,255 if its input holds integers)",
    )
    channel_order: Literal["RGB", "BGR"] = Field(
        default="RGB", description="Order of the channels of the model's input"
    )
    mean: tuple[float, ...] = Field(
        default=(0.0,),
        description="Value subtracted from images in the input range, one or one a channel",
    )
    std: tuple[float, ...] = Field(
        default=(1.0,), description="Value that divides the difference, one or one a channel"
    )
    output: Literal["logits", "probabilities"] | None = Field(
        default=None, description="What the model's output holds (default: found by itself)"
    )
    output_name: str | None = Field(
        default=None, description="Name of the output of a model with several (default: found by itself)"
    )

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if not std or min(std) <= 0:
            raise ValueError(f"`std` must be greater than 0 in every channel, got {list(std)}.")
        return std

    @field_validator("input_range")
    @classmethod
    def _rising(cls, values: tuple[float, float] | None) -> tuple[float, float] | None:
        if values is not None and values[0] >= values[1]:
            raise ValueError(f"`input_range` must be a lower and a higher value, got {list(values)}.")
        return values

    def describe(self) -> str:
        """Write what was set for reports: ``, mean 0.5, std 0.25``; nothing for the defaults."""
        parts = []
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if value != field.default:
                text = " ".join(map(str, value)) if isinstance(value, tuple) else value
                parts.append(f", {name.removeprefix('input_')} {text}")
        return "".join(parts)


class Signature(Settings):
    """What was found out about a classifier's input and output, or was said of them."""

    input_name: str
    input_type: str
    """Type of its numbers, such as ``float32`` or ``uint8``."""
    input_shape: str
    """As the file states it, such as ``1 x 3 x 224 x 224``; ``?`` is a free size."""
    layout: Layout
    """Order of the axes; of a flat input, of the axes that were flattened."""
    input_range: tuple[float, float]
    channel_order: Literal["RGB", "BGR"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    whole_pixels: bool
    """Whether the model takes whole pixel values: it is shown images rounded to 1/255."""
    batch: str
    """How many images it is given at a time."""
    output_name: str
    output: str
    """``logits``, ``probabilities``, or ``logits before the Softmax``."""
    classes: int
    gradient: str = "exact"
    """``straight through its quantization``: a direction, not a derivative."""

    def __str__(self) -> str:
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        low, high = self.input_range
        whole = " in whole pixels" if self.whole_pixels else ""
        return (
            f"input {self.input_name}: {self.input_type} [{self.input_shape}], {self.layout}, "
            f"{self.channel_order}, values {low:g} to {high:g}{whole}, mean {mean}, std {std}; "
            f"batch: {self.batch}\n"
            f"output {self.output_name}: {self.output} of {self.classes} classes"
            + (f"; gradient: {self.gradient}" if self.gradient != "exact" else "")
        )


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The map from images [N, H, W, C] in [0, 1] to what a model takes, and its derivative.

    Args:
        interface: Range, order of channels, mean and deviation.
        layout: Order of the axes.
        image_shape: (height, width, channels).
        sizes: Of the input's axes after the batch.
        integers: Whether the input holds integers. Images are then rounded to whole pixel values, and the
            derivative of the rounding is taken for 1 (a straight-through estimate).

    Raises:
        InputError: ``mean`` or ``std`` has another number of values than channels, or does not fit integers.
    """

    interface: ModelInterface
    layout: Layout
    image_shape: ImageShape
    sizes: tuple[int, ...]
    integers: bool = False

    @classmethod
    def found(
        cls,
        where: str,
        interface: ModelInterface,
        sizes: Sequence[int | None],
        image_shape: ImageShape | None,
        integers: bool,
        likely: Layout | None = None,
    ) -> "Preprocessing":
        """Find the map into an input: of 4 axes, 3 (no axis of channels) or 2 (flat).

        Args:
            where: What the model is, which starts error messages.
            interface: What the user says.
            sizes: Of the input's axes after the batch, ``None`` for free ones.
            image_shape: (height, width, channels) of the images at hand, if any.
            integers: Whether the input holds integers.
            likely: The order of axes that is common for the program that wrote the model.

        Raises:
            InputError: The input is not one of images, or its layout or sizes cannot be told.
        """
        layout, image_shape = _find_layout(where, sizes, image_shape, interface.input_layout, likely)
        height, width, channels = image_shape
        of_images = (channels, height, width) if layout == "NCHW" else image_shape
        of_input = {3: of_images, 2: (height, width)}.get(len(sizes), (math.prod(image_shape),))
        return cls(interface, layout, image_shape, of_input, integers)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self.interface, name)
            if len(values) not in (1, self.image_shape[2]):
                raise InputError(f"`{name}` has {len(values)} values for {self.image_shape[2]} channels.")
        if self.integers and (self.range, self.interface.mean, self.interface.std) != ((0, 255), (0,), (1,)):
            raise InputError(
                "The model takes whole pixel values from 0 to 255: `input_range`, `mean` and `std` cannot "
                "change them."
            )

    def replaced(self, interface: ModelInterface) -> "Preprocessing":
        """Return the map into the same input by another interface."""
        return dataclasses.replace(self, interface=interface)

    @property
    def range(self) -> tuple[float, float]:
        """Values of black and white before mean and deviation."""
        return self.interface.input_range or ((0.0, 255.0) if self.integers else (0.0, 1.0))

    @property
    def scale(self) -> Array:
        """Factors of the images, one or one a channel of the model."""
        low, high = self.range
        return np.array([(high - low) / std for std in self.interface.std], np.float32)

    @property
    def offset(self) -> Array:
        """What is added after that, one value or one a channel of the model."""
        low, mean, std = self.range[0], np.array(self.interface.mean), np.array(self.interface.std)
        return ((low - mean) / std).astype(np.float32)

    def model_input(self, images: Array) -> npt.NDArray[Any]:
        """Convert images float32 [N, H, W, C] in [0, 1]: float32, or uint8 where the model takes integers."""
        inputs: npt.NDArray[Any] = images[..., ::-1] if self._reversed else images
        if self.integers:
            inputs = np.rint(np.clip(inputs * np.float32(255), 0, 255)).astype(np.uint8)
        elif (self.scale != 1).any() or self.offset.any():
            inputs = inputs * self.scale + self.offset
        if self.layout == "NCHW":
            inputs = inputs.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(inputs.reshape(len(images), *self.sizes))

    def image_gradient(self, gradient: npt.NDArray[np.floating]) -> Array:
        """Convert a gradient with respect to the model's input into one with respect to the images."""
        height, width, channels = self.image_shape
        axes = (channels, height, width) if self.layout == "NCHW" else self.image_shape
        gradient = gradient.reshape(-1, *axes)
        if self.layout == "NCHW":
            gradient = gradient.transpose(0, 2, 3, 1)
        if (self.scale != 1).any():
            gradient = gradient * self.scale
        return np.ascontiguousarray(gradient[..., ::-1] if self._reversed else gradient, np.float32)

    def images_for(self, other: "Preprocessing", images: Array) -> Array:
        """Make images, perhaps outside [0, 1], that enter this model as ``images`` would by another map."""
        if other._reversed != self._reversed:
            images = images[..., ::-1]
        order = slice(None, None, -1 if self._reversed else 1)
        factor, shift = other.scale / self.scale, (other.offset - self.offset) / self.scale
        return (images * factor[order] + shift[order]).astype(np.float32)

    @property
    def _reversed(self) -> bool:
        return self.interface.channel_order == "BGR"


def _find_layout(
    where: str,
    sizes: Sequence[int | None],
    image_shape: ImageShape | None,
    layout: Layout | None,
    likely: Layout | None,
) -> tuple[Layout, ImageShape]:
    """Find the order of axes and the images' shape of a model's input."""
    if len(sizes) == 3:
        return _layout_of_images(where, tuple(sizes), image_shape, layout, likely)
    stated = " x ".join("?" if size is None else str(size) for size in ("N", *sizes))
    shape: tuple[int | None, ...]
    if len(sizes) == 2:
        height, width, _ = image_shape or (None, None, 1)
        shape = (sizes[0] or height, sizes[1] or width, 1)
    elif len(sizes) == 1:
        shape = _shape_of_flat(sizes[0], image_shape)
    else:
        raise InputError(f"{where}: its input has shape {stated}, which is not a batch of images.")
    if None in shape:
        raise InputError(f"{where}: its input has shape {stated}; the images' size is needed: `image_shape`.")
    return layout or likely or "NHWC", shape  # type: ignore[return-value] # no None


def _shape_of_flat(size: int | None, image_shape: ImageShape | None) -> tuple[int | None, ...]:
    if image_shape is not None and size in (None, math.prod(image_shape)):
        return image_shape
    for channels in _CHANNELS:
        side = math.isqrt((size or 0) // channels)
        if side and size == side * side * channels:
            return side, side, channels
    return None, None, None


def _layout_of_images(
    where: str,
    sizes: tuple[int | None, ...],
    image_shape: ImageShape | None,
    layout: Layout | None,
    likely: Layout | None,
) -> tuple[Layout, ImageShape]:
    first, second, third = sizes
    orders: dict[Layout, tuple[int | None, ...]] = {"NHWC": sizes, "NCHW": (second, third, first)}
    if layout is None:
        fitting = [
            name
            for name, shape in orders.items()
            if image_shape and all(s in (None, t) for s, t in zip(shape, image_shape, strict=True))
        ]
        by_channels = [name for name, shape in orders.items() if shape[2] in _CHANNELS]
        found = fitting if len(fitting) == 1 else by_channels
        if len(found) == 1:
            layout = found[0]
        elif likely is None or (by_channels and likely not in by_channels):
            stated = " x ".join(str(size or "?") for size in ("N", *sizes))
            raise InputError(f"{where}: its input {stated} may be NHWC or NCHW: set `input_layout`.")
        else:
            layout = likely
    shape = tuple(
        size or (image_shape[axis] if image_shape else None) for axis, size in enumerate(orders[layout])
    )
    if None in shape:
        raise InputError(f"{where} takes images of any size: the images' size is needed: `image_shape`.")
    return layout, shape  # type: ignore[return-value] # no None
