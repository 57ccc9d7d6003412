"""How fast this machine multiplies matrices and convolves in TensorFlow and PyTorch: no model is faster."""

import functools

import numpy as np
from absl import flags

from benchmarks.report import Row, Table
from benchmarks.timing import Candidate, Run, Timing, interleaved

SIDE = flags.DEFINE_integer("ceiling_side", 1024, "of the matrices of the machine's ceiling", lower_bound=1)
IMAGES = flags.DEFINE_integer("ceiling_batch", 64, "images of its convolutions", lower_bound=1)
PRECISIONS = ("float32", "bfloat16")
LAYERS = ((28, 16), (14, 32), (7, 64), (14, 128))
"""Height and width, channels in and out: the three stages of a ResNet on 28 x 28, and a wide layer."""


def ceiling(rounds: int) -> Table:
    """GFLOP/s of ``--ceiling_side`` matrices and of 3x3 convolutions of ``--ceiling_batch`` images.

    A multiplication and an addition are two operations.
    """
    side, images = SIDE.value, IMAGES.value
    work: dict[str, float] = {f"matmul {side}": 2.0 * side**3}
    candidates: dict[tuple[str, str, str], Candidate] = {}
    for framework, multiply in (("TensorFlow", _tensorflow_matmul), ("PyTorch", _torch_matmul)):
        for precision in PRECISIONS:
            key = (f"matmul {side}", framework, precision)
            candidates[key] = functools.partial(multiply, precision, side)
    for size, channels in LAYERS:
        name = f"3x3 convolution, {images} x {size} x {size}, {channels} channels"
        work[name] = 2.0 * 9 * images * size**2 * channels**2
        for framework, convolve in (("TensorFlow", _tensorflow_conv), ("PyTorch", _torch_conv)):
            for precision in PRECISIONS:
                key = (name, framework, precision)
                candidates[key] = functools.partial(convolve, precision, images, size, channels)
    named = {" ".join(key): make for key, make in candidates.items()}
    outcomes = interleaved(named, rounds, calls=5)
    rows: dict[str, Row] = {name: {"GFLOP/s": name} for name in work}
    for key in candidates:
        name, framework, precision = key
        outcome = outcomes[" ".join(key)]
        rate = work[name] / outcome.median / 1e9 if isinstance(outcome, Timing) else outcome.reason
        rows[name][f"{framework} {precision}"] = rate
    return Table("The machine's ceiling, measured in the same run", list(rows.values()))


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _tensorflow_matmul(precision: str, side: int) -> Run:
    import tensorflow as tf

    a = tf.cast(_noise(side, side), precision)
    return functools.partial(tf.function(tf.matmul), a, a)


def _torch_matmul(precision: str, side: int) -> Run:
    from benchmarks.peers.devices import to_torch

    a = to_torch(_noise(side, side), precision)
    return lambda: a @ a


def _tensorflow_conv(precision: str, images: int, size: int, channels: int) -> Run:
    import tensorflow as tf

    x = tf.cast(_noise(images, size, size, channels), precision)
    kernel = tf.cast(_noise(3, 3, channels, channels), precision)
    convolve = tf.function(lambda x, kernel: tf.nn.conv2d(x, kernel, 1, "SAME"))
    return functools.partial(convolve, x, kernel)


def _torch_conv(precision: str, images: int, size: int, channels: int) -> Run:
    import torch

    from benchmarks.peers.devices import to_torch

    x = to_torch(_noise(images, channels, size, size), precision)
    kernel = to_torch(_noise(channels, channels, 3, 3), precision)
    return functools.partial(torch.nn.functional.conv2d, x, kernel, padding=1)
