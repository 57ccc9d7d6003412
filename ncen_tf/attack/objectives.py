"""What attacks see of a target: one callable whose softmax cross-entropy they maximise."""

import functools
from collections.abc import Callable
from typing import Literal, get_args

import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.penalties import log_mean_probabilities, mean_probabilities
from ncen_tf.targets.target import Target

ObjectiveName = Literal["member_average", "ensemble", "stacked_softmax"]

_LEAST_REST = 1e-12


def member_average_columns(member_logits: tf.Tensor) -> tf.Tensor:
    """Columns whose softmax cross-entropy is the members' averaged cross-entropy (Luo et al., Eq. 3).

    With L = mean_i log_softmax(z_i), the columns are L and log(1 - sum_c exp(L_c)): they sum to one
    after exp, so the cross-entropy at y is -L_y, whatever loss the attack has built in.

    Args:
        member_logits: [N, k, C].

    Returns:
        [N, C + 1].
    """
    log_mean = tf.reduce_mean(tf.nn.log_softmax(member_logits), axis=1)
    rest = 1.0 - tf.reduce_sum(tf.exp(log_mean), axis=1, keepdims=True)
    # Where members agree, rounding may leave rest <= 0. Only its value is raised: with its derivative
    # cut off too, confident examples would have no gradient and would look robust.
    rest += tf.stop_gradient(tf.maximum(rest, _LEAST_REST) - rest)
    return tf.concat([log_mean, tf.math.log(rest)], axis=1)


def stacked_softmax(member_logits: tf.Tensor) -> tf.Tensor:
    """Softmax of the mean of the members' softmax, which the authors' released code attacks as logits.

    The cross-entropy takes a third softmax of these columns. All of them lie in [0, 1], so its gradient is
    a fraction of what it would be on logits: attacks that follow it look weaker than they are.

    Args:
        member_logits: [N, k, C].

    Returns:
        [N, C].
    """
    return tf.nn.softmax(mean_probabilities(member_logits))


_COLUMNS: dict[ObjectiveName, Callable[[tf.Tensor], tf.Tensor]] = {
    "member_average": member_average_columns,
    "ensemble": log_mean_probabilities,
    "stacked_softmax": stacked_softmax,
}


class Objective:
    """A target as attacks use it, compiled once, its uses counted.

    ``objective(images)`` are the columns that gradient attacks maximise the cross-entropy of:
    ``member_average`` is the paper's, the mean of the members' losses; ``ensemble`` is the loss of the
    ensemble's own prediction; ``stacked_softmax`` is what the authors' code attacks.
    ``log_probabilities`` is the ensemble's prediction, the same for all.
    Shape: images float32 [N, H, W, C] in [0, 1]; the target is traced once for all N.

    Args:
        target: what is attacked.
        name: ``member_average``, ``ensemble`` or ``stacked_softmax``.

    Raises:
        InputError: an unknown name.
    """

    def __init__(self, target: Target, name: ObjectiveName) -> None:
        if name not in get_args(ObjectiveName):
            raise InputError(f"An objective is one of {', '.join(get_args(ObjectiveName))}; got {name!r}.")
        self.target = target
        self.name = name
        self._queries = tf.Variable(0, trainable=False, dtype=tf.int64)
        self._gradients = tf.Variable(0, trainable=False, dtype=tf.int64)
        images = tf.TensorSpec([None, *target.image_shape], tf.float32)
        self._member_logits = tf.function(self._counted_member_logits, input_signature=[images])
        self._answers = self._member_logits
        if hasattr(target, "answer"):  # what a target can do faster when no gradient will be asked for
            answer = functools.partial(self._counted_answer, target.answer)
            self._answers = tf.function(answer, input_signature=[images])

    @property
    def queries(self) -> int:
        """Forward passes so far, one for each image."""
        return int(self._queries)

    @property
    def gradients(self) -> int:
        """Backward passes so far, one for each image."""
        return int(self._gradients)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Columns to maximise the cross-entropy of: [N, C + 1] for ``member_average``, else [N, C]."""
        return _COLUMNS[self.name](self._member_logits(images))

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        """Logits of each member, for attacks that compute a loss of their own: [N, k, C]."""
        return self._member_logits(images)

    def log_probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """The ensemble's prediction: log-probabilities [N, C]."""
        return log_mean_probabilities(self._member_logits(images))

    def answer(self, images: tf.Tensor) -> tf.Tensor:
        """The same, faster on some targets, where no gradient is asked for."""
        return log_mean_probabilities(self._answers(images))

    def count(self, queries: int, gradients: int) -> None:
        """Add passes that were made through another callable on behalf of this one."""
        self._queries.assign_add(queries)
        self._gradients.assign_add(gradients)

    def _counted_answer(self, answer: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> tf.Tensor:
        self._queries.assign_add(tf.shape(images, out_type=tf.int64)[0])
        logits = answer(images)
        return tf.ensure_shape(logits, [None, self.target.members, self.target.classes])

    def _counted_member_logits(self, images: tf.Tensor) -> tf.Tensor:
        count = tf.shape(images, out_type=tf.int64)[0]
        self._queries.assign_add(count)

        @tf.custom_gradient
        def counted(x: tf.Tensor) -> tuple[tf.Tensor, object]:
            def backward(upstream: tf.Tensor) -> tf.Tensor:
                # An eager tape drops what its result does not depend on.
                with tf.control_dependencies([self._gradients.assign_add(count)]):
                    return tf.identity(upstream)

            return tf.identity(x), backward

        logits = self.target.member_logits(counted(images))
        return tf.ensure_shape(logits, [None, self.target.members, self.target.classes])
