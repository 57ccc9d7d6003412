"""Keras models and other functions of TensorFlow as targets; TensorFlow differentiates them."""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import sha256
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.members import keep_activation_slopes
from ncen_tf.ensembles.penalties import stack_logits
from ncen_tf.export.manifest import MEMBER_LOGITS
from ncen_tf.targets.interface import (
    ImageShape,
    ModelInterface,
    Preprocessing,
    Signature,
)
from ncen_tf.targets.scores import choose_output, is_one_score, is_softmax_of, read_output
from ncen_tf.targets.target import Array, Target, no_gradient
from ncen_tf.train import trained_run
from ncen_tf.untrusted.keras_file import load_keras_model, memory_limit
from ncen_tf.untrusted.memory import noise, try_model

logger = logging.getLogger(__name__)

BEFORE_SOFTMAX = "_keras_logits"
"""What Keras calls the input of a softmax or sigmoid on the tensor that it returns."""


class TensorFlowTarget(Target):
    """A TensorFlow function as a target.

    Args:
        function: What the model takes -> its outputs: a tensor of scores, logits or probabilities,
            [N, classes] or [N, members, classes], or several tensors by name.
        image_shape: (height, width, channels).
        description: Shown in reports.
        sha256: Hex digest of the file or the weights behind it.
        differentiable: Make sure that there is a gradient.
        preprocessing: How images [N, H, W, C] in [0, 1] become what the model takes; by default they are.
        input_type: Type that it takes.
        batch: The number of images that it takes at a time; ``None`` for any number.
        input_name: For the signature.

    Raises:
        InputError: The function fails, gives something else than scores, or has no gradient.
    """

    def __init__(
        self,
        function: Callable[[tf.Tensor], tf.Tensor | dict[str, tf.Tensor]],
        image_shape: ImageShape,
        description: str,
        sha256: str,
        differentiable: bool = True,
        *,
        preprocessing: Preprocessing | None = None,
        input_type: tf.DType = tf.float32,
        batch: int | None = None,
        input_name: str = "images",
    ) -> None:
        keep_activation_slopes()
        if preprocessing is None:
            preprocessing = Preprocessing(ModelInterface(), "NHWC", image_shape, image_shape)
        interface, self.preprocessing = preprocessing.interface, preprocessing
        self.image_shape, self.sha256 = image_shape, sha256
        self.description = f"{description}{interface.describe()}"

        def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
            found = function(tf.cast(model_input(preprocessing, images), input_type))
            return found if isinstance(found, dict) else {"scores": found}

        try:
            answers = outputs(tf.constant(noise((batch or 2, *self.image_shape))))
            first_two = {name: np.asarray(answer)[[0, -1]] for name, answer in answers.items()}
        except Exception as error:  # TensorFlow and Keras have no common class for what a model raises
            raise InputError(f"{self.description} fails on two images: {str(error)[:300]}") from error
        name = choose_output(self.description, first_two, interface.output_name, MEMBER_LOGITS)
        before, answer = getattr(answers[name], BEFORE_SOFTMAX, None), first_two[name]
        one_score = is_one_score(answer)
        said = "probabilities" if one_score and before is not None else interface.output
        self.members, self.classes, self.gives_logits = read_output(self.description, answer, said)
        cut = not self.gives_logits and before is not None
        cut = cut and (one_score or is_softmax_of(answer, np.asarray(before)[[0, -1]]))
        self.gives_logits = self.gives_logits or cut
        tiny = tf.constant(np.finfo(np.float32).tiny)

        def member_logits(images: tf.Tensor) -> tf.Tensor:
            scores = outputs(images)[name]
            scores = tf.cast(getattr(scores, BEFORE_SOFTMAX) if cut else scores, tf.float32)
            if one_score:  # of the second of two classes
                score = tf.reshape(scores, [-1, 1])
                first = tf.zeros_like(score) if self.gives_logits else 1 - score
                scores = tf.concat([first, score], axis=1)
            scores = tf.reshape(scores, [-1, self.members, self.classes])
            return scores if self.gives_logits else tf.math.log(tf.maximum(scores, tiny))

        spec = [tf.TensorSpec([None, *self.image_shape], tf.float32)]
        self._function = tf.function(
            member_logits if batch is None else _in_pieces(member_logits, batch), input_signature=spec
        )
        self.tensorflow_logits: Callable[[tf.Tensor], tf.Tensor] | None = self._function
        """The logits as a function of tensors, for attacks that are written in TensorFlow."""
        holds = "logits" if self.gives_logits else "probabilities"
        if one_score:
            holds += " before the Sigmoid" if cut else " of the second class"
        elif cut:
            holds += " before the Softmax"
        self.signature = Signature(
            input_name=input_name,
            input_type=input_type.name,
            input_shape=" x ".join(map(str, (batch or "?", *(preprocessing.sizes or self.image_shape)))),
            layout=preprocessing.layout,
            input_range=preprocessing.range,
            channel_order=interface.channel_order,
            mean=interface.mean,
            std=interface.std,
            whole_pixels=preprocessing.integers,
            batch="any number" if batch is None else f"pieces of {batch}",
            output_name=name,
            output=holds,
            classes=self.classes,
        )
        self.has_gradient = differentiable
        if differentiable:
            try:
                logits, pull_back = self.linearize(noise((2, *self.image_shape)))
                pull_back(np.ones_like(logits))
            except (LookupError, InputError) as error:  # TensorFlow knows no gradient of an operation
                raise no_gradient(self.description) from error

    def logits(self, images: Array) -> Array:
        with self._computing(images):
            return np.asarray(self._function(tf.constant(images)))

    def linearize(self, images: Array) -> tuple[Array, Callable[[Array], Array]]:
        point = tf.constant(images)

        def record() -> tuple[tf.Tensor, tf.GradientTape]:
            # A persistent tape would ask for second derivatives, which many operations lack.
            with self._computing(images), tf.GradientTape() as tape:
                tape.watch(point)
                return self._function(point), tape

        unused = [record()]
        logits = np.asarray(unused[0][0])

        def pull_back(cotangent: Array) -> Array:
            output, tape = unused.pop() if unused else record()
            with self._computing(images):
                gradient = tape.gradient(output, point, output_gradients=tf.constant(cotangent))
            if gradient is None:
                raise no_gradient(self.description)
            return np.asarray(tf.convert_to_tensor(gradient))  # perhaps from slices

        return logits, pull_back

    @contextlib.contextmanager
    def _computing(self, images: Array) -> Iterator[None]:
        """Say in one sentence that the model fails on images, such as those of another batch size."""
        try:
            yield
        except InputError:
            raise
        except (tf.errors.OpError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.description} fails on images of shape {list(images.shape)}: {reason}"
            ) from error


