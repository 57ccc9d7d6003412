"""Devices, their precision, distribution strategies, and the workers of a multi-worker training."""

import contextlib
import functools
import hashlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ncen_tf.base.environment import available_cores, processor_flags, signal_handlers
from ncen_tf.base.errors import InputError, LostWorkerError
from ncen_tf.ensembles.members import build_member
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.run_directory import DataRecord

logger = logging.getLogger(__name__)

Precision = Literal["float32", "mixed_bfloat16"]

VIRTUAL_GPU_MEMORY_MB = 4096
TIMED_STEPS = 5
"""Number of timed steps at each precision."""
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
"""What TensorFlow raises when another worker has ended or cannot be reached."""


def set_up_devices(config: TrainConfig) -> tf.distribute.Strategy:
    """Set up devices and kernels, and make the distribution strategy of a run.

    Call it before TensorFlow is used otherwise, which includes reading a dataset: later, devices cannot be
    split, and the threads of the CPU are left as they are.

    Raises:
        InputError: Devices that cannot be split, or an unusable ``TF_CONFIG``.
    """
    if config.virtual_devices > 1:
        split_device(config.virtual_devices)
    share_cores(len(config.members))
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    strategy = connect_workers() if config.strategy == "multi_worker" else make_strategy(config.strategy)
    logger.info("%s, %d replica(s)", type(strategy).__name__, strategy.num_replicas_in_sync)
    return strategy


def share_cores(members: int) -> None:
    """Let a CPU work on members side by side, each operation on its member's share of the cores.

    This is faster than every operation on all cores, whose threads then wait for one another. A GPU, a set
    ``TF_NUM_INTRAOP_THREADS`` and a TensorFlow that is in use already are left alone.
    """
    if "TF_NUM_INTRAOP_THREADS" in os.environ or tf.config.list_physical_devices("GPU"):
        return
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(math.ceil(available_cores() / members))


def split_device(virtual_devices: int) -> None:
    """Split the first GPU, or the CPU where there is none, into logical devices. A virtual GPU gets 4 GiB.

    Raises:
        InputError: TensorFlow has already set up its devices.
    """
    gpus = tf.config.list_physical_devices("GPU")
    device = (gpus or tf.config.list_physical_devices("CPU"))[0]
    limit = VIRTUAL_GPU_MEMORY_MB if gpus else None
    part = tf.config.LogicalDeviceConfiguration(memory_limit=limit)
    try:
        tf.config.set_logical_device_configuration(device, [part] * virtual_devices)
    except RuntimeError as error:
        raise InputError("`virtual_devices` can be set only before TensorFlow is used.") from error


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Make a strategy over this machine's logical devices: its GPUs, or the CPU's where it has none.

    ``mirrored`` is MirroredStrategy, and so is ``auto`` when there is more than one device.
    """
    gpus = tf.config.list_logical_devices("GPU")
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    if name == "mirrored" or (name == "auto" and len(devices) > 1):
        return tf.distribute.MirroredStrategy(devices)
    return tf.distribute.get_strategy()


def connect_workers() -> tf.distribute.Strategy:
    """Make a MultiWorkerMirroredStrategy over the workers that the environment variable TF_CONFIG names.

    Waits until all of them are there, as TensorFlow does: see tensorflow.org/guide/distributed_training.

    Raises:
        InputError: ``TF_CONFIG`` is missing or cannot be used.
    """
    if "TF_CONFIG" not in os.environ:
        example = (
            '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, "task": {"type": "worker", "index": 0}}'
        )
        raise InputError(f"`strategy` multi_worker needs the environment variable TF_CONFIG: {example}.")
    logger.info("Waiting for the other workers of TF_CONFIG")
    with signal_handlers():  # TensorFlow catches SIGTERM and does nothing with it
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # its wait does not let Python handle Ctrl-C
        try:
            return tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, KeyError, TypeError, AttributeError, tf.errors.OpError) as error:
            raise InputError(f"The workers of TF_CONFIG cannot be connected: {error}.") from error


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Say whether the replicas are in more than this process."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Say whether this process writes the run directory: it is alone, or the first of the workers."""
    if not has_several_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    kind, index = resolver.task_type, resolver.task_id
    return kind == "chief" or (index == 0 and "chief" not in resolver.cluster_spec().jobs)


