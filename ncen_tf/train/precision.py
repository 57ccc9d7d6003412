"""Choice of the precision of a run by this machine: bfloat16 where it is native and faster."""

import logging
import time
from collections.abc import Callable
from typing import Literal

import keras
import tensorflow as tf

from ncen_tf.base.environment import processor_flags
from ncen_tf.ensembles.members import build_member
from ncen_tf.train.config import TrainConfig

logger = logging.getLogger(__name__)

Precision = Literal["float32", "mixed_bfloat16"]

ROUNDS = 5
"""Number of timed steps at each precision."""


def fastest_precision(measure: Callable[[Precision], float], native: bool) -> Precision:
    """Choose mixed_bfloat16 where the hardware has it natively and it is measured to be faster.

    Args:
        measure: Seconds of a training step at a precision; not called where bfloat16 is not native.
        native: Whether the hardware has bfloat16, see :func:`has_native_bfloat16`.
    """
    if not native:
        logger.info("Precision float32: the hardware has no native bfloat16")
        return "float32"
    plain, mixed = measure("float32"), measure("mixed_bfloat16")
    chosen: Precision = "mixed_bfloat16" if mixed < plain else "float32"
    logger.info("Precision %s: a step takes %.3g s in float32, %.3g s in bfloat16", chosen, plain, mixed)
    return chosen


def has_native_bfloat16() -> bool:
    """Say whether TensorFlow's first GPU, or the CPU where there is none, computes in bfloat16.

    Elsewhere bfloat16 is emulated, many times slower than float32. GPUs have it from compute capability 8.0.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return bool(capability >= (8, 0))
    return bool(processor_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def seconds_per_step(
    precision: Precision, config: TrainConfig, image_shape: tuple[int, int, int], classes: int
) -> float:
    """Measure the gradient of the first member's cross-entropy by its weights: the fastest of some steps.

    Args:
        precision: Keras dtype policy.
        config: Settings of the run.
        image_shape: (height, width, channels).
        classes: Number of classes.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        member = build_member(config.members[0], image_shape, classes, seed=0, name="measured")
    finally:
        keras.config.set_dtype_policy(before)
    images = tf.random.stateless_uniform((config.batch_size, *image_shape), [0, 0])
    labels = tf.zeros(config.batch_size, tf.int32)

    @tf.function(autograph=False)
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = member(images, training=True)
            loss = tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients: list[tf.Tensor] = tape.gradient(loss, member.trainable_variables)
        return gradients

    def seconds() -> float:
        started = time.perf_counter()
        step()[0].numpy()  # waits for the result
        return time.perf_counter() - started

    seconds()  # compiles
    return min(seconds() for _ in range(ROUNDS))
