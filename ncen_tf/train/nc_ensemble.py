"""The Keras model whose train_step nests gradient tapes."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.ensemble import Ensemble, mean_probabilities
from ncen_tf.ensembles.regularizer import GradientRegularizer, PredictionRegularizer, Regularizer
from ncen_tf.train.adversarial_training import AdversarialTraining
from ncen_tf.train.input_gradients import CrossEntropyOn, input_gradients, member_cross_entropies


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
        self.adversarial_training: AdversarialTraining | None = None
        self._trackers: dict[str, keras.metrics.Mean] = {}

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        regularizer: Regularizer | None = None,
        ce_on: CrossEntropyOn = "logits",
        adversarial_training: AdversarialTraining | None = None,
        seed: int = 0,
        jit_compile: bool = False,
        **kwargs: Any,
    ) -> None:
        """Choose what is minimised.

        Args:
            optimizer: a Keras optimizer, for all members together.
            regularizer: penalty on how members relate; ``None`` trains on cross-entropy only.
            ce_on: ``logits``, or ``probabilities`` as in the authors' released code.
            adversarial_training: train against an adversary; ``None`` trains on the images as they are.
            seed: of the adversary's random starts, in [0, 2^31).
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
        self.adversarial_training = adversarial_training
        self.seed = seed
        self._compiled_gradients = (
            tf.function(self.loss_and_gradients, jit_compile=True) if jit_compile else self.loss_and_gradients
        )
        terms = list(self.regularizer.term_names) if self.regularizer else []
        if adversarial_training is not None and adversarial_training.form == "trades":
            terms.append("divergence")
        self._trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "ce", *terms, "ace")}

    def get_compile_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.optimizer),
            "regularizer": serialize(self.regularizer),
            "ce_on": self.ce_on,
            "adversarial_training": serialize(self.adversarial_training),
            "seed": self.seed,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """loss, ce, the regularizer's terms, and ace, the ensemble's accuracy on the images it is given."""
        return list(self._trackers.values())

    def losses_per_example(
        self, images: Sequence[tf.Tensor], labels: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        """Loss of each example, its named parts, and the members' logits.

        Args:
            images: float32 [N, H, W, C] for each member.
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
            logits = self._member_logits(images, training)
            ce = member_cross_entropies(logits, labels, self.ce_on)
            if isinstance(regularizer, PredictionRegularizer):
                penalty = regularizer(logits, labels)
        ce = tf.reduce_mean(ce, axis=1)
        if penalty is None:
            return ce, {"ce": ce}, logits
        return ce + penalty.value, {"ce": ce} | penalty.terms, logits

    def _member_logits(self, images: Sequence[tf.Tensor], training: bool) -> tf.Tensor:
        outputs = [member(x, training=training) for member, x in zip(self.members, images, strict=True)]
        return tf.stack(outputs, axis=1)

    def loss_and_gradients(
        self, images: tf.Tensor, labels: tf.Tensor, global_batch: tf.Tensor, key: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor, dict[str, tf.Tensor], tf.Tensor]:
        """What a training step computes before it changes the weights.

        Args:
            images: float32 [N, H, W, C].
            labels: integer [N].
            global_batch: number of images over all replicas.
            key: :meth:`attack_key` of the replica.

        Returns:
            Gradients of the weights, loss [N], its named parts, and logits [N, k, classes].
        """
        scheme = self.adversarial_training
        trained_on, attacked = self.views(images, labels, key)
        with tf.GradientTape() as tape:
            losses, parts, logits = self.losses_per_example(trained_on, labels, training=True)
            if scheme is not None and scheme.form == "trades":
                divergence = scheme.divergence(logits, self._member_logits(attacked, training=True))
                losses += scheme.beta * divergence
                parts["divergence"] = divergence
            # The optimizer sums over replicas, so each contributes its share of the global mean.
            loss = tf.reduce_sum(losses) / tf.cast(global_batch, losses.dtype)
        return tape.gradient(loss, self.trainable_variables), losses, parts, logits

    def views(
        self, images: tf.Tensor, labels: tf.Tensor, key: tf.Tensor
    ) -> tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]:
        """Images of each member: what its cross-entropy is taken of, and the adversary's if there is one.

        Args:
            images: float32 [N, H, W, C].
            labels: integer [N].
            key: :meth:`attack_key` of the replica.
        """
        scheme, clean = self.adversarial_training, [images] * len(self.members)
        attacked = scheme.attack(self.members, images, labels, key) if scheme else clean
        return (attacked if scheme is not None and scheme.form == "pgd" else clean), attacked

    def attack_key(self, replica: tf.Tensor | int) -> tf.Tensor:
        """Decides the adversary's starts: by seed, step and replica alone, so a resumed run repeats them."""
        return tf.random.fold_in(tf.stack([self.seed, replica]), tf.cast(self.optimizer.iterations, tf.int32))

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = self._unpack(data)
        global_batch = tf.distribute.get_replica_context().all_reduce("SUM", tf.shape(images)[0])
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        gradients, losses, parts, logits = self._compiled_gradients(
            images, labels, global_batch, self.attack_key(replica)
        )
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._track(losses, parts, logits, labels)

    def test_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        images, labels = self._unpack(data)
        views = [images] * len(self.members)
        losses, parts, logits = self.losses_per_example(views, labels, training=False)
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
        measured = {"loss": losses, "ace": ace} | parts
        for name, values in measured.items():
            self._trackers[name].update_state(values)
        return {name: tracker.result() for name, tracker in self._trackers.items() if name in measured}
