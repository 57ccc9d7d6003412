"""tf.data pipelines: augmented and noisy images for training, plain ones for evaluation."""

import numpy as np
import tensorflow as tf

from ncen_tf.data.dataset import Split


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Count the batches of an epoch, which sees every example twice: augmented, and with noise added."""
    return -(-2 * examples // batch_size)


def training_batches(
    split: Split,
    batch_size: int,
    *,
    epoch: int,
    seed: int,
    noise_eps: float,
    crop_padding: int,
    flip: bool,
    skip_steps: int = 0,
) -> tf.data.Dataset:
    """Make one epoch over D and D_noise, shuffled together (Luo et al., section IV-A).

    D is the split, augmented by random crops after zero padding and, with ``flip``, by random mirroring.
    D_noise adds truncated normal noise to D, with standard deviation ``noise_eps / 2``, cut at two standard
    deviations, and clips to [0, 1]. Order, augmentation and noise depend on seed, epoch and step alone, so
    an epoch can be entered at any step.

    Args:
        split: N images.
        batch_size: Images in a batch; the last batch holds the rest.
        epoch: Number of the epoch, from 0.
        seed: Seed in [0, 2^31).
        noise_eps: Bound of the noise, >= 0, for images in [0, 1].
        crop_padding: Pixels of padding on each side, >= 0; 4 in the paper.
        flip: Whether to mirror half of the images left to right.
        skip_steps: Number of batches to leave out at the start.

    Returns:
        Batches of images float32 [B, H, W, C] in [0, 1] and labels int32 [B].
    """
    order = np.random.default_rng([seed, epoch]).permutation(2 * len(split))
    images, labels = tf.constant(split.images), tf.constant(split.labels)
    order, count = tf.constant(order), len(split)

    def make_batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        drawn = order[step * batch_size : (step + 1) * batch_size]
        batch = _as_floats(tf.gather(images, drawn % count))
        key = tf.random.fold_in(tf.constant([seed, epoch]), step)
        crop_key, flip_key, noise_key = tf.unstack(tf.random.split(key, 3))
        batch = random_crop(batch, crop_key, crop_padding)
        if flip:
            batch = random_flip(batch, flip_key)
        noisy = add_truncated_noise(batch, noise_key, noise_eps)
        batch = tf.where((drawn >= count)[:, tf.newaxis, tf.newaxis, tf.newaxis], noisy, batch)
        return batch, tf.gather(labels, drawn % count)

    steps = tf.data.Dataset.range(skip_steps, steps_per_epoch(count, batch_size))
    return steps.map(make_batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _as_floats(images: tf.Tensor) -> tf.Tensor:
    return images if images.dtype == tf.float32 else tf.cast(images, tf.float32) / 255.0


def random_crop(images: tf.Tensor, key: tf.Tensor, padding: int) -> tf.Tensor:
    """Shift each image by up to ``padding`` pixels in each direction and fill with zeros. [B, H, W, C]."""
    shape = tf.shape(images)
    count, height, width = shape[0], shape[1], shape[2]
    paddings = [0, 0], [padding] * 2, [padding] * 2, [0, 0]
    corners = tf.random.stateless_uniform([count, 2], key, maxval=2 * padding + 1, dtype=tf.int32)
    rows = corners[:, :1] + tf.range(height)
    columns = corners[:, 1:] + tf.range(width)
    padded = tf.gather(tf.pad(images, paddings), rows, axis=1, batch_dims=1)
    return tf.gather(padded, tf.repeat(columns[:, tf.newaxis], height, 1), axis=2, batch_dims=2)


def random_flip(images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """Mirror each image left to right with probability 1/2. [B, H, W, C]."""
    flipped = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], key) < 0.5
    return tf.where(flipped, tf.reverse(images, axis=[2]), images)


def add_truncated_noise(images: tf.Tensor, key: tf.Tensor, noise_eps: float) -> tf.Tensor:
    """Add normal noise with standard deviation noise_eps / 2, cut at noise_eps, and clip to [0, 1]."""
    noise = tf.random.stateless_truncated_normal(tf.shape(images), key, stddev=noise_eps / 2)
    return tf.clip_by_value(images + noise, 0.0, 1.0)


def evaluation_batches(split: Split, batch_size: int = 256) -> tf.data.Dataset:
    """Make batches in the order of the split: images float32 [B, H, W, C] in [0, 1], labels int32 [B]."""
    batches = tf.data.Dataset.from_tensor_slices((split.images, split.labels)).batch(batch_size)
    floats = batches.map(lambda images, labels: (_as_floats(images), labels), tf.data.AUTOTUNE)
    return floats.prefetch(tf.data.AUTOTUNE)