def gather(strategy: tf.distribute.Strategy, numbers: Sequence[int] | npt.NDArray[np.int64]) -> list[int]:
    """Collect the integers that the workers call this with, all at the same point."""
    collected = _gathering(strategy)(tf.constant(numbers, tf.int64, [len(numbers)]))
    result: list[int] = strategy.experimental_local_results(collected)[0].numpy().tolist()
    return result


def broadcast(strategy: tf.distribute.Strategy, data: bytes) -> bytes:
    """Send the chief's ``data`` to all workers, all of which call this at the same point."""
    if not is_chief(strategy):
        data = b""
    packed = np.frombuffer(data + bytes(-len(data) % 8), np.int64)
    size = max(gather(strategy, [len(data)]))
    return np.array(gather(strategy, packed), np.int64).tobytes()[:size]


def refuse_different(strategy: tf.distribute.Strategy, what: str) -> None:
    """Compare a text among the workers.

    Raises:
        InputError: On all workers, if one has another text.
    """
    digest = int.from_bytes(hashlib.sha256(what.encode()).digest()[:4])
    if len(set(gather(strategy, [digest]))) > 1:
        raise InputError("The workers have different settings or data: give all of them the same.")


@functools.cache
def _gathering(strategy: tf.distribute.Strategy) -> Any:
    def in_replica(numbers: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        is_first = context.replica_id_in_sync_group % len(strategy.extended.worker_devices) == 0
        return context.all_gather(numbers[: tf.where(is_first, tf.size(numbers), 0)], axis=0)

    signature = [tf.TensorSpec([None], tf.int64)]
    return tf.function(lambda numbers: strategy.run(in_replica, (numbers,)), input_signature=signature)


@contextlib.contextmanager
def naming_lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turn what TensorFlow raises when another worker is gone into one sentence.

    Raises:
        LostWorkerError: Another worker has ended or cannot be reached.
    """
    try:
        yield
    except _LOST as error:
        if not has_several_workers(strategy):
            raise
        raise LostWorkerError(
            "The connection to another worker is lost: it has ended, as its own output may tell, or cannot "
            "be reached. The same commands on all workers go on from the newest checkpoint."
        ) from error


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Set Keras's policy of precision for the time of a ``with`` block."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def fastest_precision(config: TrainConfig, data: DataRecord, strategy: tf.distribute.Strategy) -> Precision:
    """Choose mixed_bfloat16 where the chief's hardware has it natively and it is measured to be faster."""
    chosen: Precision = "float32"
    if is_chief(strategy):
        if has_native_bfloat16():
            plain, mixed = (seconds_per_step(name, config, data) for name in ("float32", "mixed_bfloat16"))
            chosen = "mixed_bfloat16" if mixed < plain else "float32"
            reason = f"a step takes {plain:.3g} s in float32, {mixed:.3g} s in bfloat16"
        else:
            reason = "the hardware has no native bfloat16"
        logger.info("Precision %s: %s", chosen, reason)
    if has_several_workers(strategy):
        chosen = "mixed_bfloat16" if broadcast(strategy, chosen.encode()) == b"mixed_bfloat16" else "float32"
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


def seconds_per_step(precision: Precision, config: TrainConfig, data: DataRecord) -> float:
    """Measure the gradient of the first member's cross-entropy by its weights: the fastest of some steps."""
    with dtype_policy(precision):
        member = build_member(
            config.members[0], data.image_shape, len(data.class_names), seed=0, name="measured"
        )
    images = tf.random.stateless_uniform((config.batch_size, *data.image_shape), [0, 0])
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
    return min(seconds() for _ in range(TIMED_STEPS))
