"""Whether adversarial training works: a longer attack than the one it trains on, after every epoch."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from ncen_tf.data.dataset import Split
from ncen_tf.data.pipeline import evaluation_batches
from ncen_tf.ensembles.adversarial import AdversarialTraining
from ncen_tf.ensembles.adversary import ascend, cross_entropy_to_raise
from ncen_tf.ensembles.penalties import mean_probabilities

EXAMPLES = 500
STEPS = 10
"""Of PGD, eps / 4 each, or twice as many as the training adversary takes if that is more."""
TOLERATED = 0.1
"""Share of the examples that only the longer attack may break."""


class RobustnessProbe:
    """Accuracy under the training adversary and under PGD, on the first :data:`EXAMPLES` test images.

    Both raise the cross-entropy, also where training raises the divergence of TRADES.

    Nets trained on one or two attack steps can learn, within a few hundred batches, to have gradients that
    mislead so short an attack ("catastrophic overfitting", Wong et al., 2020, "Fast is better than free").
    Loss and accuracy in training then look better than ever, and robustness is gone.

    Args:
        members: models images -> logits [N, classes].
        adversary: what they are trained on.
    """

    def __init__(self, members: Sequence[keras.Model], adversary: AdversarialTraining) -> None:
        longer = AdversarialTraining(
            eps=adversary.eps, steps=max(STEPS, 2 * adversary.steps), step_size=adversary.eps / 4
        )
        adversaries = {"training_attack_accuracy": adversary, "pgd_accuracy": longer}

        @tf.function(reduce_retracing=True)
        def right(images: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
            counts = {}
            for name, attack in adversaries.items():
                losses = cross_entropy_to_raise(labels, attack.loss)
                found = ascend(attack, members, images, losses, tf.constant([0, 0]))
                logits = [member(x, training=False) for member, x in zip(members, found, strict=True)]
                predicted = tf.argmax(mean_probabilities(tf.stack(logits, axis=1)), 1, tf.int32)
                counts[name] = tf.math.count_nonzero(predicted == labels)
            return counts

        self._right = right

    def measure(self, test: Split) -> dict[str, float]:
        """``training_attack_accuracy`` and ``pgd_accuracy``, both robust accuracies in [0, 1]."""
        part = test[:EXAMPLES]
        counts = [self._right(images, labels) for images, labels in evaluation_batches(part, 100)]
        return {name: float(np.sum([count[name] for count in counts]) / len(part)) for name in counts[0]}


def warn_of_collapse(accuracies: dict[str, float]) -> str | None:
    """A sentence, if the training adversary leaves standing what PGD breaks.

    Args:
        accuracies: what :meth:`RobustnessProbe.measure` found.
    """
    trained, longer = accuracies["training_attack_accuracy"], accuracies["pgd_accuracy"]
    if trained <= longer + TOLERATED:
        return None
    return (
        "The members have learnt to mislead the attack that they are trained on: it leaves "
        f"{trained:.2f} right, PGD {longer:.2f}. Begin anew with more --at_steps or a smaller --at_step_size."
    )
