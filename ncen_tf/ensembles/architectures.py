"""Builds the members of an ensemble by name: our ResNets, Keras applications, and a user's functions."""

import re
from typing import Any

import keras

from ncen_tf.base.errors import InputError, one_line
from ncen_tf.base.user_functions import import_function, is_function_name
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.resnet import build_resnet
from ncen_tf.ensembles.structures import member_depth

_PREPROCESSING = (keras.layers.Rescaling, keras.layers.Normalization)


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
        sync_batch_norm: Whether BatchNorm takes its statistics over all replicas.
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
