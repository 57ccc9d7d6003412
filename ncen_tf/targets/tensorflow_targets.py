"""Keras models and SavedModels as targets; TensorFlow differentiates them."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import sha256
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.penalties import stack_logits
from ncen_tf.export.manifest import IMAGE, MEMBER_LOGITS, describe_files
from ncen_tf.targets.target import Array, Target, no_gradient, read_output
from ncen_tf.train import training
from ncen_tf.untrusted.keras_file import load_keras_model, memory_limit
from ncen_tf.untrusted.memory import noise, try_model
from ncen_tf.untrusted.saved_model import load_saved_model


class TensorFlowTarget(Target):
    """A TensorFlow function as a target.

    Args:
        function: float32 images [N, H, W, C] in [0, 1] -> logits or probabilities, [N, classes] or
            [N, members, classes]. Probabilities are recognised: they are >= 0 and sum to 1.
        image_shape: (height, width, channels).
        description: Shown in reports.
        sha256: Hex digest of the file or the weights behind it.
        differentiable: Make sure that there is a gradient.

    Raises:
        InputError: The function fails, gives something else, or has no gradient.
    """

    def __init__(
        self,
        function: Callable[[tf.Tensor], tf.Tensor],
        image_shape: tuple[int, int, int],
        description: str,
        sha256: str,
        differentiable: bool = True,
    ) -> None:
        self.image_shape, self.description, self.sha256 = image_shape, description, sha256
        try:
            output = np.asarray(function(tf.constant(noise((2, *image_shape)))))
        except Exception as error:  # TensorFlow and Keras have no common class for what a model raises
            raise InputError(f"{description} fails on two images: {str(error)[:300]}") from error
        self.members, self.classes, self.gives_logits = read_output(description, output)
        tiny = tf.constant(np.finfo(np.float32).tiny)

        def member_logits(images: tf.Tensor) -> tf.Tensor:
            scores = tf.cast(function(images), tf.float32)
            scores = tf.reshape(scores, [-1, self.members, self.classes])
            return scores if self.gives_logits else tf.math.log(tf.maximum(scores, tiny))

        signature = [tf.TensorSpec([None, *image_shape], tf.float32)]
        self.tensorflow_logits = tf.function(member_logits, input_signature=signature)
        """The same function on tensors, for attacks that are written in TensorFlow."""
        self.has_gradient = differentiable
        if differentiable:
            try:
                logits, pull_back = self.linearize(noise((2, *image_shape)))
                pull_back(np.ones_like(logits))
            except LookupError as error:  # TensorFlow knows no gradient of an operation
                raise no_gradient(description) from error

    def logits(self, images: Array) -> Array:
        with self._computing(images):
            return np.asarray(self.tensorflow_logits(tf.constant(images)))

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        point = tf.constant(images)
        with self._computing(images), tf.GradientTape(persistent=True) as tape:
            tape.watch(point)
            logits = self.tensorflow_logits(point)

        def pull_back(cotangent: Array) -> Array:
            with self._computing(images):
                gradient = tape.gradient(logits, point, output_gradients=tf.constant(cotangent))
            if gradient is None:
                raise no_gradient(self.description)
            return np.asarray(gradient)

        return np.asarray(logits), pull_back

    @contextlib.contextmanager
    def _computing(self, images: Array) -> Iterator[None]:
        """Say in one sentence that the model fails on images, such as those of another batch size."""
        try:
            yield
        except tf.errors.OpError as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.description} fails on images of shape {list(images.shape)}: {reason}"
            ) from error


class KerasTarget(TensorFlowTarget):
    """A Keras model as a target: an ensemble of this package, or any classifier of images.

    Args:
        model: What is attacked: an :class:`~ncen_tf.Ensemble`, or a model images -> logits or probabilities.
            With ``batch_statistics``, its BatchNorm layers are changed.
        description: Shown in reports.
        sha256: Hex digest of its weights or file; by default of its weights.
        image_shape: (height, width, channels), where the model takes images of any size.
        batch_statistics: Normalise with the statistics of each batch, as in training, instead of the
            moving ones: an image's logits then depend on its batch.
        differentiable: Make sure that there is a gradient.

    Raises:
        InputError: The model does not take images, or does not give logits or probabilities.
    """

    def __init__(
        self,
        model: keras.Model,
        description: str = "Keras model",
        sha256: str = "",
        image_shape: tuple[int, int, int] | None = None,
        batch_statistics: bool = False,
        differentiable: bool = True,
    ) -> None:
        self.keras_model, self.batch_statistics = model, batch_statistics
        members = model.members if isinstance(model, Ensemble) else [model]
        shape = getattr(members[0], "input_shape", None)  # A subclassed model has none before it is called.
        if isinstance(shape, tuple) and len(shape) == 4 and None not in shape[1:]:
            image_shape = shape[1:]
        if image_shape is None:
            raise InputError(f"{description} takes an input of shape {shape}, not images [N, H, W, C].")
        if batch_statistics:
            for layer in model._flatten_layers():
                if isinstance(layer, BatchNorm):
                    layer.momentum = 1.0  # Moving statistics stay as they were trained.
            description = f"{description}, batch statistics"

        def function(images: tf.Tensor) -> tf.Tensor:
            return stack_logits(members, [images] * len(members), batch_statistics)

        digest = sha256 or weights_sha256(model)
        super().__init__(function, image_shape, description, digest, differentiable)

    def split(self) -> Sequence[Target]:
        if self.members == 1:
            return [self]
        return [
            KerasTarget(member, f"member {i} of {self.description}", self.sha256, self.image_shape)
            for i, member in enumerate(self.keras_model.members)
        ]


def weights_sha256(model: keras.Model) -> str:
    """Hash all weights, in the model's order."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.astype("<f4").tobytes())
    return digest.hexdigest()


