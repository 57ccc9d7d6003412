"""ONNX files as targets: white-box, through a gradient graph that onnxruntime runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import sha256
from ncen_tf.export.manifest import MEMBER_LOGITS
from ncen_tf.targets.onnx_reading import gradient_halves, tensor_dtype
from ncen_tf.untrusted.memory import noise
from ncen_tf.untrusted.onnx_file import image_input, open_session, read_model

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

    def describe(self) -> str:
        """For reports: ``, NCHW, logits, mean 0.5, std 0.25``; nothing for what this package exports."""
        if self == OnnxInterface():
            return ""
        output = f"{self.output_name} ({self.output})" if self.output_name else self.output
        mean, std = (" ".join(map(str, values)) for values in (self.mean, self.std))
        return f", {self.layout}, {output}, mean {mean}, std {std}"


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
        model = read_model(path)
        image, output = image_input(path, model), self._choose_output(path, model)
        parts = gradient_halves(path, model, output.name, image.name) if differentiable else ()
        try:
            self._session, *self._halves = (
                open_session(part.SerializeToString(), providers, spinning=False) for part in (model, *parts)
            )
        except InputError:
            raise
        except Exception as error:  # onnxruntime's errors have no public base class
            raise InputError(f"{path} does not load: {' '.join(str(error).split())[:300]}") from error
        self._image, self._output = image.name, output.name
        self._kept = [tensor_dtype(value) for value in parts[1].graph.input[:-1]] if parts else []
        self.providers = tuple(self._session.get_providers())
        self.description = f"onnx {path}{self._interface.describe()}"
        self.sha256 = sha256(path)
        self.image_shape = self._image_shape(image)
        self.members, self.classes = self._probe(path)

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def run(inputs: tf.Tensor) -> tuple[tf.Tensor, Any]:
            output, *kept = tf.numpy_function(self._run_forward, [inputs], [tf.float32, *self._kept])

            def backward(cotangent: tf.Tensor) -> tf.Tensor:
                if not self._halves:
                    raise InputError(f"{self.description} was opened without its gradient.")
                gradient = tf.numpy_function(self._run_backward, [*kept, cotangent], tf.float32)
                return tf.ensure_shape(gradient, inputs.shape)

            return output, backward

        return self._as_logits(run(self._as_model_input(images)))

    def answer(self, images: tf.Tensor) -> tf.Tensor:
        """The same by the file itself, which keeps nothing for a gradient."""
        inputs = self._as_model_input(images)
        return self._as_logits(tf.numpy_function(self._run_file, [inputs], tf.float32))

    def _run_file(self, inputs: Array) -> Array:
        result: Array = self._session.run([self._output], {self._image: inputs})[0]
        return result

    def _run_forward(self, inputs: Array) -> list[Array]:
        session = self._halves[0] if self._halves else self._session
        names = None if self._halves else [self._output]
        results: list[Array] = session.run(names, {self._image: inputs})
        return results

    def _run_backward(self, *kept_and_cotangent: Array) -> Array:
        names = (value.name for value in self._halves[1].get_inputs())
        result: Array = self._halves[1].run(None, dict(zip(names, kept_and_cotangent, strict=True)))[0]
        return result

    def _as_logits(self, output: tf.Tensor) -> tf.Tensor:
        output = tf.reshape(output, [-1, self.members, self.classes])
        # The least normal float keeps the logarithm finite; its derivative is still that of p > 0.
        return output if self.gives_logits else tf.math.log(tf.maximum(output, np.finfo(np.float32).tiny))

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

    def _image_shape(self, image: onnx.ValueInfoProto) -> tuple[int, int, int]:
        sizes = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
        if self._interface.layout == "NCHW":
            sizes = [sizes[0], sizes[2], sizes[3], sizes[1]]
        for flag, values in (("mean", self._interface.mean), ("std", self._interface.std)):
            if len(values) not in (1, sizes[3]):
                raise InputError(f"--{flag} has {len(values)} values for {sizes[3]} channels.")
        return sizes[1], sizes[2], sizes[3]

    def _probe(self, path: Path) -> tuple[int, int]:
        """Members and classes, read off what the model answers to noise."""
        images = noise((2, *self.image_shape))
        try:
            output = self._run_file(self._as_model_input(tf.constant(images)).numpy())
        except Exception as error:
            raise InputError(
                f"{path} does not run on images: {' '.join(str(error).split())[:300]}"
            ) from error
        if output.ndim not in (2, 3) or len(output) != 2:
            raise InputError(
                f"{path}: output {self._output} has shape {list(output.shape)}, neither [N, classes] "
                "nor [N, members, classes]."
            )
        classes = output.shape[-1]
        if output.dtype != np.float32 or classes < 2:
            raise InputError(
                f"{path}: output {self._output} is {output.dtype} {list(output.shape)}; logits or "
                "probabilities are float32, of at least 2 classes."
            )
        sums_to_one = bool((output >= 0).all() and np.allclose(output.sum(-1), 1, atol=1e-3))
        if sums_to_one and self.gives_logits:
            raise InputError(f"{path} gives probabilities, not logits: pass --output=probabilities.")
        if not sums_to_one and not self.gives_logits and np.isfinite(output).all():
            raise InputError(f"{path} does not give probabilities: pass --output=logits.")
        return (1 if output.ndim == 2 else output.shape[1]), classes
