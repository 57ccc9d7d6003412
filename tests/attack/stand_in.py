"""A target made of Keras members, which counts how often it is traced."""

import keras
import tensorflow as tf


class KerasTarget:
    """Members side by side, as ``ncen_tf.targets`` will offer them."""

    gives_logits = True
    sha256 = "0" * 64
    providers: tuple[str, ...] = ()

    def __init__(self, models: list[keras.Model], description: str = "stand-in") -> None:
        self.description = description
        self.image_shape = tuple(models[0].input_shape[1:])
        self.classes = models[0].output_shape[-1]
        self.members = len(models)
        self.models = models
        self.traces = 0

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        self.traces += 1
        return tf.stack([model(images, training=False) for model in self.models], axis=1)


class ResidualTarget(KerasTarget):
    """A target whose Keras model can be seen."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__([model])
        self.keras_model = model


def small_member(seed: int) -> keras.Model:
    """Strided convolutions with a residual branch and a dense layer: 28 x 28 x 1 -> 10 logits."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((28, 28, 1))
    x = keras.layers.Conv2D(8, 5, 2, padding="same", activation="relu")(image)
    y = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = keras.layers.Add()([x, y])
    x = keras.layers.Conv2D(16, 3, 2, padding="same", activation="relu")(x)
    return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(x)))
