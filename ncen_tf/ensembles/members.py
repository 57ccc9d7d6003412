"""The models that an ensemble is made of: built by name, and checked."""

import re
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncen_tf.base.errors import InputError, one_line
from ncen_tf.base.flags import import_function, is_function_name
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.resnet import build_resnet
from ncen_tf.ensembles.structures import member_depth

_PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)


def keep_activation_slopes() -> None:
    """Turn off the optimization of TensorFlow graphs that gives LeakyReLU another slope.

    With oneDNN, it fuses a biased convolution, an addition and LeakyReLU into a kernel with slope 0.2,
    whatever the layer's slope is (TensorFlow 2.21).
    """
    tf.config.optimizer.set_experimental_options({"remapping": False})


def build_member(
    architecture: str,
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    sync_batch_norm: bool = False,
    seed: int | None = None,
    name: str,
) -> keras.Model:
    """Build an untrained model images in [0, 1] [N, H, W, C] -> logits [N, classes].

    A Keras application is built without preprocessing, and with :class:`BatchNorm` (which has a trained
    ``gamma``) for each BatchNormalization. The model of a user's function stays as it is.

    Args:
        architecture: A name that ``parse_architecture`` returned.
        image_shape: (height, width, channels).
        classes: Number of logits.
        sync_batch_norm: As of :func:`~ncen_tf.ensembles.resnet.build_resnet`.
        seed: Seed of the initial weights; ``None`` draws other weights each time. Other models than our
            ResNets draw from the generators of Python, NumPy and TensorFlow, which are seeded with it.
        name: Name of the model; characters that TensorFlow does not allow become ``_``.

    Raises:
        InputError: The application refuses the images; a function cannot be imported, fails, or returns
            another kind of model.
    """
    name = re.sub(r"\W", "_", name)
    if depth := member_depth(architecture):
        return build_resnet(
            depth, image_shape, classes, sync_batch_norm=sync_batch_norm, seed=seed, name=name
        )
    if seed is not None:
        keras.utils.set_random_seed(seed)
    if is_function_name(architecture):
        model = _call_function(architecture, image_shape, classes)
    else:
        model = _build_application(architecture, image_shape, classes, sync_batch_norm)
    model.name = name
    return model


