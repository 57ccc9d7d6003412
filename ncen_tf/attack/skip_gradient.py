"""SGM: gradients that prefer skip connections to residual branches."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from typing import TYPE_CHECKING, Any, ClassVar

from ncen_tf.attack.momentum_iterative import MomentumIterative
from ncen_tf.base.errors import InputError

if TYPE_CHECKING:
    import keras
    import tensorflow

    from ncen_tf.attack.objectives import Objective
    from ncen_tf.targets.target import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkipGradient(MomentumIterative):
    """Skip gradient method (Wu et al., 2020, arXiv:2002.05990) on MI-FGSM, for transfer to other models.

    Needs a target with a ``keras_model``: a functional model, or an ensemble with ``members`` that are.

    Args:
        gamma: factor on the gradient through each residual branch, in (0, 1]; 1 is MI-FGSM.

    Raises:
        InputError: ``gamma`` above 1; when called, a target without residual Keras layers.
    """

    name: ClassVar[str] = "SGM"
    gamma: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma > 1:
            raise InputError(f"{self.name}: gamma is at most 1; got {self.gamma:g}.")

    def __call__(
        self, objective: Objective, images: tensorflow.Tensor, labels: tensorflow.Tensor, seed: int
    ) -> tensorflow.Tensor:
        decayed = _decayed_objective(objective, self.gamma)
        queries, gradients = decayed.queries, decayed.gradients
        adversarial = super().__call__(decayed, images, labels, seed)
        objective.count(decayed.queries - queries, decayed.gradients - gradients)
        return adversarial


def decay_residual_gradients(model: keras.Model, gamma: float) -> keras.Model:
    """A functional model with the same layers, weights and outputs, but other gradients.

    Where an ``Add`` joins a skip connection and a residual branch, the gradient into the branch is
    multiplied by ``gamma``. The branch is the input that more layers lead to.

    Raises:
        InputError: the model is not functional or has no such ``Add``.
    """
    import keras
    import tensorflow as tf

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
    """Layers on the longest path from an input to a symbolic tensor."""
    known: dict[int, int] = {}

    def depth(t: keras.KerasTensor) -> int:
        if id(t) not in known:
            operation, node_index, _ = t._keras_history
            parents = operation._inbound_nodes[node_index].input_tensors
            known[id(t)] = 1 + max((depth(parent) for parent in parents), default=0)
        return known[id(t)]

    return depth(tensor)


@functools.lru_cache(maxsize=1)  # batches of one run share the compiled gradient
def _decayed_objective(objective: Objective, gamma: float) -> Objective:
    from ncen_tf.attack.objectives import Objective

    model = getattr(objective.target, "keras_model", None)
    if model is None:
        raise InputError(f"SGM needs a Keras model; {objective.target.description} is none.")
    members = [decay_residual_gradients(member, gamma) for member in getattr(model, "members", [model])]
    return Objective(_DecayedTarget(objective.target, members), objective.name)


class _DecayedTarget:
    """A target's twin with other gradients."""

    gives_logits = True

    def __init__(self, target: Target, members: list[Any]) -> None:
        self.description, self.sha256 = target.description, target.sha256
        self.providers = target.providers
        self.image_shape, self.classes, self.members = target.image_shape, target.classes, len(members)
        self._models = members

    def member_logits(self, images: tensorflow.Tensor) -> tensorflow.Tensor:
        import tensorflow as tf

        return tf.stack([model(images, training=False) for model in self._models], axis=1)
