"""ONNX files as targets: onnxruntime computes the logits and, through a gradient graph, the gradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import sha256
from ncen_tf.export.manifest import MEMBER_LOGITS
from ncen_tf.onnx_grad import gradient_model, split_gradient_model
from ncen_tf.targets.target import Array, OnnxInterface, Target, as_logits, no_gradient, read_output
from ncen_tf.untrusted.memory import noise
from ncen_tf.untrusted.onnx_file import image_input, open_session, read_model

_FLOATS: dict[int, Any] = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.FLOAT16: np.float16,
    onnx.TensorProto.DOUBLE: np.float64,
}


class OnnxTarget(Target):
    """An ONNX classifier in onnxruntime, with its image gradient from :mod:`ncen_tf.onnx_grad`.

    Args:
        path: The ``.onnx`` file.
        interface: How it takes images; the default is what this package exports.
        providers: onnxruntime execution providers, all of which must start.
        differentiable: Build the gradient. Without it, a model with operations that have none can still be
            queried.

    Raises:
        InputError: The file is not an ONNX model, an operation has no gradient rule, the input or output has
            another shape than the interface says, or a provider does not start.
    """

    def __init__(
        self,
        path: Path,
        interface: OnnxInterface | None = None,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        differentiable: bool = True,
    ) -> None:
        self._interface = interface or OnnxInterface()
        self.has_gradient = differentiable
        self.description = f"onnx {path}{self._interface.describe()}"
        model = read_model(path)
        image, output = image_input(path, model), self._choose_output(path, model)
        parts = _gradient_halves(path, model, output.name, image.name) if differentiable else ()
        try:
            self._session, *self._halves = (
                open_session(part.SerializeToString(), providers, spinning=False) for part in (model, *parts)
            )
        except InputError:
            raise
        except Exception as error:  # onnxruntime's errors have no public base class
            raise InputError(f"{path} does not load: {' '.join(str(error).split())[:300]}") from error
        self._image, self._output = image.name, output.name
        self._input_type = _FLOATS.get(image.type.tensor_type.elem_type, np.float32)
        self.providers = tuple(self._session.get_providers())
        self.sha256 = sha256(path)
        self.image_shape = self._image_shape(image)
        self.members, self.classes, self.gives_logits = self._probe(path)

    def logits(self, images: Array) -> Array:
        """Compute [N, members, classes] by the file itself, which keeps nothing for a gradient."""
        return as_logits(self._run(self._as_model_input(images)), self)

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        if not self._halves:
            raise no_gradient(self.description)
        forward, backward = self._halves
        output, *kept = forward.run(None, {self._image: self._as_model_input(images)})
        names = [value.name for value in backward.get_inputs()]

        def pull_back(cotangent: Array) -> Array:
            upstream: npt.NDArray[Any] = cotangent.reshape(output.shape)
            if not self.gives_logits:  # the derivative of log(p), also where p is below the floor of the log
                upstream = upstream / np.maximum(output, np.finfo(np.float32).tiny)
            values = [*kept, upstream.astype(output.dtype)]
            (gradient,) = backward.run(None, dict(zip(names, values, strict=True)))
            return self._as_image_gradient(gradient)

        return as_logits(output, self), pull_back

    def _run(self, inputs: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        result: npt.NDArray[np.floating] = self._session.run([self._output], {self._image: inputs})[0]
        return result

    def _as_model_input(self, images: Array) -> npt.NDArray[np.floating]:
        inputs = images
        if any(self._interface.mean) or any(value != 1 for value in self._interface.std):
            mean, std = (np.array(v, np.float32) for v in (self._interface.mean, self._interface.std))
            inputs = (images - mean) / std
        if self._interface.input_layout == "NCHW":
            inputs = inputs.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(inputs, self._input_type)

    def _as_image_gradient(self, gradient: npt.NDArray[Any]) -> Array:
        if self._interface.input_layout == "NCHW":
            gradient = gradient.transpose(0, 2, 3, 1)
        if any(value != 1 for value in self._interface.std):
            gradient = gradient / np.array(self._interface.std, np.float32)
        return np.ascontiguousarray(gradient, np.float32)

    def _choose_output(self, path: Path, model: onnx.ModelProto) -> onnx.ValueInfoProto:
        outputs = {output.name: output for output in model.graph.output}
        name = self._interface.output_name or (MEMBER_LOGITS if MEMBER_LOGITS in outputs else None)
        if name is None and len(outputs) == 1:
            (name,) = outputs
        if name not in outputs:
            asked = f"no output {name!r}" if name else "several outputs"
            raise InputError(f"{path} has {asked}: set `output_name` to one of {', '.join(outputs)}.")
        return outputs[name]

    def _image_shape(self, image: onnx.ValueInfoProto) -> tuple[int, int, int]:
        sizes = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
        if self._interface.input_layout == "NCHW":
            sizes = [sizes[0], sizes[2], sizes[3], sizes[1]]
        for name in ("mean", "std"):
            values = getattr(self._interface, name)
            if len(values) not in (1, sizes[3]):
                raise InputError(f"`{name}` has {len(values)} values for {sizes[3]} channels.")
        return sizes[1], sizes[2], sizes[3]

    def _probe(self, path: Path) -> tuple[int, int, bool]:
        """Read members, classes and whether there are logits off what the model gives for noise."""
        try:
            output = self._run(self._as_model_input(noise((2, *self.image_shape))))
        except Exception as error:
            raise InputError(
                f"{path} does not run on images: {' '.join(str(error).split())[:300]}"
            ) from error
        members, classes, logits = read_output(f"{path}, output {self._output},", output)
        if not logits and self._interface.output == "logits":
            raise InputError(f"{path} gives probabilities, not logits: set `output`=probabilities.")
        if logits and self._interface.output != "logits" and np.isfinite(output).all():
            raise InputError(f"{path} does not give probabilities: set `output`=logits.")
        return members, classes, self._interface.output == "logits"


def _gradient_halves(
    path: Path, model: onnx.ModelProto, output: str, image: str
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Build the forward pass, which also returns what the second model, the backward pass, needs of it.

    Raises:
        InputError: An operation has no gradient rule, or the graph makes no sense.
    """
    try:
        return split_gradient_model(gradient_model(model, output, image), output)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # attributes of other types, sizes that do not fit: rules expect valid graphs
        raise InputError(
            f"{path}: its gradient cannot be built ({type(error).__name__}: {str(error)[:300]}); attack it "
            "without gradients, with `suite`=blackbox."
        ) from error