def _build_application(
    application: str, image_shape: tuple[int, int, int], classes: int, sync_batch_norm: bool
) -> keras.Model:
    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, _PREPROCESSING):
            return keras.layers.Identity(name=layer.name)
        if isinstance(layer, keras.layers.BatchNormalization):
            return BatchNorm(layer.momentum, layer.epsilon, sync_batch_norm, name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    def call(layer: keras.layers.Layer, *inputs: Any, mask: Any = None, **arguments: Any) -> Any:
        return layer(*inputs, **arguments)  # BatchNorm takes no mask, and images have none.

    if image_shape[2] not in (1, 3):
        raise InputError(f"`members`: {application} takes images of 1 or 3 channels, got {image_shape[2]}.")
    build = getattr(keras.applications, application)
    try:
        model = build(weights=None, input_shape=image_shape, classes=classes, classifier_activation=None)
        return keras.models.clone_model(model, clone_function=replace, call_function=call)
    except ValueError as error:
        raise InputError(
            f"`members`: {application} cannot take images {image_shape}: {one_line(str(error))}"
        ) from error


def _call_function(name: str, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    function = import_function(name)
    try:
        model = function(image_shape, classes)
    except Exception as error:  # whatever a user's function raises
        raise InputError(
            f"`members`: {name}({image_shape}, {classes}) fails: {type(error).__name__}: "
            f"{one_line(str(error))}"
        ) from error
    if not isinstance(model, keras.Model):
        raise InputError(
            f"`members`: {name} must return a Keras model, but returned a {type(model).__name__}."
        )
    found = tuple(getattr(model, shape, None) for shape in ("input_shape", "output_shape"))
    if found != ((None, *image_shape), (None, classes)):
        raise InputError(
            f"`members`: {name} must return a model of images {(None, *image_shape)} and logits "
            f"{(None, classes)}, but its model maps {found[0]} to {found[1]}."
        )
    return model


def check_members(members: Sequence[keras.Model]) -> None:
    """Check that models can be the members of an ensemble.

    Raises:
        InputError: There are fewer than two, two of them share weights, one of them is not a model of
            [N, H, W, C] -> [N, classes], ends in softmax, or differs from the others in these shapes.
    """
    if len(members) < 2:
        raise InputError(f"`members` must be at least two models, got {len(members)}.")
    shapes = [_interface(index, member) for index, member in enumerate(members)]
    for index, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise InputError(
                f"`members` must take the same images and know the same classes: member 0 maps "
                f"{shapes[0][0]} to {shapes[0][1]}, member {index} {shape[0]} to {shape[1]}."
            )
    owners: dict[int, int] = {}
    for index, member in enumerate(members):
        for part in (member, *member.variables):
            if owners.setdefault(id(part), index) != index:
                raise InputError(
                    f"`members` must be distinct models, but members {owners[id(part)]} and {index} share "
                    "weights: build each member anew."
                )
    for index, member in enumerate(members):
        if ends_in_softmax(member):
            raise InputError(
                f"`members` must return logits, but member {index} ({member.name}) ends in softmax: leave "
                "the softmax out."
            )


def _interface(index: int, member: keras.Model) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
    if not isinstance(member, keras.Model):
        raise InputError(f"`members` must be Keras models, but member {index} is a {type(member).__name__}.")
    images, logits = (getattr(member, name, None) for name in ("input_shape", "output_shape"))
    if images is None or logits is None:
        raise InputError(
            f"The input shape of member {index} ({member.name}) is not known: wrap the model, as in "
            "`keras.Model(image, model(image))` with `image = keras.Input((height, width, channels))`."
        )
    if not _is_shape(images, 4) or not _is_shape(logits, 2) or (logits[1] or 0) < 2:
        raise InputError(
            f"`members` must map images [N, H, W, C] to logits [N, classes], but member {index} "
            f"({member.name}) maps {images} to {logits}."
        )
    return tuple(images[1:]), tuple(logits[1:])


def _is_shape(shape: object, rank: int) -> bool:
    return isinstance(shape, tuple) and len(shape) == rank and all(isinstance(n, int | None) for n in shape)


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """List the layers of a model, those inside other layers too."""
    layers: list[keras.layers.Layer] = model._flatten_layers(include_self=False)
    return layers


def ends_in_softmax(model: keras.Model) -> bool:
    """Tell whether a model returns probabilities: its last layer, or its last activation, is softmax.

    The answer of layers and functions that are not of Keras is found by passing two images through the model:
    probabilities are not negative and sum to 1.
    """
    last = model
    while getattr(last, "outputs", None):
        last = last.outputs[0]._keras_history.operation
    if isinstance(last, keras.layers.Softmax):
        return True
    activation = getattr(last, "activation", None)
    if activation in (None, keras.activations.linear) and isinstance(last, keras.layers.Dense):
        return False
    if activation is not None:
        return activation is keras.activations.softmax
    images = np.random.default_rng(0).random((2, *(n or 32 for n in model.input_shape[1:])), np.float32)
    outputs = np.asarray(model(images, training=False), np.float64)
    return bool((outputs >= 0).all() and np.abs(outputs.sum(axis=1) - 1).max() < 1e-2)


def warn_of_second_derivatives(members: Sequence[keras.Model]) -> None:
    """Warn where a gradient regularizer would be trained on wrong second derivatives.

    Normalisation layers of Keras take their moments with a gradient that is stopped at the mean: right to
    first order, wrong to second.
    """
    for index, member in enumerate(members):
        for layer in all_layers(member):
            wrong = isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized
            if layer.trainable and (wrong or isinstance(layer, keras.layers.LayerNormalization)):
                warnings.warn(
                    f"Member {index} has a {type(layer).__name__} layer ({layer.name}), whose second "
                    "derivatives are wrong: the regularizer is trained on wrong gradients. Use "
                    "`ncen_tf.ensembles.batch_norm.BatchNorm` in its place.",
                    stacklevel=3,
                )
                break
