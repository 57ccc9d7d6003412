"""DVERGE: images that carry the non-robust features which a member sees in other images."""

import functools
from collections.abc import Sequence

import keras
import tensorflow as tf

from ncen_tf.ensembles.adversary import projected_ascent
from ncen_tf.ensembles.regularizers import DVERGE

keras.saving.register_keras_serializable("ncen_tf")(DVERGE)


def distilled_images(
    regularizer: DVERGE, members: Sequence[keras.Model], images: tf.Tensor, key: tf.Tensor
) -> list[tf.Tensor]:
    """Change each image so that a layer of a member sees the next image of the batch in it.

    Each member draws a layer of its own. The members run in inference mode.

    Args:
        regularizer: Bound and steps.
        members: Models images -> logits.
        images: Float [N, H, W, C] in [0, 1].
        key: Key of the drawn layers, as for ``tf.random.stateless_uniform``.

    Returns:
        k tensors [N, H, W, C] in [0, 1], within ``eps`` of ``images``.
    """
    found = []
    for index, member in enumerate(members):
        extractors = feature_extractors(member)
        layer = tf.random.stateless_uniform(
            [], tf.random.fold_in(key, index), maxval=len(extractors), dtype=tf.int32, alg="philox"
        )
        # A branch for each layer, so that layers above it are not computed.
        branches = [functools.partial(distill, regularizer, features, images) for features in extractors]
        found.append(tf.switch_case(layer, branches))
    return found


def distill(regularizer: DVERGE, features: keras.Model, images: tf.Tensor) -> tf.Tensor:
    """Minimise the squared distance of each image's features from those of the image before it.

    Args:
        regularizer: Bound and steps of the projected sign descent with momentum 1.
        features: Model images -> features of any shape.
        images: Float [N, H, W, C] in [0, 1].

    Returns:
        [N, H, W, C] in [0, 1], within ``eps`` of ``images``.
    """
    eps, steps = regularizer.eps, regularizer.steps
    wanted = features(tf.roll(images, 1, axis=0), training=False)

    def closeness(points: Sequence[tf.Tensor]) -> tf.Tensor:
        return -tf.reduce_sum(tf.math.squared_difference(features(points[0], training=False), wanted))

    ranges = [(tf.maximum(images - eps, 0.0), tf.minimum(images + eps, 1.0))]
    step_size = regularizer.step_size or eps / steps
    (found,) = projected_ascent([images], ranges, closeness, steps, step_size, momentum=1.0)
    return found


def feature_extractors(member: keras.Model) -> list[keras.Model]:
    """Make models from images to the outputs of a member's residual blocks, before the activation.

    A member without ``Add`` layers gives the outputs of its convolutions instead, and one without these its
    logits.
    """
    for kind in (keras.layers.Add, keras.layers.Conv2D):
        found = [layer for layer in member.layers if isinstance(layer, kind)]
        if found:
            return [keras.Model(member.inputs, layer.output) for layer in found]
    return [member]
