"""A moving average of the weights of whatever is trained."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ncen_tf.base.errors import InputError

Logs = dict[str, Any]


class WeightAverage(keras.callbacks.Callback):
    """Average a model's variables over the steps of training, and leave the averages when training ends.

    After step t, average = m * average + (1 - m) * variable with m = min(momentum, (1 + t) / (10 + t)), so
    that the initial weights are soon forgotten. BatchNorm's moving statistics are averaged in the same way:
    they are averages of batch statistics, and stay ones. Integer variables are copied. Training goes on
    with the weights of the optimizer.

    Args:
        momentum: Share of the old average that each step keeps, in [0, 1).

    Raises:
        InputError: ``momentum`` is out of range.

    Examples:
        >>> import keras, ncen_tf, numpy as np
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> model.compile("sgd", "mse")
        >>> average = ncen_tf.WeightAverage(0.99)
        >>> history = model.fit(np.ones((8, 4)), np.ones((8, 2)), callbacks=[average], verbose=0)
        >>> bool(np.all(model.get_weights()[0] == average.averages[0]))
        True
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise InputError(f"`momentum` must be in [0, 1), got {momentum}.")
        self.momentum = momentum
        self.averages: list[tf.Variable] = []
        """One for each of the model's variables."""
        self._update: Any = None

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        if self.averages:
            return
        with model.distribute_strategy.scope():
            self.averages = [
                tf.Variable(tf.convert_to_tensor(variable.value), trainable=False)
                for variable in model.variables
            ]
        self._update = tf.function(self._average, autograph=False)

    def _average(self) -> None:
        step = tf.cast(self.model.optimizer.iterations, tf.float64)
        momentum = tf.minimum(tf.cast(self.momentum, tf.float64), (1 + step) / (10 + step))
        for average, variable in zip(self.averages, self.model.variables, strict=True):
            value = tf.convert_to_tensor(variable.value)
            if value.dtype.is_floating:
                old = tf.convert_to_tensor(average)
                value = old + tf.cast(1 - momentum, value.dtype) * (value - old)
            average.assign(value)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._update()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._assign(self.averages)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averages, to be measured, and take them back."""
        own = [tf.identity(tf.convert_to_tensor(variable.value)) for variable in self.model.variables]
        self._assign(self.averages)
        try:
            yield
        finally:
            self._assign(own)

    def _assign(self, values: list[Any]) -> None:
        for variable, value in zip(self.model.variables, values, strict=True):
            variable.assign(tf.convert_to_tensor(value))
