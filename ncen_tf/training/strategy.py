"""Devices and the tf.distribute strategy over them."""

import tensorflow as tf

from ncen_tf.errors import InputError

VIRTUAL_GPU_MEMORY_MB = 4096


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
    raise InputError(f"--strategy is auto, one_device or mirrored; got {name!r}.")
