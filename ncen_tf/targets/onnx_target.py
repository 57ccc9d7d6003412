"""ONNX files as targets: white-box, through a gradient graph that onnxruntime runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google.protobuf.message
import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf

from ncen_tf.errors import InputError
from ncen_tf.exporting.onnx_file import open_session
from ncen_tf.exporting.serving import MEMBER_LOGITS
from ncen_tf.files import sha256
from ncen_tf.onnx_grad import gradient_model

LAYOUTS = ("NHWC", "NCHW")
OUTPUTS = ("logits", "probabilities")
Array = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class OnnxInterface:
    """How a classifier of another origin takes images and gives its answer.

    Args:
        layout: of its input.
        output: what its output holds.
        output_name: which output; ``None`` takes ``member_logits``, or the only one there is.
        mean: subtracted from images in [0, 1], a value a channel.
        std: what the difference is divided by, a value a channel, > 0.

    Raises:
        InputError: an unknown layout or output, or a deviation that is not positive.
    """

    layout: str = "NHWC"
    output: str = "logits"
    output_name: str | None = None
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise InputError(f"--input_layout is NHWC or NCHW; got {self.layout!r}.")
        if self.output not in OUTPUTS:
            raise InputError(f"--output is logits or probabilities; got {self.output!r}.")
        if not self.std or min(self.std) <= 0:
            raise InputError(f"--std is above 0 in every channel; got {list(self.std)}.")


class OnnxTarget:
    """An ONNX classifier in onnxruntime, with its image gradient from :mod:`ncen_tf.onnx_grad`.

    Args:
        path: the ``.onnx`` file.
        interface: how it takes images; the default is what this package exports.
        providers: onnxruntime execution providers, all of which must start.
        differentiable: build the gradient; without it, a model with operations that have none can still be
            queried.

    Raises:
        InputError: a file that is no ONNX model, an operation without a gradient rule, an input or output
            of another shape than the interface says, or a provider that does not start.
    """

    def __init__(
        self,
        path: Path,
        interface: OnnxInterface | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        differentiable: bool = True,
    ) -> None:
        self._interface = interface or OnnxInterface()
        self.gives_logits = self._interface.output == "logits"
        model = _read_model(path)
        image, output = _image_input(path, model), self._choose_output(path, model)
        gradient = _gradient_model(path, model, output.name, image.name) if differentiable else None
        try:
            self._forward = open_session(path, providers)
            self._backward = open_session(gradient.SerializeToString(), providers) if gradient else None
        except InputError:
            raise
        except Exception as error:  # onnxruntime's errors have no public base class
            raise InputError(f"{path} does not load: {' '.join(str(error).split())[:300]}") from error
        self._names = (image.name, output.name, gradient.graph.input[-1].name if gradient else "")
        self.providers = tuple(self._forward.get_providers())
        self.description = f"onnx {path}"
        self.sha256 = sha256(path)
        self.image_shape = self._image_shape(path, image)
        self.members, self.classes = self._probe(path)

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def run(inputs: tf.Tensor) -> tuple[tf.Tensor, Any]:
            def backward(cotangent: tf.Tensor) -> tf.Tensor:
                if self._backward is None:
                    raise InputError(f"{self.description} was opened without its gradient.")
                gradient = tf.numpy_function(self._run_backward, [inputs, cotangent], tf.float32)
                return tf.ensure_shape(gradient, inputs.shape)

            return tf.numpy_function(self._run_forward, [inputs], tf.float32), backward

        output = run(self._as_model_input(images))
        output = tf.reshape(output, [-1, self.members, self.classes])
        # The least normal float keeps the logarithm finite; its derivative is still that of p > 0.
        return output if self.gives_logits else tf.math.log(tf.maximum(output, np.finfo(np.float32).tiny))

    def _run_forward(self, inputs: Array) -> Array:
        image, output, _ = self._names
        result: Array = self._forward.run([output], {image: inputs})[0]
        return result

    def _run_backward(self, inputs: Array, cotangent: Array) -> Array:
        image, _, cotangent_name = self._names
        assert self._backward is not None  # noqa: S101 -- checked where the gradient is asked for
        result: Array = self._backward.run(None, {image: inputs, cotangent_name: cotangent})[0]
        return result

    def _as_model_input(self, images: tf.Tensor) -> tf.Tensor:
        normalized = images
        if any(self._interface.mean) or any(value != 1 for value in self._interface.std):
            normalized = (images - tf.constant(self._interface.mean)) / tf.constant(self._interface.std)
        return tf.transpose(normalized, [0, 3, 1, 2]) if self._interface.layout == "NCHW" else normalized

    def _choose_output(self, path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
        outputs = {output.name: output for output in model.graph.output}
        name = self._interface.output_name or (MEMBER_LOGITS if MEMBER_LOGITS in outputs else None)
        if name is None and len(outputs) == 1:
            (name,) = outputs
        if name not in outputs:
            asked = f"no output {name!r}" if name else "several outputs"
            raise InputError(f"{path} has {asked}: choose one with --output_name={'|'.join(outputs)}.")
        return outputs[name]

    def _image_shape(self, path: Path, image: onnx.ValueInfoProto) -> tuple[int, int, int]:
        sizes = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
        if len(sizes) != 4 or min(sizes[1:]) < 1:
            raise InputError(f"{path}: its input has shape {sizes}, not [N, H, W, C] with only N free.")
        if self._interface.layout == "NCHW":
            sizes = [sizes[0], sizes[2], sizes[3], sizes[1]]
        for flag, values in (("mean", self._interface.mean), ("std", self._interface.std)):
            if len(values) not in (1, sizes[3]):
                raise InputError(f"--{flag} has {len(values)} values for {sizes[3]} channels.")
        return sizes[1], sizes[2], sizes[3]

    def _probe(self, path: Path) -> tuple[int, int]:
        """Members and classes, read off what the model answers to noise."""
        images = np.random.default_rng(0).uniform(size=(2, *self.image_shape)).astype(np.float32)
        try:
            output = self._run_forward(self._as_model_input(tf.constant(images)).numpy())
        except Exception as error:
            raise InputError(
                f"{path} does not run on images: {' '.join(str(error).split())[:300]}"
            ) from error
        if output.ndim not in (2, 3) or len(output) != 2:
            raise InputError(
                f"{path}: output {self._names[1]} has shape {list(output.shape)}, neither [N, classes] "
                "nor [N, members, classes]."
            )
        sums_to_one = bool((output >= 0).all() and np.allclose(output.sum(-1), 1, atol=1e-3))
        if sums_to_one and self.gives_logits:
            raise InputError(f"{path} gives probabilities, not logits: pass --output=probabilities.")
        if not sums_to_one and not self.gives_logits and np.isfinite(output).all():
            raise InputError(f"{path} does not give probabilities: pass --output=logits.")
        return (1 if output.ndim == 2 else output.shape[1]), output.shape[-1]


def _read_model(path: Path) -> onnx.ModelProto:
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except (google.protobuf.message.DecodeError, onnx.checker.ValidationError, ValueError) as error:
        raise InputError(f"{path} is not an ONNX model, or is damaged.") from error
    return model


def _gradient_model(path: Path, model: onnx.ModelProto, output: str, image: str) -> onnx.ModelProto:
    try:
        with_gradient = gradient_model(model, output, image)
    except (ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from error
    del with_gradient.graph.output[:-1]  # of the outputs, the backward pass needs the gradient alone
    return with_gradient


def _image_input(path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise InputError(f"{path} has {len(inputs)} inputs; a classifier has one, the image.")
    first = inputs[0].type.tensor_type.shape.dim[:1]
    if first and first[0].dim_value:
        raise InputError(
            f"{path} takes exactly {first[0].dim_value} images at a time: export it with a dynamic batch."
        )
    return inputs[0]
