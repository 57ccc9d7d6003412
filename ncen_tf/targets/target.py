"""What attacks and reports need to know of a classifier."""

import abc
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings
from ncen_tf.targets.interface import Preprocessing, Signature
from ncen_tf.targets.scores import as_logits, read_output
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
        calls: Passes of the model for an answer.
        providers: Execution providers that onnxruntime reports; empty elsewhere.
        recorded: The clean accuracy that the export recorded of this file, if any.
        class_names: Name of each class in the order of the outputs, where an export recorded them.
        preprocessing: How images enter the model; ``None`` where they enter as they are.
        signature: What was found out about input and output of the model, if it was read from a file.
    """

    description: str
    sha256: str
    image_shape: tuple[int, int, int]
    classes: int
    members: int
    gives_logits: bool = True
    has_gradient: bool = True
    batch_statistics: bool = False
    calls: int = 1
    providers: tuple[str, ...] = ()
    recorded: RecordedAccuracy | None = None
    class_names: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    signature: Signature | None = None

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """What was found out about each model of the target."""
        return () if self.signature is None else (self.signature,)

    @property
    def whole_pixels(self) -> bool:
        """Whether the model is shown images rounded to whole pixel values, multiples of 1/255."""
        return self.preprocessing is not None and self.preprocessing.integers

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
        self.preprocessing, self.signature = target.preprocessing, target.signature

    def logits(self, images: Array) -> Array:
        return self._target.logits(images)[:, self._index : self._index + 1]

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        logits, pull_back = self._target.linearize(images)

        def of_member(cotangent: Array) -> Array:
            of_all = np.zeros_like(logits)
            of_all[:, self._index : self._index + 1] = cotangent
            return pull_back(of_all)

        return logits[:, self._index : self._index + 1], of_member


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
        output = np.asarray(self._function(images))
        return as_logits(output, self.members, self.classes, self.gives_logits)

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        raise no_gradient(self.description)


def no_gradient(description: str) -> InputError:
    """Say that a target cannot be differentiated, and what to do about it."""
    return InputError(
        f"{description} has no gradient with respect to its images: attack it without gradients, with "
        "`suite`=blackbox."
    )
