"""The process that this is: versions and hardware, which stand beside every measured number, and signals."""

import contextlib
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import ncen_tf

PACKAGES = ("tensorflow", "keras", "numpy", "cleverhans", "onnx", "tf2onnx", "onnxruntime-gpu")


def available_cores() -> int:
    """Cores that this process may use, fewer than the machine's where it is bound to some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_flags() -> frozenset[str]:
    """Read the instruction sets of the processor, as Linux names them; elsewhere none are known."""
    cpu = Path("/proc/cpuinfo")
    return frozenset(cpu.read_text(encoding="utf-8").split()) if cpu.is_file() else frozenset()


def enable_onednn() -> None:
    """Let TensorFlow use oneDNN on processors with AVX2 but not AVX-512, where it does not by itself.

    Training takes about half of the time with it. TensorFlow decides when it is imported, so call this
    before; ``TF_ENABLE_ONEDNN_OPTS`` in the environment comes first.
    """
    flags = processor_flags()
    if "avx2" in flags and "avx512f" not in flags:
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def describe_environment() -> dict[str, Any]:
    """Describe the versions of the package and what it runs on, processor, cores, and TensorFlow's GPUs."""
    installed = {distribution.name for distribution in metadata.distributions()}
    tf = sys.modules.get("tensorflow")  # Where it is not in use, its GPUs played no part.
    gpus = tf.config.list_physical_devices("GPU") if tf else []
    return {
        "ncen_tf": ncen_tf.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES if name in installed},
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": available_cores(),
        "gpus": [tf.config.experimental.get_device_details(g).get("device_name") for g in gpus if tf],
    }


@contextlib.contextmanager
def signal_handlers(handler: Callable[..., None] | None = None) -> Iterator[Callable[[], None]]:
    """Let a function handle Ctrl-C and SIGTERM, and put back the handlers of before at the end.

    Without a function they are left to the block to change. Only the main thread can have handlers.

    Yields:
        A function that puts the handlers back at once.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in numbers} if is_main else {}

    def restore() -> None:
        for number, old in before.items():
            signal.signal(number, old)

    if handler is not None:
        for number in before:
            signal.signal(number, handler)
    try:
        yield restore
    finally:
        restore()
