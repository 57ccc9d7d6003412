"""Limit the memory of the process, and try a model on two images within such a limit."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ncen_tf.base.errors import InputError

if sys.platform == "linux":
    import resource

MEMORY = 2**30
"""Bytes that a model of a small file may allocate, weights included, to answer two images."""


@contextlib.contextmanager
def limited_memory(allowed: int | None) -> Iterator[None]:
    """Let allocations of the process fail when it takes ``allowed`` bytes more than at the start.

    The limit is Linux's RLIMIT_DATA; on other systems, and for ``None``, there is none.
    """
    if sys.platform != "linux" or allowed is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lines = Path("/proc/self/status").read_text().splitlines()
    used = next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:")), 0)
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([used + allowed, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def noise(shape: Sequence[int]) -> npt.NDArray[np.float32]:
    """Draw images [N, H, W, C] in [0, 1] to try a model on; the same ones for the same shape."""
    return np.random.default_rng(0).random(shape, np.float32)


def try_model(
    path: Path,
    image_shape: Sequence[int],
    answer: Callable[[npt.NDArray[np.float32]], object],
    allowed: int | None = None,
) -> None:
    """Refuse a model that does not answer two images.

    Args:
        path: File or folder of the model, for the error message.
        image_shape: (height, width, channels).
        answer: Function that runs the model on float32 images [2, H, W, C] in [0, 1].
        allowed: Bytes that it may allocate; ``None`` for any number. A ``tf.function`` needs ``None``,
            because it waits forever when an allocation fails, and so does a model on a GPU.

    Raises:
        InputError: The model fails, or allocates more.
    """
    try:
        with limited_memory(allowed):
            answer(noise((2, *image_shape)))
    except Exception as error:  # TensorFlow and Keras have no common base class of errors.
        if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
            raise InputError(f"{path} takes too much memory for two images: do not trust it.") from error
        raise InputError(f"{path} does not run on two images: {str(error)[:300]}.") from error
