"""SGM: gradients that prefer skip connections to residual branches."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import keras
import tensorflow as tf
from pydantic import Field

from ncen_tf.attack.attack import Array, Labels
from ncen_tf.attack.iterative import MomentumIterative
from ncen_tf.attack.objectives import Objective
from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import settings
from ncen_tf.targets.target import Target
from ncen_tf.targets.tensorflow_targets import TensorFlowTarget


@settings
class SkipGradient(MomentumIterative):
    """Skip gradient method (Wu et al., 2020, arXiv:2002.05990) on MI-FGSM, for transfer to other models.

    Needs a Keras target: a functional model, or an ensemble whose members are functional models.

    Raises:
        InputError: When called: the target has no residual Keras layers.
    """

    name: ClassVar[str] = "SGM"
    gamma: float = Field(
        default=0.2, gt=0, le=1, description="Factor on the gradient through residual branches; 1 is MI-FGSM"
    )

    def __call__(self, objective: Objective, images: Array, labels: Labels, seed: int) -> Array:
        decayed = Objective(self._decayed(objective), objective.name)
        adversarials = super().__call__(decayed, images, labels, seed)
        objective.count(decayed.queries, decayed.gradients)
        return adversarials

    def _decayed(self, objective: Objective) -> Target:
        """Return the objective's target with other gradients; batches of one run share what is compiled."""
        known = objective.decayed_targets
        if self.gamma not in known:
            target = objective.target
            model = getattr(target, "keras_model", None)
            if model is None:
                raise InputError(f"SGM needs a Keras model; {target.description} is none.")
            members = [decay_residual_gradients(m, self.gamma) for m in getattr(model, "members", [model])]
            known[self.gamma] = TensorFlowTarget(
                lambda images: tf.stack([member(images, training=False) for member in members], axis=1),
                target.image_shape,
                target.description,
                target.sha256,
                preprocessing=target.preprocessing,
            )
        return known[self.gamma]


def decay_residual_gradients(model: keras.Model, gamma: float) -> keras.Model:
    """Build a functional model with the same layers, weights and outputs, but other gradients.

    Where an ``Add`` joins a skip connection and a residual branch, the gradient into the branch is
    multiplied by ``gamma``. The branch is the input that more layers lead to.

    Raises:
        InputError: The model is not functional or has no such ``Add``.
    """

    @tf.custom_gradient
    def decay(x: tf.Tensor) -> tuple[tf.Tensor, Any]:
        return tf.identity(x), lambda upstream: gamma * upstream

    joined = 0

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(layer, keras.layers.Add):
            return layer(*args, **kwargs)
        nonlocal joined
        joined += 1
        inputs = list(args[0])
        depths = [_depth(tensor) for tensor in inputs]
        branch = depths.index(max(depths))
        inputs[branch] = keras.layers.Lambda(decay, output_shape=inputs[branch].shape[1:])(inputs[branch])
        return layer(inputs, **kwargs)

    # A subclassed model, which has no layers to follow, cannot be cloned: ValueError.
    with contextlib.suppress(ValueError):
        decayed = keras.models.clone_model(model, call_function=call, clone_function=lambda layer: layer)
    if not joined:
        raise InputError(
            f"SGM needs a functional Keras model with residual Add layers; {model.name} is none."
        )
    return decayed


def _depth(tensor: keras.KerasTensor) -> int:
    """Count the layers on the longest path from an input to a symbolic tensor."""
    known: dict[int, int] = {}

    def depth(t: keras.KerasTensor) -> int:
        if id(t) not in known:
            operation, node_index, _ = t._keras_history
            parents = operation._inbound_nodes[node_index].input_tensors
            known[id(t)] = 1 + max((depth(parent) for parent in parents), default=0)
        return known[id(t)]

    return depth(tensor)
