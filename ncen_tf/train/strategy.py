"""Devices and the tf.distribute strategy over them."""

import logging
import math
import os

import keras
import tensorflow as tf

from ncen_tf.base.environment import available_cores
from ncen_tf.base.errors import InputError
from ncen_tf.train.config import TrainingConfig
from ncen_tf.workers.cluster import Cluster
from ncen_tf.workers.connection import connect_workers

logger = logging.getLogger(__name__)

VIRTUAL_GPU_MEMORY_MB = 4096


def set_up_tensorflow(config: TrainingConfig, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """Set devices, kernels, precision and seeds, and make the strategy that a run trains under.

    Call it once in a process, before TensorFlow is used, which includes reading a dataset.

    Args:
        config: settings of the run.
        cluster: the workers of ``--strategy=multi_worker``, who have answered the roll call.

    Raises:
        InputError: devices that cannot be split.
        LostWorkerError: a worker went away.
    """
    if config.virtual_devices > 1:
        split_device(config.virtual_devices)
    share_cores(len(config.architecture))
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    strategy = make_strategy(config.strategy) if cluster is None else connect_workers(cluster)
    logger.info("%s, %d replica(s)", type(strategy).__name__, strategy.num_replicas_in_sync)
    return strategy


def share_cores(members: int) -> None:
    """Let a CPU work on members side by side, each operation on its member's share of the cores.

    Faster than every operation on all cores, whose threads then wait for one another. A set
    ``TF_NUM_INTRAOP_THREADS`` is left alone. Must run before TensorFlow touches a device.
    """
    if "TF_NUM_INTRAOP_THREADS" in os.environ or tf.config.list_physical_devices("GPU"):
        return
    tf.config.threading.set_intra_op_parallelism_threads(math.ceil(available_cores() / members))


def split_device(virtual_devices: int) -> None:
    """Split the first GPU, or the CPU where there is none, into logical devices.

    Must run before TensorFlow touches a device. A virtual GPU gets 4 GiB.

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
        raise InputError("Devices can be split only before their first use.") from error


def make_strategy(name: str) -> tf.distribute.Strategy:
    """A strategy over this machine's logical devices: its GPUs, or the CPU's where it has none.

    Args:
        name: ``one_device``; ``mirrored`` for MirroredStrategy; ``auto`` for MirroredStrategy when there
            is more than one device.

    Raises:
        InputError: an unknown name.
    """
    gpus = tf.config.list_logical_devices("GPU")
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    if name == "mirrored" or (name == "auto" and len(devices) > 1):
        return tf.distribute.MirroredStrategy(devices)
    if name in ("auto", "one_device"):
        return tf.distribute.get_strategy()
    raise InputError(f"--strategy is auto, one_device or mirrored on one machine; got {name!r}.")
