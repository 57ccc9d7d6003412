"""Members that are linear in the image: fast, and easy to write down again in NumPy."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Array64 = npt.NDArray[np.float64]


class LinearTarget:
    """Member i has the logits x W_i + b: W [k, 12, C] float64, b [C]."""

    gives_logits = True
    description = "linear"
    sha256 = "0" * 64
    providers: tuple[str, ...] = ()
    image_shape = (4, 3, 1)

    def __init__(self, weights: Array64, bias: Array64) -> None:
        self.weights, self.bias = weights, bias
        self.members, _, self.classes = weights.shape

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(images, [-1, 12])
        return tf.einsum("np,kpc->nkc", flat, tf.constant(self.weights, tf.float32)) + self.bias.astype("f")

    def logits64(self, image: Array64) -> Array64:
        """The same in NumPy for one image: [k, C]."""
        return np.einsum("p,kpc->kc", image.reshape(-1), self.weights) + self.bias


def linear_target(members: int = 3, classes: int = 5, scale: float = 3.0, seed: int = 0) -> LinearTarget:
    """Random weights; image and label below fit it."""
    weights = np.random.default_rng(seed).normal(scale=scale, size=(members, 12, classes))
    return LinearTarget(weights, np.zeros(classes))


def images_and_predictions(
    target: LinearTarget, count: int, seed: int = 1
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Images in [0, 1], and as labels what the ensemble says to them."""
    images = np.random.default_rng(seed).uniform(size=(count, *target.image_shape)).astype(np.float32)
    labels = [mean_probabilities(target.logits64(image)).argmax() for image in images.astype(np.float64)]
    return images, np.array(labels, np.int32)


def mean_probabilities(logits: Array64) -> Array64:
    """[k, C] -> [C]."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray((exponentials / exponentials.sum(axis=1, keepdims=True)).mean(axis=0))
