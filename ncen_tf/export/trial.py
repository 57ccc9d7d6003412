"""Strangers' models in TensorFlow, tried before anything relies on them."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path

import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.untrusted.onnx_input import noise
from ncen_tf.untrusted.memory import limited_memory


def try_model(
    path: Path, image_shape: Sequence[int], answer: Callable[[tf.Tensor], object], room: int | None = None
) -> None:
    """Refuse a model that does not answer two images.

    Args:
        path: its file or folder.
        image_shape: (H, W, C).
        answer: what is asked, with images [2, H, W, C] in [0, 1].
        room: bytes that it may take; ``None`` for any, which ``tf.function`` needs: it waits for ever
            when it gets no memory. On a GPU the limit is what the GPU has.

    Raises:
        InputError: it fails, or takes more.
    """
    limited = room is not None and not tf.config.list_physical_devices("GPU")
    try:
        with limited_memory(room or 0) if limited else contextlib.nullcontext():
            answer(tf.constant(noise((2, *image_shape))))
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise InputError(f"{path} takes too much memory for two images: do not trust it.") from error
    except Exception as error:  # TensorFlow and Keras have no common class for what damage leads to
        raise InputError(f"{path} does not run on two images: {str(error)[:200]}.") from error
