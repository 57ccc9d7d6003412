"""The ensemble: a Keras model that trains and predicts with all its members."""

import copy
import functools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.batch_norm import replica_has_images
from ncen_tf.ensembles.inputs import (
    Batch,
    checked_images,
    float_images,
    read_batch,
    weighted,
    with_input_errors,
)
from ncen_tf.ensembles.losses import attack_key, loss_and_gradients, losses_per_example, members_own_loss
from ncen_tf.ensembles.members import (
    all_layers,
    build_member,
    check_members,
    keep_activation_slopes,
    warn_of_second_derivatives,
)
from ncen_tf.ensembles.penalties import CrossEntropyOn, mean_probabilities, stack_logits
from ncen_tf.ensembles.regularizers import AdversarialTraining, GradientRegularizer, Regularizer
from ncen_tf.ensembles.structures import parse_architecture


@keras.saving.register_keras_serializable("ncen_tf")
class Ensemble(keras.Model):
    """Classifiers that are trained together and predict the mean of their softmax outputs.

    One optimizer step updates all members (Luo et al., Alg. 3). The loss is the mean of the members'
    cross-entropies, plus the penalty of a regularizer (Eq. 9), plus the losses that the members carry
    themselves, such as a ``kernel_regularizer``.

    Calling the model, ``predict`` and ``evaluate`` give probabilities float32 [N, classes] for images
    [N, H, W, C], which are floats in [0, 1] or uint8.

    ``keras.saving.load_model`` reads a saved ensemble once this class is imported; ``ncen_tf.load_ensemble``
    checks the file as well.

    Args:
        members: At least two distinct Keras models, each images [N, H, W, C] -> logits [N, classes].
        **kwargs: Passed to ``keras.Model``.

    Raises:
        InputError: The members are fewer than two, not distinct, differ in their shapes, or end in softmax.

    Examples:
        >>> import keras, ncen_tf, numpy as np
        >>> def member():
        ...     layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(4)]
        ...     return keras.Sequential(layers)
        >>> ensemble = ncen_tf.Ensemble([member(), member()])
        >>> ensemble.compile("adam", ncen_tf.NCE(0.02, 0.02), metrics=["sparse_categorical_crossentropy"])
        >>> images, labels = np.random.default_rng(0).random((32, 8, 8, 1), np.float32), np.arange(32) % 4
        >>> history = ensemble.fit(images, labels, verbose=0)
        >>> ensemble.predict(images, verbose=0).shape
        (32, 4)
    """

    train_function: Any
    test_function: Any
    predict_function: Any

    def __init__(self, members: Sequence[keras.Model], **kwargs: Any) -> None:
        check_members(list(members))
        keep_activation_slopes()
        # The members cast the images themselves, each to its own compute precision.
        super().__init__(**{"autocast": False} | kwargs)
        self.members = list(members)
        self.built = True
        self.regularizer: Regularizer | None = None
        self.ce_on: CrossEntropyOn = "logits"
        self.adversarial_training: AdversarialTraining | None = None
        self._trackers: dict[str, keras.metrics.Mean] = {}

    # Prediction

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return mean_probabilities(self.member_logits(images, training))

    def member_logits(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Compute the logits float32 [N, k, classes] of images [N, H, W, C], floats in [0, 1] or uint8."""
        return stack_logits(self.members, [float_images(images)] * len(self.members), training)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.members[0].output_shape[-1])

    # Training

    def compile(
        self,
        optimizer: keras.optimizers.Optimizer | str = "adam",
        regularizer: Regularizer | None = None,
        *,
        ce_on: CrossEntropyOn = "logits",
        adversarial_training: AdversarialTraining | None = None,
        metrics: Sequence[Any] | None = None,
        weighted_metrics: Sequence[Any] | None = None,
        seed: int = 0,
        jit_compile: bool = False,
        loss: None = None,
        **kwargs: Any,
    ) -> None:
        """Choose what training minimises and reports.

        ``fit`` and ``evaluate`` always report ``loss``, ``ce`` (mean cross-entropy of the members), the terms
        of the regularizer without their weights, and ``accuracy`` (of the ensemble, on the images that it is
        given); ``fit`` with TRADES also ``divergence``.

        Args:
            optimizer: Keras optimizer for all members together.
            regularizer: Penalty on how the members relate; ``None`` trains on cross-entropy only.
            ce_on: ``logits``, or ``probabilities`` as in the authors' released code.
            adversarial_training: Settings of adversarial training; ``None`` trains on clean images.
            metrics: Keras metrics of the ensemble's probabilities [N, classes] and the labels [N].
            weighted_metrics: The same, with sample and class weights.
            seed: Seed of the attack's random starts, in [0, 2^31).
            jit_compile: Whether to compile loss and gradients with XLA.
            loss: Must be ``None``: the loss follows from ``regularizer`` and ``adversarial_training``.
            **kwargs: Passed to ``keras.Model.compile``.

        Raises:
            InputError: A value cannot be used.
        """
        if loss is not None:
            raise InputError(
                "`loss` cannot be chosen: an ensemble minimises the mean cross-entropy of its members plus "
                "the penalty of `regularizer`."
            )
        for name, value, kind in (
            ("regularizer", regularizer, Regularizer),
            ("adversarial_training", adversarial_training, AdversarialTraining),
        ):
            if value is not None and not isinstance(value, kind):
                raise InputError(f"`{name}` must be of type {kind.__name__}, got {value!r}.")
        if ce_on not in ("logits", "probabilities"):
            raise InputError(f"`ce_on` must be 'logits' or 'probabilities', got {ce_on!r}.")
        layers = [layer for member in self.members for layer in all_layers(member)]
        if any(layer.compute_dtype == "float16" for layer in layers):
            optimizer = keras.optimizers.get(optimizer)
            if not isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        # The step as a whole is not compiled with XLA: updates under several replicas have no XLA kernel.
        super().compile(
            optimizer, metrics=metrics, weighted_metrics=weighted_metrics, jit_compile=False, **kwargs
        )
        if isinstance(regularizer, GradientRegularizer):
            warn_of_second_derivatives(self.members)
        self.regularizer = regularizer
        self.ce_on = ce_on
        self.adversarial_training = adversarial_training
        self.seed = seed
        self._compiles_gradients = jit_compile
        gradients = functools.partial(loss_and_gradients, self)
        self._gradients = tf.function(gradients, jit_compile=True) if jit_compile else gradients
        terms = list(regularizer.term_names) if regularizer else []
        if adversarial_training is not None and adversarial_training.form == "trades":
            terms.append("divergence")
        self._trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "ce", *terms, "accuracy")}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics that ``compile`` describes."""
        own: list[keras.metrics.Metric] = list(self._trackers.values())
        return own + ([self._compile_metrics] if self._compile_metrics is not None else [])

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        batch = self._unpack(data)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        with replica_has_images(batch.count > 0):
            gradients, losses, parts, logits = self._gradients(
                batch.images, batch.labels, batch.weights, batch.global_count, attack_key(self, replica)
            )
        if gradients:
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return self._track(losses, parts, logits, batch)

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        batch = self._unpack(data)
        views = [batch.images] * len(self.members)
        losses, parts, logits = losses_per_example(self, views, batch.labels, training=False)
        members_own = members_own_loss(self)
        losses, parts = weighted(losses, parts, batch.weights)
        if members_own is not None:
            losses += members_own
        return self._track(losses, parts, logits, batch)

    def predict_step(self, data: Any) -> tf.Tensor:
        images = checked_images(keras.utils.unpack_x_y_sample_weight(data)[0])
        count = tf.shape(images)[0]
        missing = tf.cast(count == 0, tf.int32)  # a replica's share of a small batch: see read_batch
        filled = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        return self(filled, training=False)[:count]

    def _unpack(self, data: Any) -> Batch:
        images, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        if labels is None:
            raise InputError("An ensemble is trained and evaluated on labelled images: no labels were given.")
        return read_batch(images, labels, weights, self.classes)

    def _track(
        self, losses: tf.Tensor, parts: dict[str, tf.Tensor], logits: tf.Tensor, batch: Batch
    ) -> dict[str, tf.Tensor]:
        """Update the metrics with the examples that were given."""
        labels, probabilities = batch.labels[: batch.count], mean_probabilities(logits[: batch.count])
        predicted = tf.argmax(probabilities, axis=1, output_type=tf.int32)
        measured = {"loss": losses, "accuracy": tf.cast(predicted == labels, tf.float32)} | parts
        for name, values in measured.items():
            self._trackers[name].update_state(values[: batch.count])
        results = {name: tracker.result() for name, tracker in self._trackers.items() if name in measured}
        if self._compile_metrics is not None:
            weights = None if batch.weights is None else batch.weights[: batch.count]
            self._compile_metrics.update_state(labels, probabilities, sample_weight=weights)
            results |= self._compile_metrics.result()
        return results

    def make_train_function(self, force: bool = False) -> None:
        if force or self.train_function is None:
            super().make_train_function(force)
            self.train_function = with_input_errors(self.train_function)

    def make_test_function(self, force: bool = False) -> None:
        if force or self.test_function is None:
            super().make_test_function(force)
            self.test_function = with_input_errors(self.test_function)

    def make_predict_function(self, force: bool = False) -> None:
        if force or self.predict_function is None:
            super().make_predict_function(force)
            self.predict_function = with_input_errors(self.predict_function)

    # Saving

    def get_config(self) -> dict[str, Any]:
        members = [keras.saving.serialize_keras_object(member) for member in self.members]
        return {"name": self.name, "trainable": self.trainable, "members": members}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Ensemble":
        config = copy.deepcopy(config)  # Keras empties the configurations of functional models.
        members = [keras.saving.deserialize_keras_object(member) for member in config.pop("members")]
        return cls(members, **config)

    def get_compile_config(self) -> dict[str, Any] | None:
        config = super().get_compile_config()
        if not config:
            return None
        own = {
            "regularizer": self.regularizer,
            "ce_on": self.ce_on,
            "adversarial_training": self.adversarial_training,
            "seed": self.seed,
            "jit_compile": self._compiles_gradients,
        }
        own = {name: keras.saving.serialize_keras_object(value) for name, value in own.items()}
        return {name: value for name, value in config.items() if "loss" not in name} | own

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**{k: keras.saving.deserialize_keras_object(v) for k, v in config.items()})
        self.optimizer.build(self.trainable_variables)


