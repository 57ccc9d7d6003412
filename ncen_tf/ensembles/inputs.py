"""Images, labels and weights as a training step needs them, checked."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ncen_tf.base.errors import InputError

_RANGE_SLACK = 1e-3
"""How far rounding may take images out of [0, 1]."""
_OUT_OF_RANGE = (
    "Images must be uint8, or floats in [0, 1]: divide [0, 255] by 255, and map [-1, 1] by (x + 1) / 2."
)
_UNKNOWN_LABELS = "Labels must be class numbers, from 0 to the number of classes - 1."


def float_images(images: tf.Tensor) -> tf.Tensor:
    """Divide uint8 images by 255 and cast floats to Keras's float type."""
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return tf.cast(images, keras.config.floatx()) / 255.0
    if not images.dtype.is_floating:
        raise InputError(f"{_OUT_OF_RANGE[:-1]}, got {images.dtype.name}.")
    return tf.cast(images, keras.config.floatx())


def checked_images(images: tf.Tensor) -> tf.Tensor:
    """Convert as :func:`float_images`, and fail at run time where floats are not in [0, 1]."""
    images = float_images(images)
    inside = tf.reduce_all((images >= -_RANGE_SLACK) & (images <= 1 + _RANGE_SLACK))
    with tf.control_dependencies([tf.debugging.Assert(inside, [_OUT_OF_RANGE])]):
        return tf.identity(images)  # Nothing is computed of images that are refused.


def class_numbers(labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Reshape labels [N] or [N, 1] to int32 [N], and fail at run time where one is not in [0, classes).

    Raises:
        InputError: The labels have another shape, such as one-hot labels.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank not in (None, 1) and labels.shape[1:] != (1,):
        raise InputError(
            f"Labels must be class numbers [N], got the shape {list(labels.shape)}: turn one-hot labels into "
            "class numbers with `labels.argmax(axis=1)`."
        )
    labels = tf.reshape(tf.cast(labels, tf.int32), [-1])
    known = tf.reduce_all((labels >= 0) & (labels < classes))
    with tf.control_dependencies([tf.debugging.Assert(known, [_UNKNOWN_LABELS])]):
        return tf.identity(labels)


def with_input_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the failed assertions of a compiled function into an :class:`InputError`."""

    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except tf.errors.InvalidArgumentError as error:
            for sentence in (_OUT_OF_RANGE, _UNKNOWN_LABELS):
                if sentence in str(error):
                    raise InputError(sentence) from None
            raise

    return call


def weighted(
    losses: tf.Tensor, parts: dict[str, tf.Tensor], weights: tf.Tensor | None
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Multiply the losses [N] and their parts by the weights of the examples [N]."""
    if weights is None:
        return losses, parts
    return losses * weights, {name: values * weights for name, values in parts.items()}


class Batch(NamedTuple):
    """A replica's share of a batch."""

    images: tf.Tensor
    """Keras's float type, [N, H, W, C]."""
    labels: tf.Tensor
    """int32 [N]."""
    weights: tf.Tensor | None
    """Weight of each example, [N]; ``None`` for 1."""
    count: tf.Tensor
    """Number of examples given: 0 where N = 1 stands in for an empty share, else N."""
    global_count: tf.Tensor
    """Number of examples given to all replicas."""


def read_batch(images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None, classes: int) -> Batch:
    """Check and convert a replica's share of a batch.

    The last batch of an epoch can have fewer images than there are replicas. A replica without images gets
    the mean image of the batch, with weight 0: statistics of no image are NaN and would reach the weights of
    all replicas, and TensorFlow's convolutions return wrong shapes for no image on some processors.

    Raises:
        InputError: Images or labels have the wrong type or shape.
    """
    images, labels = checked_images(images), class_numbers(labels, classes)
    if weights is not None:
        weights = tf.reshape(tf.cast(weights, images.dtype), [-1])
    replica, count = tf.distribute.get_replica_context(), tf.shape(images)[0]
    global_count = replica.all_reduce("SUM", count)
    if replica.num_replicas_in_sync > 1:
        total = replica.all_reduce("SUM", tf.reduce_sum(images, axis=0))
        mean = total / tf.cast(global_count, total.dtype)
        missing = tf.cast(count == 0, tf.int32)
        given = tf.ones([count], images.dtype) if weights is None else weights
        images = tf.concat([images, tf.repeat(mean[tf.newaxis], missing, axis=0)], axis=0)
        labels = tf.concat([labels, tf.zeros([missing], labels.dtype)], axis=0)
        weights = tf.concat([given, tf.zeros([missing], images.dtype)], axis=0)
    return Batch(images, labels, weights, count, global_count)
