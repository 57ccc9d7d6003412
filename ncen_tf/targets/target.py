"""What attacks and reports need to know of a classifier."""

import abc
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings
from ncen_tf.untrusted.memory import noise

Array = npt.NDArray[np.float32]


class RecordedAccuracy(Settings):
    """The clean accuracy that an export's manifest records of a file."""

    value: float
    examples: int
    """Number of test images it was measured on."""
    predictions_sha256: str | None = None


class Target(abc.ABC):
    """A classifier, single or ensemble, that attacks can query and differentiate. All arrays are NumPy's.

    Attributes:
        description: What it is, such as ``onnx exports/x/ensemble.onnx``; shown in reports.
        sha256: Hex digest of the file or the weights behind it.
        image_shape: (height, width, channels).
        classes: Number of classes.
        members: Number of members; 1 for a single classifier.
        gives_logits: False where only probabilities are known; logits are then their logarithms.
        has_gradient: Whether :meth:`linearize` works.
        batch_statistics: Whether an image's logits depend on its batch, as in training.
        providers: Execution providers that onnxruntime reports; empty elsewhere.
        recorded: The clean accuracy that the export recorded of this file, if any.
    """

    description: str
    sha256: str
    image_shape: tuple[int, int, int]
    classes: int
    members: int
    gives_logits: bool = True
    has_gradient: bool = True
    batch_statistics: bool = False
    providers: tuple[str, ...] = ()
    recorded: RecordedAccuracy | None = None

    @abc.abstractmethod
    def logits(self, images: Array) -> Array:
        """Compute the members' logits.

        Args:
            images: float32 [N, H, W, C] in [0, 1].

        Returns:
            float32 [N, members, classes].
        """

    @abc.abstractmethod
    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Compute the logits, and a function that differentiates them at these images.

        Args:
            images: float32 [N, H, W, C] in [0, 1].

        Returns:
            Logits as :meth:`logits` gives them, and a function: cotangent float32 [N, members, classes] ->
            its product with the Jacobian, float32 [N, H, W, C].

        Raises:
            InputError: The target has no gradient.
        """

    def gradient(self, images: Array, cotangent: Array) -> Array:
        """Multiply a cotangent [N, members, classes] with the Jacobian at images: float32 [N, H, W, C]."""
        return self.linearize(images)[1](cotangent)

    def split(self) -> Sequence["Target"]:
        """Return each member as a target of its own."""
        return [self] if self.members == 1 else [MemberTarget(self, i) for i in range(self.members)]


class MemberTarget(Target):
    """One member of a target that runs its members together.

    Args:
        target: The ensemble.
        index: Number of the member, in [0, target.members).
    """

    members = 1

    def __init__(self, target: Target, index: int) -> None:
        self._target, self._index = target, index
        self.description = f"member {index} of {target.description}"
        self.sha256, self.providers = target.sha256, target.providers
        self.image_shape, self.classes = target.image_shape, target.classes
        self.gives_logits, self.has_gradient = target.gives_logits, target.has_gradient
        self.batch_statistics = target.batch_statistics

    def logits(self, images: Array) -> Array:
        return self._target.logits(images)[:, self._index : self._index + 1]

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        logits, pull_back = self._target.linearize(images)

        def of_member(cotangent: Array) -> Array:
            of_all = np.zeros_like(logits)
            of_all[:, self._index : self._index + 1] = cotangent
            return pull_back(of_all)

        return logits[:, self._index : self._index + 1], of_member


class OnnxInterface(Settings):
    """How an ONNX classifier takes images and returns its answer. The defaults are this package's exports.

    Example:
        >>> import ncen_tf
        >>> interface = ncen_tf.OnnxInterface(input_layout="NCHW", mean=(0.485, 0.456, 0.406))
        >>> interface.mean
        (0.485, 0.456, 0.406)
    """

    input_layout: Literal["NHWC", "NCHW"] = Field(
        default="NHWC", description="Order of the axes of an ONNX input"
    )
    output: Literal["logits", "probabilities"] = Field(
        default="logits", description="What an ONNX output holds"
    )
    output_name: str | None = Field(
        default=None, description="Name of the output of an ONNX model with several (default: member_logits)"
    )
    mean: tuple[float, ...] = Field(
        default=(0.0,),
        description="Value subtracted from images in [0, 1] before an ONNX model, one or one a channel",
    )
    std: tuple[float, ...] = Field(
        default=(1.0,),
        description="Value that divides the difference before an ONNX model, one or one a channel",
    )

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if not std or min(std) <= 0:
            raise ValueError(f"`std` must be greater than 0 in every channel, got {list(std)}.")
        return std

    def describe(self) -> str:
        """Write for reports: ``, NCHW, logits, mean 0.5, std 0.25``; nothing for the defaults."""
        if self == OnnxInterface():
            return ""
        output = f"{self.output_name} ({self.output})" if self.output_name else self.output
        mean, std = (" ".join(map(str, values)) for values in (self.mean, self.std))
        return f", {self.input_layout}, {output}, mean {mean}, std {std}"


class FunctionTarget(Target):
    """An array function as a target: attacks can query it, but not differentiate it.

    Args:
        function: float32 images [N, H, W, C] in [0, 1] -> logits or probabilities, [N, classes] or
            [N, members, classes]. Probabilities are recognised: they are >= 0 and sum to 1.
        image_shape: (height, width, channels).
        description: Shown in reports.
        sha256: Identifies the function where finished attacks are resumed; empty for functions that only
            live in memory, whose attacks should not be resumed.

    Raises:
        InputError: The function fails on two images, or gives something else.
    """

    has_gradient = False

    def __init__(
        self,
        function: Callable[[Array], npt.ArrayLike],
        image_shape: tuple[int, int, int],
        description: str = "function",
        sha256: str = "",
    ) -> None:
        self._function = function
        self.image_shape, self.description, self.sha256 = image_shape, description, sha256
        try:
            output = np.asarray(function(noise((2, *image_shape))))
        except Exception as error:  # whatever a user's function raises
            raise InputError(f"{description} fails on two images of shape {image_shape}: {error}") from error
        self.members, self.classes, self.gives_logits = read_output(description, output)

    def logits(self, images: Array) -> Array:
        return as_logits(np.asarray(self._function(images)), self)

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        raise no_gradient(self.description)


def read_output(description: str, output: npt.NDArray[np.generic]) -> tuple[int, int, bool]:
    """Read members, classes, and whether there are logits off what a classifier gives for two images.

    Args:
        description: Of the classifier, for the error message.
        output: [2, classes] or [2, members, classes].

    Raises:
        InputError: Another shape or type, or fewer than two classes.
    """
    if output.dtype.kind != "f" and output.dtype.name != "bfloat16":
        raise InputError(f"{description} gives {output.dtype} values; logits and probabilities are floats.")
    if output.ndim not in (2, 3) or len(output) != 2 or output.shape[-1] < 2:
        raise InputError(
            f"{description} gives an array of shape {list(output.shape)} for 2 images, neither [2, classes] "
            "nor [2, members, classes] with at least 2 classes."
        )
    values = output.astype(np.float64)
    sums_to_one = bool((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3))
    return (1 if output.ndim == 2 else output.shape[1]), output.shape[-1], not sums_to_one


def as_logits(output: npt.NDArray[np.generic], target: Target) -> Array:
    """Reshape an output to float32 logits [N, members, classes]; of probabilities, take the logarithm."""
    logits = output.astype(np.float32).reshape(-1, target.members, target.classes)
    # The smallest normal float keeps the logarithm finite.
    return logits if target.gives_logits else np.log(np.maximum(logits, np.finfo(np.float32).tiny))


def no_gradient(description: str) -> InputError:
    """Say that a target cannot be differentiated, and what to do about it."""
    return InputError(
        f"{description} has no gradient with respect to its images: attack it without gradients, with "
        "`suite`=blackbox."
    )
