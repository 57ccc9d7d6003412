"""SavedModels as targets: their serving signature, differentiated by TensorFlow."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from ncen_tf.base.errors import InputError
from ncen_tf.export.manifest import describe_files
from ncen_tf.targets.interface import ImageShape, ModelInterface, Preprocessing
from ncen_tf.targets.tensorflow_targets import BEFORE_SOFTMAX, TensorFlowTarget, model_input
from ncen_tf.untrusted.memory import noise
from ncen_tf.untrusted.saved_model import load_saved_model

Outputs = dict[str, tf.Tensor]
_ONLY_SHAPES = ("Identity", "Reshape", "Squeeze", "ExpandDims")


def open_saved_model(
    path: Path,
    interface: ModelInterface | None = None,
    image_shape: ImageShape | None = None,
    differentiable: bool = True,
) -> TensorFlowTarget:
    """Open a SavedModel through its serving signature: ``serving_default``, ``serve`` or the only one.

    A softmax or sigmoid at the end is left out, and an input of integers is differentiated through the cast
    to floats that reads it, if the signature's graph shows them.

    Raises:
        InputError: TensorFlow cannot load it, it has no signature of one image, or it does not run.
    """
    loaded = load_saved_model(path)
    files = {name: entry.model_dump() for name, entry in describe_files(path).items()}
    signatures: Any = dict(getattr(loaded, "signatures", {}))
    names = [name for name in ("serving_default", "serve", *signatures) if name in signatures]
    if not names:
        raise InputError(f"{path} has no serving signature: save it by model.export(...) of Keras.")
    serve = signatures[names[0]]
    specs = serve.structured_input_signature[1]
    if len(specs) != 1:
        raise InputError(
            f"{path}: its signature {names[0]} has {len(specs)} inputs ({', '.join(specs)}); a classifier "
            "has one, the image."
        )
    ((name, spec),) = specs.items()
    if spec.shape.rank is None or not (spec.dtype.is_floating or spec.dtype.is_integer):
        raise InputError(
            f"{path}: its input {name} is no batch of images, but {spec.dtype.name} {spec.shape}."
        )
    batch, *sizes = spec.shape
    preprocessing = Preprocessing.found(
        str(path), interface or ModelInterface(), sizes, image_shape, spec.dtype.is_integer, "NHWC"
    )

    def served(inputs: tf.Tensor) -> Outputs:
        outputs: Outputs = serve(**{name: inputs})
        return outputs

    two = tf.cast(model_input(preprocessing, noise((batch or 2, *preprocessing.image_shape))), spec.dtype)
    function, dtype = _opened(serve, served, two)
    target = TensorFlowTarget(
        function,
        preprocessing.image_shape,
        f"SavedModel {path}",
        hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        differentiable,
        preprocessing=preprocessing,
        input_type=dtype,
        batch=batch,
        input_name=name,
    )
    # TensorFlow does not differentiate loaded loops while it traces an attack.
    target.tensorflow_logits = None
    target.loaded = loaded  # type: ignore[attr-defined] # the signature holds its variables only weakly
    return target


def _opened(
    serve: Any, served: Callable[[tf.Tensor], Outputs], inputs: tf.Tensor
) -> tuple[Callable[[tf.Tensor], Outputs], tf.DType]:
    """Return a signature's function with what enters its softmaxes, and the type that it takes.

    Args:
        serve: The signature.
        served: The same as a function of one tensor, which is returned where the graph allows no more.
        inputs: Images as the signature takes them, on which both must agree.
    """
    try:
        graph = convert_variables_to_constants_v2(serve, lower_control_flow=False)
        (image,) = graph.inputs
        fed = _floats_of(image)
        outputs = dict(zip(sorted(serve.structured_outputs), graph.outputs, strict=True))
        before = {name: found for name, tensor in outputs.items() if (found := _before(tensor)) is not None}
        if fed is image and not before:
            return served, image.dtype
        function = graph.prune(fed, (outputs, before))

        def opened(images: tf.Tensor) -> Outputs:
            scores, logits = function(images)
            for name, tensor in logits.items():
                setattr(scores[name], BEFORE_SOFTMAX, tensor)
            return scores

        expected, images = served(inputs), tf.cast(inputs, fed.dtype)
        with tf.GradientTape() as tape:
            tape.watch(images)
            found = opened(images)
        tape.gradient(found, images)  # fails where an activation's own gradient is outside the graph
        same = [np.allclose(found[name], expected[name], rtol=1e-3, atol=1e-6) for name in expected]
    except Exception:  # TensorFlow has no common base class of errors; the signature itself may still run
        same = [False]
    return (opened, fed.dtype) if all(same) else (served, inputs.dtype)


def _before(output: tf.Tensor) -> tf.Tensor | None:
    """Return the input of the softmax or sigmoid that an output comes from, ``None`` if there is none."""
    while output.op.type in _ONLY_SHAPES:
        output = output.op.inputs[0]
    return output.op.inputs[0] if output.op.type in ("Softmax", "Sigmoid") else None


def _floats_of(image: tf.Tensor) -> tf.Tensor:
    """Return the floats that an input of integers is cast to before anything else, or the input."""
    tensor = image
    while not tensor.dtype.is_floating:
        readers = tensor.consumers()
        if len(readers) != 1 or readers[0].type not in ("Identity", "Cast"):
            return image
        tensor = readers[0].outputs[0]
    return tensor
