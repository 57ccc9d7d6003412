"""Small ensembles of any layers, and images for them."""

from collections.abc import Callable

import keras
import numpy as np

import ncen_tf
from ncen_tf.data.dataset import Split


def own_ensemble(
    *layers: Callable[[], keras.layers.Layer], shape: tuple[int, ...] = (12, 10, 3)
) -> ncen_tf.Ensemble:
    """Two members with these layers, and four classes."""

    def member() -> keras.Model:
        return keras.Sequential(
            [keras.Input(shape), *(make() for make in layers), keras.layers.Flatten(), keras.layers.Dense(4)]
        )

    return ncen_tf.Ensemble([member(), member()])


def own_data(*shape: int) -> Split:
    rng = np.random.default_rng(1)
    return Split(
        rng.integers(0, 256, (40, *(shape or (12, 10, 3))), np.uint8),
        (np.arange(40) % 4).astype(np.int32),
        "own",
        ("a", "b", "c", "d"),
    )
