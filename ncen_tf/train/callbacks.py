"""Keras callbacks of ensembles, for ``ensemble.fit(..., callbacks=[...])`` and for :func:`train_ensemble`."""

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.data.pipeline import evaluation_batches
from ncen_tf.ensembles.adversary import ascend, cross_entropy_to_raise
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
from ncen_tf.train.run_directory import (
    checkpoint_file,
    checkpoint_steps,
    newest_intact,
    write_checkpoint,
)
from ncen_tf.train.weight_average import WeightAverage

logger = logging.getLogger(__name__)

PROBED_EXAMPLES = 500
PROBE_STEPS = 10
"""Steps of the probe's PGD, eps / 4 each; twice the steps of the training attack if that is more."""
TOLERATED_GAP = 0.1
"""Difference of the two robust accuracies from which the probe warns."""

Logs = dict[str, Any]


class DivergedError(InputError):
    """Training produced NaN or infinity."""


class Checkpoint(keras.callbacks.Callback):
    """Save everything that training needs to go on as if it had never stopped, and restore it.

    Saves weights, optimizer state, running metrics and the position in the data, after every epoch and every
    ``every`` steps within an epoch. When training begins, the newest intact checkpoint is restored, and
    ``fit`` goes on with the epoch after it. ``fit`` cannot start within an epoch: leave ``every`` out there.

    Args:
        folder: Folder of the checkpoints; the newest two are kept.
        every: Number of steps between checkpoints within an epoch; ``None`` saves after epochs only.
        average: Moving average of the weights, which is saved and restored too.

    Raises:
        InputError: When training begins: all checkpoints are damaged, or the newest is within an epoch and
            ``every`` is ``None``.
        DivergedError: When a checkpoint is to be saved: weights or optimizer state are not finite.
    """

    def __init__(
        self, folder: Path | str, every: int | None = None, average: WeightAverage | None = None
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.every = every
        self.average = average
        self.epoch = self.step = 0
        """Position: epochs that are complete, and steps of the current one."""
        self._is_restored = False

    @property
    def saved_steps(self) -> int:
        """Number of steps after which the newest checkpoint was saved."""
        return max(checkpoint_steps(self.folder), default=0)

    def restore(self, model: keras.Model) -> bool:
        """Restore a compiled model from the newest intact checkpoint and remove damaged newer ones.

        Returns:
            Whether there was one.

        Raises:
            InputError: All checkpoints are damaged, or of another model.
        """
        self._is_restored = True
        found = newest_intact(self.folder)
        if found is None:
            return False
        number, arrays = found
        variables = self._state(model)
        fitting = {name for name, v in variables.items() if name in arrays and arrays[name].shape == v.shape}
        if fitting != variables.keys() or not {"epoch", "step"} <= arrays.keys():
            raise InputError(f"The checkpoints in {self.folder} are of another model.")
        for name, variable in variables.items():
            variable.assign(arrays[name])
        self.epoch, self.step = int(arrays["epoch"]), int(arrays["step"])
        for later in checkpoint_steps(self.folder):
            if later > number:
                checkpoint_file(self.folder, later).unlink(missing_ok=True)
        return True

    def _state(self, model: keras.Model) -> dict[str, Any]:
        groups: dict[str, list[Any]] = {
            "weights": model.variables,
            "optimizer": model.optimizer.variables,
            "metrics": [variable for metric in model.metrics for variable in metric.variables],
        }
        if self.average is not None:
            self.average.set_model(model)
            groups["average"] = self.average.averages
        return {f"{name}/{i}": v for name, variables in groups.items() for i, v in enumerate(variables)}

    def save(self) -> None:
        """Write a checkpoint now.

        Raises:
            DivergedError: Weights or optimizer state are not finite.
            OSError: The file cannot be written.
        """
        state = self._state(self.model)
        arrays = {name: np.asarray(tf.convert_to_tensor(v)) for name, v in state.items()}
        arrays |= {"epoch": np.array(self.epoch), "step": np.array(self.step)}
        wrong = sorted({name.partition("/")[0] for name, a in arrays.items() if not np.isfinite(a).all()})
        if wrong:
            raise _diverged(self.model, wrong, self.epoch, self.step)
        write_checkpoint(self.folder, int(as_number(self.model.optimizer.iterations)), arrays)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        if not self._is_restored:
            self.restore(self.model)
            if self.step:
                raise InputError(f"The newest checkpoint in {self.folder} is within an epoch.")
            self.model._initial_epoch = self.epoch  # as keras.callbacks.BackupAndRestore does
        if not checkpoint_steps(self.folder):
            self.save()  # shows now, not after hours, whether the folder can be written

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.step = batch + 1
        if self.every and self.step % self.every == 0 and self.step != self.params.get("steps"):
            self.save()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch, self.step = epoch + 1, 0
        self.save()


def as_number(variable: Any) -> float:
    """Read a scalar that may be a distributed variable."""
    return float(tf.convert_to_tensor(variable))


class StopOnNaN(keras.callbacks.Callback):
    """Stop training when a metric is NaN or infinite.

    Place it after callbacks that add measurements to the logs, and before those that save them.

    Raises:
        DivergedError: When that happens; names step, parts of the loss and members.
    """

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch, self._step = epoch, 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step = batch + 1
        self._check(logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._check(logs or {})

    def _check(self, logs: Mapping[str, Any]) -> None:
        wrong = [name for name, value in logs.items() if not math.isfinite(value)]
        if wrong:
            raise _diverged(self.model, wrong, self._epoch, self._step)


def _diverged(model: keras.Model, wrong: list[str], epoch: int, step: int) -> DivergedError:
    parts = [name for name in wrong if name != "loss"] or wrong
    members = [
        str(index)
        for index, member in enumerate(getattr(model, "members", []))
        if not all(np.isfinite(weight).all() for weight in member.get_weights())
    ]
    where = f"; weights of member {' and '.join(members)} are not, too" if members else ""
    at = f"by step {step} of epoch {epoch + 1}" if step else f"by the end of epoch {epoch}"
    return DivergedError(
        f"Training diverged {at}: {' and '.join(parts)} {'are' if len(parts) > 1 else 'is'} not finite"
        f"{where}. Try a lower `learning_rate`, a weaker regularizer or `precision` float32."
    )


class _Measurement(keras.callbacks.Callback):
    """Measure the model after every epoch and add the single numbers to the logs, as ``test_NAME``.

    Args:
        test: Images to measure on.
        average: Moving average of the weights, to be measured in place of the weights.
    """

    def __init__(self, test: Split, average: WeightAverage | None = None) -> None:
        super().__init__()
        self._average = average
        self._test = test
        self._totals: Any = None
        self.latest: dict[str, Any] = {}
        """What was measured after the latest epoch: fields of TestMetrics by name."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        with self._average.in_place() if self._average else contextlib.nullcontext():
            self.latest = self.measure()
        if logs is not None:
            logs |= {f"test_{name}": value for name, value in self.latest.items() if isinstance(value, float)}

    def measure(self) -> dict[str, Any]:
        """Measure the model now."""
        raise NotImplementedError

    def _means(self, make_totals: Callable[[keras.Model], Any], batch_size: int) -> dict[str, Any]:
        """Add up what a function computes of each batch, and divide it by the number of images."""
        if self._totals is None:
            self._totals = make_totals(self.model)
        batches = evaluation_batches(self._test, batch_size)
        measured = [self._totals(images, labels) for images, labels in batches]
        sums = {name: np.sum([totals[name] for totals in measured], axis=0) for name in measured[0]}
        return {name: total / len(self._test) for name, total in sums.items()}


class GradientDiagnostics(_Measurement):
    """Measure clean accuracy, and how the members' input gradients relate, after every epoch.

    Adds ``test_clean_accuracy``, ``test_pairwise_cosine`` and the other single numbers of
    :class:`~ncen_tf.train.run_directory.TestMetrics` to the logs; :attr:`latest` holds all of them.
    """

    def measure(self, batch_size: int = 256) -> dict[str, Any]:
        """Measure the model now."""
        means = self._means(_totals_function, batch_size)
        means["norm_spread"] = np.sqrt(means.pop("squared_deviation"))
        return {name: mean.tolist() for name, mean in means.items()}


def _totals_function(ensemble: keras.Model) -> Any:
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

    return totals


class RobustnessProbe(_Measurement):
    """Measure after every epoch whether adversarial training works, and warn if it has collapsed.

    Members trained on one or two attack steps can learn to mislead so short an attack ("catastrophic
    overfitting", Wong et al., 2020, "Fast is better than free"): loss and accuracy in training look better
    than ever, and robustness is gone. So the accuracy under the training attack is compared with that under
    PGD with more steps, on the first :data:`PROBED_EXAMPLES` images. Both raise the cross-entropy, also where
    training raises the divergence of TRADES.

    Adds ``test_training_attack_accuracy`` and ``test_pgd_accuracy`` to the logs, robust accuracies in [0, 1].
    """

    def __init__(self, test: Split, average: WeightAverage | None = None) -> None:
        super().__init__(test[:PROBED_EXAMPLES], average)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        trained, longer = self.latest["training_attack_accuracy"], self.latest["pgd_accuracy"]
        if trained > longer + TOLERATED_GAP:
            logger.warning(
                "The members have learnt to mislead the attack that they are trained on: accuracy is %.2f "
                "under that attack, %.2f under PGD with more steps. Start anew with more steps or a smaller "
                "step size in the training attack.",
                trained,
                longer,
            )

    def measure(self) -> dict[str, float]:
        """Measure the model now."""
        return {name: float(mean) for name, mean in self._means(_right_function, 100).items()}


def _right_function(ensemble: keras.Model) -> Any:
    trained: AdversarialTraining = ensemble.adversarial_training
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

    return right
