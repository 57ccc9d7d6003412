"""What is measured on test images after every epoch, by functions that are compiled once."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from ncen_tf.data.dataset import Split
from ncen_tf.data.pipeline import evaluation_batches
from ncen_tf.ensembles.adversary import ascend, cross_entropy_to_raise
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.penalties import (
    cosines_to_mean,
    input_gradients,
    l2_norm,
    l_cos,
    l_norm,
    mean_probabilities,
    norm_deviations,
    pairwise_cosines,
    stack_logits,
)
from ncen_tf.ensembles.regularizers import AdversarialTraining

logger = logging.getLogger(__name__)

PROBED_EXAMPLES = 500
PROBE_STEPS = 10
"""Steps of the probe's PGD, eps / 4 each; twice the steps of the training attack if that is more."""
TOLERATED_GAP = 0.1
"""Difference of the two robust accuracies from which the probe warns."""

Measure = Callable[[], dict[str, Any]]
"""Measures a model as it is now: fields of :class:`~ncen_tf.train.run_directory.TestMetrics` by name."""


def gradient_measurement(ensemble: Ensemble, test: Split, batch_size: int = 256) -> Measure:
    """Make a function that measures clean accuracy, and how the members' input gradients relate."""

    @tf.function(autograph=False, reduce_retracing=True)
    def totals(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        logits, ce, gradients = input_gradients(ensemble.members, [images] * len(ensemble.members), labels)
        right = tf.argmax(mean_probabilities(logits), 1, tf.int32) == labels
        member_right = tf.argmax(logits, 2, tf.int32) == labels[:, tf.newaxis]
        deviations = norm_deviations(gradients)
        return {
            "clean_accuracy": tf.math.count_nonzero(right),
            "member_accuracy": tf.math.count_nonzero(member_right, 0),
            "ce": tf.reduce_sum(tf.reduce_mean(ce, 1)),
            "l_cos": tf.reduce_sum(tf.reduce_mean(l_cos(gradients), 1)),
            "l_norm": tf.reduce_sum(tf.reduce_mean(l_norm(gradients), 1)),
            "pairwise_cosine": tf.reduce_sum(tf.reduce_mean(pairwise_cosines(gradients), 1)),
            "cosine_to_mean": tf.reduce_sum(cosines_to_mean(gradients), 0),
            "norm_deviation": tf.reduce_sum(deviations, 0),
            "squared_deviation": tf.reduce_sum(tf.reduce_mean(tf.square(deviations), 1)),
            "gradient_norm": tf.reduce_sum(l2_norm(gradients), 0),
        }

    def measure() -> dict[str, Any]:
        means = _means(totals, test, batch_size)
        means["norm_spread"] = np.sqrt(means.pop("squared_deviation"))
        return {name: mean.tolist() for name, mean in means.items()}

    return measure


def robustness_measurement(ensemble: Ensemble, trained: AdversarialTraining, test: Split) -> Measure:
    """Make a function that measures whether adversarial training works, and warns if it has collapsed.

    Members trained on one or two attack steps can learn to mislead so short an attack ("catastrophic
    overfitting", Wong et al., 2020, "Fast is better than free"): loss and accuracy in training look better
    than ever, and robustness is gone. So the accuracy under the training attack is compared with that under
    PGD with more steps, on the first :data:`PROBED_EXAMPLES` images. Both raise the cross-entropy, also where
    training raises the divergence of TRADES.
    """
    steps = max(PROBE_STEPS, 2 * trained.steps)
    longer = AdversarialTraining(eps=trained.eps, steps=steps, step_size=trained.eps / 4)
    attacks = {"training_attack_accuracy": trained, "pgd_accuracy": longer}

    @tf.function(autograph=False, reduce_retracing=True)
    def right(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        counts = {}
        for name, attack in attacks.items():
            losses = cross_entropy_to_raise(labels, attack.loss)
            found = ascend(attack, ensemble.members, images, losses, tf.constant([0, 0]))
            logits = stack_logits(ensemble.members, found, training=False)
            predicted = tf.argmax(mean_probabilities(logits), 1, tf.int32)
            counts[name] = tf.math.count_nonzero(predicted == labels)
        return counts

    def measure() -> dict[str, float]:
        means = _means(right, test[:PROBED_EXAMPLES], 100)
        accuracies = {name: float(mean) for name, mean in means.items()}
        if accuracies["training_attack_accuracy"] > accuracies["pgd_accuracy"] + TOLERATED_GAP:
            logger.warning(
                "The members have learnt to mislead the attack that they are trained on: accuracy is %.2f "
                "under that attack, %.2f under PGD with more steps. Start anew with more steps or a smaller "
                "step size in the training attack.",
                accuracies["training_attack_accuracy"],
                accuracies["pgd_accuracy"],
            )
        return accuracies

    return measure


def _means(compute: Callable[..., dict[str, tf.Tensor]], test: Split, batch_size: int) -> dict[str, Any]:
    """Add up what a function computes of each batch, and divide it by the number of images."""
    batches = [compute(images, labels) for images, labels in evaluation_batches(test, batch_size)]
    sums = {name: np.sum([batch[name] for batch in batches], axis=0) for name in batches[0]}
    return {name: total / len(test) for name, total in sums.items()}
