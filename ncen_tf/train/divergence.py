"""Where NaN and infinity came from: the step, the part of the loss and the member."""

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.penalties import input_gradients
from ncen_tf.train.checkpoint import NonFiniteStateError, RunCheckpoint
from ncen_tf.train.steps import TrainingSteps


def require_finite(figures: Mapping[str, float | list[float]]) -> None:
    """Refuse NaN and infinity among named figures.

    Raises:
        NonFiniteStateError: names the first such figure.
    """
    for name, value in figures.items():
        if not all(map(math.isfinite, value if isinstance(value, list) else [value])):
            raise NonFiniteStateError(name)


def trace_divergence(
    ensemble: Ensemble,
    steps: TrainingSteps,
    checkpoint: RunCheckpoint,
    symptom: NonFiniteStateError,
    examined_steps: int,
) -> str:
    """Repeat the steps since the newest checkpoint and say which one is the first to go wrong.

    The ensemble is of no use afterwards; checkpoints stay as they are.

    Args:
        ensemble: what diverged.
        steps: its steps.
        checkpoint: of the run; there is at least one.
        symptom: what was noticed.
        examined_steps: how far before the symptom the cause can be.

    Returns:
        One sentence.
    """
    failed = checkpoint.number
    checkpoint.restore()
    first, cause = checkpoint.step, None
    failed -= checkpoint.epoch * steps.per_epoch  # each epoch begins with a checkpoint
    for step, (images, labels) in enumerate(steps.batches(checkpoint.epoch, first), first + 1):
        if step > failed - examined_steps:
            cause = explain_divergence(ensemble, images, labels)
        if cause or step >= failed:
            break
        steps.take(images, labels, steps.learning_rate(checkpoint.epoch, step - 1))
    when = f"at step {step}" if cause else f"by step {failed}"
    return (
        f"Training diverged {when} of epoch {checkpoint.epoch + 1}: {cause or f'{symptom} is not finite'}. "
        f"The checkpoint after {checkpoint.number} steps in all is the last good one. In another --run_dir, "
        "try a lower --learning_rate, a weaker regularizer or --precision=float32."
    )


def explain_divergence(ensemble: Ensemble, images: tf.Tensor, labels: tf.Tensor) -> str | None:
    """Name the parts of the loss that are not finite on a batch, and the members behind it.

    Args:
        ensemble: as it was before the step, and is again.
        images: float32 [N, H, W, C].
        labels: integer [N].

    Returns:
        For example ``"ce is not finite, because of member 1"``; ``None`` if loss and gradients are finite.
    """
    key = ensemble.attack_key(replica=0)
    # The adversary goes by the moving statistics, which every pass in training mode moves.
    statistics = [tf.identity(variable.value) for variable in ensemble.non_trainable_variables]
    trained_on, _ = ensemble.views(images, labels, key)
    weight_gradients, _, parts, _ = ensemble.loss_and_gradients(images, labels, None, len(images), key)
    _, ce, image_gradients = input_gradients(
        ensemble.members, trained_on, labels, ensemble.ce_on, training=True
    )
    for variable, value in zip(ensemble.non_trainable_variables, statistics, strict=True):
        variable.assign(value)
    of_variable = {id(v): g for v, g in zip(ensemble.trainable_variables, weight_gradients, strict=True)}
    of_member = [[of_variable[id(v)] for v in member.trainable_variables] for member in ensemble.members]
    squares = tf.square(image_gradients)  # overflow before the gradients do
    # A term that compares members makes the weight gradients of all of them NaN: look there last.
    symptoms = (tf.unstack(ce, axis=1), tf.unstack(squares, axis=1), of_member)
    found = ([i for i, values in enumerate(members) if not _finite(values)] for members in symptoms)
    members = next(filter(None, found), [])
    names = [name for name, values in parts.items() if not _finite(values)]
    if not members and not names:
        return None
    what = (
        f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}" if names else "the loss's gradient is"
    )
    source = f", because of member {' and '.join(map(str, members))}" if members else ""
    return f"{what} not finite{source}"


def _finite(values: Any) -> bool:
    return all(bool(tf.reduce_all(tf.math.is_finite(tensor))) for tensor in tf.nest.flatten(values))
