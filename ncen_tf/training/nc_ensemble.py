"""The Keras model whose train_step nests gradient tapes."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from ncen_tf.errors import InputError
from ncen_tf.models.ensemble import Ensemble, mean_probabilities
from ncen_tf.regularizers.regularizer import GradientRegularizer, PredictionRegularizer, Regularizer

CrossEntropyOn = Literal["logits", "probabilities"]


def member_cross_entropies(
    member_logits: tf.Tensor, labels: tf.Tensor, ce_on: CrossEntropyOn = "logits"
) -> tf.Tensor:
    """Cross-entropy of each member on each example: [N, k, classes], int [N] -> [N, k].

    ``ce_on="probabilities"`` feeds the softmax output to the cross-entropy as if it were logits: what
    the authors' released code does.
    """
    scores = member_logits if ce_on == "logits" else tf.nn.softmax(member_logits)
    labels = tf.repeat(labels[:, tf.newaxis], scores.shape[1], axis=1)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)


def input_gradients(
    members: Sequence[keras.Model],
    images: tf.Tensor,
    labels: tf.Tensor,
    ce_on: CrossEntropyOn = "logits",
    training: bool = False,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradient of each member's cross-entropy with respect to the images, itself differentiable.

    Args:
        members: models images -> logits [N, classes].
        images: float [N, H, W, C].
        labels: integer [N].
        ce_on: what the cross-entropy is taken on.
        training: BatchNorm mode.

    Returns:
        Logits [N, k, classes], cross-entropies [N, k] and gradients [N, k, H*W*C].
    """
    # Each member gets a copy of the images, so that one reverse pass keeps their gradients apart.
    copies = [tf.identity(images) for _ in members]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(copies)
        outputs = [member(x, training=training) for member, x in zip(members, copies, strict=True)]
        logits = tf.stack(outputs, axis=1)
        ce = member_cross_entropies(logits, labels, ce_on)
        total = tf.reduce_sum(ce)
    flat = [tf.reshape(gradient, [tf.shape(images)[0], -1]) for gradient in tape.gradient(total, copies)]
    return logits, ce, tf.ensure_shape(tf.stack(flat, axis=1), [None, len(members), None])


@keras.saving.register_keras_serializable("ncen_tf")
class NCEnsemble(Ensemble):
    """An ensemble whose members are trained together, one optimizer step for all (Luo et al., Alg. 3).

    Loss = mean over members of the cross-entropy + penalty of the regularizer (Eq. 9). Works with
    plain ``compile`` and ``fit`` on images float32 [N, H, W, C] in [0, 1] and integer labels [N].

    Args:
        members: at least two models, each images -> logits [N, classes].
    """

    def __init__(self, members: Sequence[keras.Model], **kwargs: Any) -> None:
        super().__init__(members, **kwargs)
        self.regularizer: Regularizer | None = None
        self.ce_on: CrossEntropyOn = "logits"
        self._trackers: dict[str, keras.metrics.Mean] = {}

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        regularizer: Regularizer | None = None,
        ce_on: CrossEntropyOn = "logits",
        jit_compile: bool = False,
        **kwargs: Any,
    ) -> None:
        """Choose what is minimised.

        Args:
            optimizer: a Keras optimizer, for all members together.
            regularizer: penalty on how members relate; ``None`` trains on cross-entropy only.
            ce_on: ``logits``, or ``probabilities`` as in the authors' released code.
            jit_compile: compile loss and gradients with XLA.
            **kwargs: passed to ``keras.Model.compile``.

        Raises:
            InputError: an unknown ``ce_on``.
        """
        if ce_on not in ("logits", "probabilities"):
            raise InputError(f"ce_on is 'logits' or 'probabilities'; got {ce_on!r}.")
        # The step as a whole is not XLA-compiled: updates under several replicas have no XLA kernel.
        super().compile(optimizer=optimizer, jit_compile=False, **kwargs)
        self.regularizer = regularizer
        self.ce_on = ce_on
        self._compiled_gradients = (
            tf.function(self._loss_and_gradients, jit_compile=True)
            if jit_compile
            else self._loss_and_gradients
        )
        terms = self.regularizer.term_names if self.regularizer else ()
        self._trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "ce", *terms, "ace")}

    def get_compile_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.optimizer),
            "regularizer": serialize(self.regularizer),
            "ce_on": self.ce_on,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """loss, ce, the regularizer's terms, and ace, the ensemble's accuracy."""
        return list(self._trackers.values())

    def losses_per_example(
        self, images: tf.Tensor, labels: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        """Loss of each example, its named parts, and the members' logits.

        Args:
            images: float32 [N, H, W, C].
            labels: integer [N].
            training: BatchNorm mode.

        Returns:
            Loss [N]; ``{"ce": [N], term: [N], ...}``; logits [N, k, classes].
        """
        regularizer, penalty = self.regularizer, None
        if isinstance(regularizer, GradientRegularizer):
            logits, ce, gradients = input_gradients(self.members, images, labels, self.ce_on, training)
            penalty = regularizer(gradients)
        else:
            logits = self(images, training=training)
            ce = member_cross_entropies(logits, labels, self.ce_on)
            if isinstance(regularizer, PredictionRegularizer):
                penalty = regularizer(logits, labels)
        ce = tf.reduce_mean(ce, axis=1)
        if penalty is None:
            return ce, {"ce": ce}, logits
        return ce + penalty.value, {"ce": ce} | penalty.terms, logits

    def _loss_and_gradients(
        self, images: tf.Tensor, labels: tf.Tensor, global_batch: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        with tf.GradientTape() as tape:
            losses, parts, logits = self.losses_per_example(images, labels, training=True)
            # The optimizer sums over replicas, so each contributes its share of the global mean.
            loss = tf.reduce_sum(losses) / tf.cast(global_batch, losses.dtype)
        return tape.gradient(loss, self.trainable_variables), losses, parts, logits

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = self._unpack(data)
        global_batch = tf.distribute.get_replica_context().all_reduce("SUM", tf.shape(images)[0])
        gradients, losses, parts, logits = self._compiled_gradients(images, labels, global_batch)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._track(losses, parts, logits, labels)

    def test_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = self._unpack(data)
        losses, parts, logits = self.losses_per_example(images, labels, training=False)
        return self._track(losses, parts, logits, labels)

    @staticmethod
    def _unpack(data: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if labels is None or weights is not None:
            raise InputError("An ensemble is fitted on (images, labels), without sample weights.")
        return tf.cast(images, keras.config.floatx()), tf.reshape(tf.cast(labels, tf.int32), [-1])

    def _track(
        self,
        losses: tf.Tensor,
        parts: dict[str, tf.Tensor],
        logits: tf.Tensor,
        labels: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        predicted = tf.argmax(mean_probabilities(logits), axis=1, output_type=tf.int32)
        ace = tf.cast(predicted == labels, tf.float32)
        for name, values in ({"loss": losses, "ace": ace} | parts).items():
            self._trackers[name].update_state(values)
        return {name: tracker.result() for name, tracker in self._trackers.items()}
