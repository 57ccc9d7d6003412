"""CIFAR-style residual networks: the members of an ensemble."""

from typing import Any

import keras
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.batch_norm import BatchNorm

WIDTHS = (16, 32, 64)


@keras.saving.register_keras_serializable("ncen_tf")
class SubsampleShortcut(keras.layers.Layer):
    """Option-A shortcut of He et al. (2016): every second pixel, new channels filled with zeros.

    Maps [N, H, W, C] to [N, ceil(H/2), ceil(W/2), channels]. Half of the new channels come before the old
    ones, half after.
    """

    def __init__(self, channels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        added = self.channels - inputs.shape[-1]
        before = added // 2
        every_second = tf.nn.avg_pool2d(inputs, 1, 2, "SAME")  # The gradient of [:, ::2, ::2] is slower.
        return tf.pad(every_second, [[0, 0], [0, 0], [0, 0], [before, added - before]])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n, height, width, _ = input_shape
        halved = [None if size is None else (size + 1) // 2 for size in (height, width)]
        return (n, *halved, self.channels)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"channels": self.channels}


def build_resnet(
    depth: int,
    image_shape: tuple[int, int, int],
    classes: int = 10,
    *,
    sync_batch_norm: bool = False,
    seed: int | None = None,
    name: str | None = None,
) -> keras.Model:
    """Build a ResNet of depth 6n+2 (He et al., 2016, section 4.2) that returns logits.

    It has LeakyReLU(0.1), option-A shortcuts and He-normal weights (fan-in, not truncated). Stride-2
    convolutions pad one pixel on each side, as in PyTorch, so weights are interchangeable.

    Args:
        depth: 8, 14, 20, 26, 32, ...
        image_shape: (height, width, channels).
        classes: Number of logits.
        sync_batch_norm: Whether BatchNorm takes its statistics over all replicas.
        seed: Seed of the initial weights; ``None`` draws other weights each time.
        name: Name of the model; ``resnet<depth>`` by default.

    Returns:
        A model float [N, H, W, C] in [0, 1] -> float32 logits [N, classes].

    Raises:
        InputError: ``depth`` is not 6n+2 with n >= 1.
    """
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"`depth` must be 6n+2 (8, 14, 20, 26, 32, ...), got {depth}.")
    he_normal = keras.initializers.VarianceScaling(
        2.0, "fan_in", "untruncated_normal", seed=keras.random.SeedGenerator(seed)
    )

    def normalize(x: keras.KerasTensor) -> keras.KerasTensor:
        return BatchNorm(synchronized=sync_batch_norm)(x)

    def convolve(x: keras.KerasTensor, width: int, stride: int = 1) -> keras.KerasTensor:
        padding = "same"
        if stride > 1:  # Keras's "same" would pad only after the last pixel.
            x, padding = keras.layers.ZeroPadding2D(1)(x), "valid"
        x = keras.layers.Conv2D(width, 3, stride, padding, use_bias=False, kernel_initializer=he_normal)(x)
        return normalize(x)

    def activate(x: keras.KerasTensor) -> keras.KerasTensor:
        return keras.layers.LeakyReLU(0.1)(x)

    def block(x: keras.KerasTensor, width: int, stride: int) -> keras.KerasTensor:
        shortcut = x if stride == 1 else SubsampleShortcut(width)(x)
        x = convolve(activate(convolve(x, width, stride)), width)
        return activate(keras.layers.Add()([x, shortcut]))

    image = keras.Input(image_shape, name="image")
    x = activate(convolve(image, WIDTHS[0]))
    for stage, width in enumerate(WIDTHS):
        for index in range((depth - 2) // 6):
            x = block(x, width, stride=2 if stage > 0 and index == 0 else 1)
    x = keras.layers.GlobalAveragePooling2D()(x)
    # Full precision under every policy: the loss and its gradients start here.
    logits = keras.layers.Dense(
        classes, kernel_initializer=he_normal, dtype=keras.config.floatx(), name="logits"
    )(x)
    return keras.Model(image, logits, name=name or f"resnet{depth}")
