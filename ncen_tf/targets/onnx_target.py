"""ONNX files as targets: onnxruntime computes the logits and, through a gradient graph, the gradient."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import sha256
from ncen_tf.onnx_grad import UnsupportedOpError, gradient_model, split_gradient_model
from ncen_tf.targets.interface import ImageShape, ModelInterface, Quantization
from ncen_tf.targets.onnx_graph import free_batch
from ncen_tf.targets.onnx_reading import ClassifierGraph, model_inputs, read_classifier
from ncen_tf.targets.scores import as_logits
from ncen_tf.targets.target import Array, Target, no_gradient
from ncen_tf.untrusted.memory import noise
from ncen_tf.untrusted.onnx_file import open_session, weight_files

Values = npt.NDArray[Any]


class OnnxTarget(Target):
    """An ONNX classifier in onnxruntime, with its image gradient from :mod:`ncen_tf.onnx_grad`.

    What the interface leaves open is read off the file and its answers to noise; ``signature`` tells. A
    Softmax at the end is left out: attacks work on the logits before it. A file for a fixed number of images
    is given any number if its graph allows that, which is tried, and else pieces of that number.

    Args:
        path: The ``.onnx`` file; weights may be in other files of its folder.
        interface: How it takes images and returns scores, where that is not to be found by itself.
        providers: onnxruntime execution providers, all of which must start.
        differentiable: Build the gradient. Without it, a model with operations that have none can still be
            queried.
        image_shape: (height, width, channels) of the images, for models of images of any size.
        quantization: ``straight_through`` takes the gradient of a model that quantises its activations as if
            it did not round. A model whose gradient is exact keeps that.

    Raises:
        InputError: The file is not an ONNX model, an operation has no gradient rule, the input or output is
            not what the interface says or cannot be told, or a provider does not start.
    """

    def __init__(
        self,
        path: Path,
        interface: ModelInterface | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        differentiable: bool = True,
        image_shape: ImageShape | None = None,
        quantization: Quantization | None = None,
    ) -> None:
        interface = interface or ModelInterface()
        self._quantization, self._gradient = quantization, "exact"
        graph = read_classifier(path, interface, image_shape)
        self.description = f"onnx {path}{interface.describe()}"
        self.sha256 = _hash(path)
        self.has_gradient = differentiable
        self.preprocessing = self._preprocessing = graph.preprocessing
        self.image_shape = graph.preprocessing.image_shape
        self.members, self.classes, self.gives_logits = graph.members, graph.classes, graph.gives_logits
        self._image, self._output, self._batch = graph.image, graph.output, graph.batch
        self._type = graph.model.graph.input[0].type.tensor_type.elem_type
        stated = "any number"
        if graph.batch is not None and self._opens_freed(path, graph, differentiable, providers):
            stated = f"any number (the file says {graph.batch}; its graph takes more)"
        else:
            self._open(path, graph.model, differentiable, providers)
            if graph.batch is not None:
                stated = f"pieces of {graph.batch}"
        self.signature = graph.signature.model_copy(update={"batch": stated, "gradient": self._gradient})
        self.providers = tuple(self._session.get_providers())

    def logits(self, images: Array) -> Array:
        """Compute [N, members, classes] by the file itself, which keeps nothing for a gradient."""
        outputs = [self._run(self._session, [self._output], [piece])[0] for piece in self._inputs(images)]
        return self._as_logits(outputs, len(images))

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        if not self._halves:
            raise no_gradient(self.description)
        forward, backward = self._halves
        pieces = [self._run(forward, None, [piece]) for piece in self._inputs(images)]

        def pull_back(cotangent: Array) -> Array:
            missing = sum(len(output) for output, *_ in pieces) - len(cotangent)
            upstream = np.concatenate(
                [cotangent, np.zeros_like(cotangent, shape=(missing, *cotangent.shape[1:]))]
            )
            gradients, start = [], 0
            for output, *kept in pieces:
                part = upstream[start : start + len(output)].reshape(output.shape)
                if (
                    not self.gives_logits
                ):  # the derivative of log(p), also where p is below the floor of the log
                    part = part / np.maximum(output, np.finfo(np.float32).tiny)
                gradients += self._run(backward, None, [*kept, part.astype(np.float32)])
                start += len(output)
            return self._preprocessing.image_gradient(np.concatenate(gradients)[: len(cotangent)])

        return self._as_logits([output for output, *_ in pieces], len(images)), pull_back

    def _inputs(self, images: Array) -> list[Values]:
        return model_inputs(self._preprocessing, images, self._type, self._batch)

    def _as_logits(self, outputs: list[Values], count: int) -> Array:
        return as_logits(np.concatenate(outputs)[:count], self.members, self.classes, self.gives_logits)

    def _run(
        self, session: onnxruntime.InferenceSession, outputs: list[str] | None, inputs: list[Values]
    ) -> list[Values]:
        names = [value.name for value in session.get_inputs()]
        try:
            results: list[Values] = session.run(outputs, dict(zip(names, inputs, strict=True)))
        except Exception as error:  # onnxruntime's errors have no public base class
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{self.description} fails on a batch of {len(inputs[0])}: {reason}") from error
        return results

    def _opens_freed(
        self, path: Path, graph: ClassifierGraph, differentiable: bool, providers: tuple[str, ...]
    ) -> bool:
        """Open the graph for any number of images; return whether it answers three as it did one by one."""
        self._batch = None
        try:
            self._open(path, free_batch(graph.model), differentiable, providers)
            first, second = noise((2, *self.image_shape))
            images = np.stack([first, second, first])
            found = [self.logits(images)]
            if differentiable:
                found.append(self.linearize(images)[0])
        except InputError:
            found = []
        expected = self._as_logits([graph.answers[[0, 1, 0]]], 3)
        close = 1e-3 * max(1e-3, float(np.abs(expected).max()))
        same = [np.allclose(answer, expected, rtol=0, atol=close, equal_nan=True) for answer in found]
        if not same or not all(same):
            self._batch = graph.batch
            return False
        return True

    def _open(
        self, path: Path, model: onnx.ModelProto, differentiable: bool, providers: tuple[str, ...]
    ) -> None:
        """Open the sessions: of the model, and of the two halves of its gradient."""
        parts = self._gradient_halves(path, model) if differentiable else ()
        try:
            self._session, *self._halves = (
                open_session(part.SerializeToString(), providers, spinning=False) for part in (model, *parts)
            )
        except InputError:
            raise
        except Exception as error:  # onnxruntime's errors have no public base class
            raise InputError(f"{path} does not load: {' '.join(str(error).split())[:300]}") from error

    def _gradient_halves(self, path: Path, model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
        """Build the forward pass, which also returns what the second model, the backward pass, needs of it.

        Raises:
            InputError: An operation has no gradient rule, or the graph makes no sense.
        """
        arguments = (model, self._output, self._image, self._preprocessing.sizes)
        try:
            try:
                built, self._gradient = gradient_model(*arguments), "exact"
            except UnsupportedOpError:
                if self._quantization is None:
                    raise
                built = gradient_model(*arguments, quantization=self._quantization)
                self._gradient = "straight through its quantization"
            return split_gradient_model(built, self._output)
        except ValueError as error:
            raise InputError(
                f"{path}: {error}. Attacks without gradients need none: `suite`=blackbox."
            ) from error
        except Exception as error:  # attributes of other types, sizes that do not fit the rules
            raise InputError(
                f"{path}: its gradient cannot be built ({type(error).__name__}: {str(error)[:300]}); "
                "attack it without gradients, with `suite`=blackbox."
            ) from error


def _hash(path: Path) -> str:
    """Hash a file, with the files of its weights if there are any."""
    others = weight_files(path)
    if not others:
        return sha256(path)
    return hashlib.sha256("".join(sha256(file) for file in (path, *others)).encode()).hexdigest()