class KerasTarget(TensorFlowTarget):
    """A Keras model as a target: an ensemble of this package, or any classifier of images.

    Args:
        model: What is attacked: an :class:`~ncen_tf.Ensemble`, or a model with one input, the images. With
            ``batch_statistics``, its BatchNorm layers are changed.
        description: Shown in reports.
        sha256: Hex digest of its weights or file; by default of its weights.
        image_shape: (height, width, channels), where the model takes images of any size.
        interface: How it takes images and returns scores, where that is not to be found by itself.
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
        image_shape: ImageShape | None = None,
        interface: ModelInterface | None = None,
        batch_statistics: bool = False,
        differentiable: bool = True,
    ) -> None:
        self.keras_model, self.batch_statistics = model, batch_statistics
        interface = interface or ModelInterface()
        if getattr(model, "preprocessor", None) is not None and interface == ModelInterface():
            logger.warning(
                "%s has a preprocessor, which `predict` applies and an attack does not: state what it does "
                "by `input_range`, `mean` and `std`.",
                description,
            )
        members = model.members if isinstance(model, Ensemble) else [model]
        shape = getattr(members[0], "input_shape", None)  # A subclassed model has none before it is called.
        if isinstance(shape, (dict, list)):
            raise InputError(f"{description} has {len(shape)} inputs; a classifier has one, the image.")
        sizes = tuple(shape) if shape is not None else (None, *(image_shape or ()))
        inputs = getattr(members[0], "inputs", None)
        dtype = tf.as_dtype(inputs[0].dtype) if inputs else tf.float32
        preprocessing = Preprocessing.found(
            description, interface, sizes[1:], image_shape, dtype.is_integer, "NHWC"
        )
        if batch_statistics:
            for layer in model._flatten_layers():
                if isinstance(layer, BatchNorm):
                    layer.momentum = 1.0  # Moving statistics stay as they were trained.
            description = f"{description}, batch statistics"
        if dtype.is_integer:
            # Keras would cast to integers, through which there is no gradient: the same layers on floats.
            image = keras.Input(sizes[1:], dtype="float32")
            members = [
                keras.models.clone_model(each, image, clone_function=lambda layer: layer) for each in members
            ]
            dtype = tf.float32

        def function(images: tf.Tensor) -> tf.Tensor | dict[str, tf.Tensor]:
            if isinstance(model, Ensemble):
                return stack_logits(members, [images] * len(members), batch_statistics)
            outputs = members[0](images, training=batch_statistics)
            if isinstance(outputs, (list, tuple)):
                return dict(zip(members[0].output_names, outputs, strict=True))
            return outputs

        super().__init__(
            function,
            preprocessing.image_shape,
            description,
            sha256 or weights_sha256(model),
            differentiable,
            preprocessing=preprocessing,
            input_type=dtype,
            batch=sizes[0],
            input_name=getattr(members[0], "input_names", ["images"])[0],
        )

    def split(self) -> Sequence[Target]:
        if self.members == 1:
            return [self]
        if not isinstance(self.keras_model, Ensemble):
            return super().split()
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
    run = trained_run.open_run(path)
    state = "finished" if run.summary else f"after {run.epochs_trained} epochs"
    return KerasTarget(
        run.ensemble,
        f"run {path}, {state}",
        weights_sha256(run.ensemble),
        batch_statistics=batch_statistics,
        differentiable=differentiable,
    )


def open_keras_file(
    path: Path,
    batch_statistics: bool = False,
    differentiable: bool = True,
    interface: ModelInterface | None = None,
    image_shape: ImageShape | None = None,
) -> KerasTarget:
    """Open an ensemble or any classifier of images saved as ``.keras``.

    Raises:
        InputError: The file is damaged, asks for code or too much memory, or holds no such model.
    """
    model = load_keras_model(path)
    first = model.members[0] if isinstance(model, Ensemble) else model
    shape = getattr(first, "input_shape", None)
    if isinstance(shape, tuple):
        free = iter(image_shape if image_shape and len(shape) == 4 else (32,) * len(shape))
        sizes = [size or default for size, default in zip(shape[1:], free, strict=False)]
        try_model(path, sizes, lambda images: model(images, training=False), memory_limit(path))
    return KerasTarget(
        model,
        f"keras {path}",
        sha256(path),
        image_shape,
        interface,
        batch_statistics=batch_statistics,
        differentiable=differentiable,
    )


def model_input(preprocessing: Preprocessing, images: tf.Tensor) -> tf.Tensor:
    """Do on tensors what :meth:`Preprocessing.model_input` does, with its derivative."""
    inputs = images[..., ::-1] if preprocessing.interface.channel_order == "BGR" else images
    if preprocessing.integers:
        inputs = inputs * 255.0
        inputs += tf.stop_gradient(tf.round(tf.clip_by_value(inputs, 0.0, 255.0)) - inputs)
    elif (preprocessing.scale != 1).any() or preprocessing.offset.any():
        inputs = inputs * preprocessing.scale + preprocessing.offset
    if preprocessing.layout == "NCHW":
        inputs = tf.transpose(inputs, [0, 3, 1, 2])
    return tf.reshape(inputs, [-1, *preprocessing.sizes])


def _in_pieces(function: Callable[[tf.Tensor], tf.Tensor], batch: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """Give a function pieces of ``batch`` images; the last image fills the last piece."""

    def in_pieces(images: tf.Tensor) -> tf.Tensor:
        count = tf.shape(images)[0]
        index = tf.range(-(-count // batch) * batch)
        pieces = tf.reshape(tf.gather(images, tf.minimum(index, count - 1)), [-1, batch, *images.shape[1:]])
        answers = tf.map_fn(function, pieces, fn_output_signature=tf.float32)
        return tf.reshape(answers, [-1, *answers.shape[2:]])[:count]

    return in_pieces
