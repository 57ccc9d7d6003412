"""BatchNorm folded into the convolutions before it, for inference."""

from typing import Any

import keras
import tensorflow as tf

from ncen_tf.models.batch_norm import BatchNorm


def fold_batch_norm(member: keras.Model) -> keras.Model:
    """The same function as a member in inference mode, in fewer operations.

    A BatchNorm that alone takes the answer of a float32 convolution becomes a part of the convolution's
    weights: two passes over memory less, forwards and backwards.

    Args:
        member: a model; it stays as it is, and later changes of its weights do not reach the copy.

    Returns:
        A model with layers of the same names, or the member itself where nothing can be folded.
    """
    foldable = _foldable(member)
    if not foldable:
        return member
    norms = {norm.name for norm in foldable.values()}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer.name in norms:
            return keras.layers.Identity(name=layer.name)
        return layer.__class__.from_config(
            layer.get_config() | ({"use_bias": True} if layer.name in foldable else {})
        )

    folded = keras.models.clone_model(member, clone_function=copy)
    for layer in member.layers:
        if layer.name in foldable:
            folded.get_layer(layer.name).set_weights(_folded_weights(layer, foldable[layer.name]))
        elif layer.weights and layer.name not in norms:
            folded.get_layer(layer.name).set_weights(layer.get_weights())
    return folded


def _foldable(member: keras.Model) -> dict[str, BatchNorm]:
    """Names of convolutions -> the BatchNorm after each."""
    try:
        taken = [(id(tensor), layer) for layer in member.layers for tensor in keras.tree.flatten(layer.input)]
    except AttributeError:  # no functional model, or a layer that is used twice
        return {}
    taken += [(id(tensor), None) for tensor in member.outputs]
    found = {}
    for layer in member.layers:
        if type(layer) is keras.layers.Conv2D and layer.activation is keras.activations.linear:
            after = [taker for tensor, taker in taken if tensor == id(layer.output)]
            # In bfloat16 the folded weights would be rounded more coarsely than what they replace.
            if len(after) == 1 and isinstance(after[0], BatchNorm) and layer.compute_dtype == "float32":
                found[layer.name] = after[0]
    return found


def _folded_weights(convolution: keras.layers.Conv2D, norm: BatchNorm) -> list[Any]:
    bias = convolution.bias.value if convolution.use_bias else 0.0
    scale = norm.gamma.value * tf.math.rsqrt(norm.moving_variance.value + norm.epsilon)
    return [convolution.kernel.value * scale, norm.beta.value + (bias - norm.moving_mean.value) * scale]