def open_run(path: Path, batch_statistics: bool = False, differentiable: bool = True) -> KerasTarget:
    """Open the ensemble of a run directory, finished or at its newest checkpoint.

    Raises:
        InputError: There is no run, nothing is saved yet, or a file is damaged.
    """
    run = training.open_run(path)
    state = "finished" if run.summary else f"after {run.epochs_trained} epochs"
    return KerasTarget(
        run.ensemble,
        f"run {path}, {state}",
        weights_sha256(run.ensemble),
        batch_statistics=batch_statistics,
        differentiable=differentiable,
    )


def open_keras_file(path: Path, batch_statistics: bool = False, differentiable: bool = True) -> KerasTarget:
    """Open an ensemble or any classifier of images saved as ``.keras``.

    Raises:
        InputError: The file is damaged, asks for code or too much memory, or holds no such model.
    """
    model = load_keras_model(path)
    first = model.members[0] if isinstance(model, Ensemble) else model
    shape = [size or 32 for size in first.input_shape[1:]]
    try_model(path, shape, lambda images: model(images, training=False), memory_limit(path))
    return KerasTarget(
        model,
        f"keras {path}",
        sha256(path),
        batch_statistics=batch_statistics,
        differentiable=differentiable,
    )


def open_saved_model(path: Path, differentiable: bool = True) -> TensorFlowTarget:
    """Open a SavedModel that :mod:`ncen_tf.export` wrote, through its ``serving_default`` signature.

    Raises:
        InputError: TensorFlow cannot load it, it has another signature, or it does not run.
    """
    loaded = load_saved_model(path)
    files = {name: entry.model_dump() for name, entry in describe_files(path).items()}
    try:
        serve: Any = loaded.signatures["serving_default"]
        (image,) = serve.structured_input_signature[1].values()
        height, width, channels = map(int, image.shape[1:])
        serve.structured_outputs[MEMBER_LOGITS]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{path} cannot be used: it has no signature {IMAGE} [N, H, W, C] -> "
            f"{MEMBER_LOGITS} [N, members, classes]."
        ) from error
    target = TensorFlowTarget(
        lambda images: serve(**{IMAGE: images})[MEMBER_LOGITS],
        (height, width, channels),
        f"SavedModel {path}",
        hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        differentiable,
    )
    target.loaded = loaded  # type: ignore[attr-defined] # the signature holds its variables only weakly
    return target
