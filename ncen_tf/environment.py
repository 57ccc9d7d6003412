"""The versions and hardware that stand beside every measured number."""

import os
import platform
from importlib import metadata
from typing import Any

import ncen_tf

PACKAGES = ("tensorflow", "keras", "numpy", "cleverhans", "onnx", "tf2onnx", "onnxruntime-gpu")


def describe_environment() -> dict[str, Any]:
    """Versions of the package and what it runs on, processor, cores and GPUs."""
    import tensorflow as tf

    installed = {distribution.name for distribution in metadata.distributions()}
    gpus = tf.config.list_physical_devices("GPU")
    return {
        "ncen_tf": ncen_tf.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES if name in installed},
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [tf.config.experimental.get_device_details(g).get("device_name") for g in gpus],
    }
