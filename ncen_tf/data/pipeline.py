"""tf.data pipelines: D + D_noise with fresh, seeded augmentation for training; plain for evaluation."""

import numpy as np
import tensorflow as tf

from ncen_tf.data.datasets import DatasetSpec
from ncen_tf.data.loading import Split


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Batches in an epoch, which sees every example twice: in D and in D_noise."""
    return -(-2 * examples // batch_size)


def training_batches(
    split: Split,
    spec: DatasetSpec,
    batch_size: int,
    *,
    epoch: int,
    seed: int,
    noise_eps: float,
    crop_padding: int,
    skip_steps: int = 0,
) -> tf.data.Dataset:
    """One epoch over D and D_noise, shuffled together (Luo et al., section IV-A).

    D is the split, augmented: random crops after padding by zeros, and mirror images where the
    dataset's specification says so. D_noise adds truncated normal noise to D, of deviation
    noise_eps / 2, cut at two deviations, and clips to [0, 1]. Order, augmentation and noise depend
    on seed, epoch and step alone, so an epoch can be entered at any step.

    Args:
        split: N images.
        spec: the dataset they come from.
        batch_size: images a batch; the last one holds the rest.
        epoch: number of the epoch, from 0.
        seed: in [0, 2^31).
        noise_eps: bound of the noise, >= 0.
        crop_padding: pixels on each side, >= 0; 4 in the paper's protocol.
        skip_steps: leave out this many batches at the start.

    Returns:
        Batches of images float32 [B, H, W, C] in [0, 1] and labels int32 [B].
    """
    order = np.random.default_rng([seed, epoch]).permutation(2 * len(split))
    images, labels = tf.constant(split.images), tf.constant(split.labels)
    order, count = tf.constant(order), len(split)

    def make_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        drawn = order[step * batch_size : (step + 1) * batch_size]
        batch = tf.cast(tf.gather(images, drawn % count), tf.float32) / 255.0
        key = tf.random.fold_in(tf.constant([seed, epoch]), step)
        crop_key, flip_key, noise_key = tf.unstack(tf.random.split(key, 3))
        batch = random_crop(batch, crop_key, crop_padding)
        if spec.flip:
            batch = random_flip(batch, flip_key)
        batch = tf.where(
            (drawn >= count)[:, tf.newaxis, tf.newaxis, tf.newaxis],
            add_truncated_noise(batch, noise_key, noise_eps),
            batch,
        )
        return batch, tf.gather(labels, drawn % count)

    steps = tf.data.Dataset.range(skip_steps, steps_per_epoch(count, batch_size))
    return steps.map(make_batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def random_crop(images: tf.Tensor, key: tf.Tensor, most: int) -> tf.Tensor:
    """Shift each image by up to ``most`` pixels in each direction, zeros coming in. [B, H, W, C]."""
    shape = tf.shape(images)
    count, height, width = shape[0], shape[1], shape[2]
    padding = [0, 0], [most] * 2, [most] * 2, [0, 0]
    corners = tf.random.stateless_uniform([count, 2], key, maxval=2 * most + 1, dtype=tf.int32)
    rows = corners[:, :1] + tf.range(height)
    columns = corners[:, 1:] + tf.range(width)
    padded = tf.gather(tf.pad(images, padding), rows, axis=1, batch_dims=1)
    return tf.gather(padded, tf.repeat(columns[:, tf.newaxis], height, 1), axis=2, batch_dims=2)


def random_flip(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Mirror each image left to right with probability 1/2. [B, H, W, C]."""
    flipped = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], key) < 0.5
    return tf.where(flipped, tf.reverse(images, axis=[2]), images)


def add_truncated_noise(images: tf.Tensor, key: tf.Tensor, noise_eps: float) -> tf.Tensor:
    """Add normal noise of deviation noise_eps / 2, cut at noise_eps, and clip to [0, 1]."""
    noise = tf.random.stateless_truncated_normal(tf.shape(images), key, stddev=noise_eps / 2)
    return tf.clip_by_value(images + noise, 0.0, 1.0)


def evaluation_batches(split: Split, batch_size: int = 256) -> tf.data.Dataset:
    """The split in order: images float32 [B, H, W, C] in [0, 1], labels int32 [B]."""
    batches = tf.data.Dataset.from_tensor_slices((split.images, split.labels)).batch(batch_size)
    return batches.map(
        lambda images, labels: (tf.cast(images, tf.float32) / 255.0, labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)