def build_ensemble(
    members: Sequence[str],
    image_shape: tuple[int, int, int],
    classes: int = 10,
    *,
    sync_batch_norm: bool = False,
    seed: int | None = None,
) -> Ensemble:
    """Build an ensemble of untrained members.

    Args:
        members: At least two names: ``resnet<depth>`` with depth 6n+2; a Keras application, such as
            ``mobilenet_v2``, which is built without its preprocessing; or ``module:function``, a function
            (image_shape, classes) -> Keras model of logits.
        image_shape: (height, width, channels).
        classes: Number of classes.
        sync_batch_norm: Whether BatchNorm takes its statistics over all replicas.
        seed: Seed from which each member draws its own initial weights; ``None`` draws other weights each
            time.

    Raises:
        InputError: There are fewer than two members, a name is unknown, or a member cannot be built.

    Examples:
        >>> import ncen_tf
        >>> ensemble = ncen_tf.build_ensemble(["resnet8"] * 3, (28, 28, 1), seed=0)
        >>> [member.name for member in ensemble.members]
        ['member_0_resnet8', 'member_1_resnet8', 'member_2_resnet8']
    """
    return Ensemble(
        [
            build_member(
                name,
                image_shape,
                classes,
                sync_batch_norm=sync_batch_norm,
                seed=None if seed is None else seed * 1000 + index,
                name=f"member_{index}_{name}",
            )
            for index, name in enumerate(parse_architecture(list(members)))
        ]
    )
