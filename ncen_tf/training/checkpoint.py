"""Checkpoints that hold everything a run needs to go on as if it had never stopped."""

from pathlib import Path

import tensorflow as tf

from ncen_tf.training.nc_ensemble import NCEnsemble


class RunCheckpoint:
    """Weights, optimizer state, running metrics and the position in the data."""

    def __init__(self, ensemble: NCEnsemble, folder: Path) -> None:
        self._position = [tf.Variable(0, dtype=tf.int64), tf.Variable(0, dtype=tf.int64)]
        # Explicit lists: attribute tracking silently leaves out models kept in a Python list.
        checkpoint = tf.train.Checkpoint(
            weights=[variable.value for variable in ensemble.variables],
            optimizer=[variable.value for variable in ensemble.optimizer.variables],
            metrics=[v.value for metric in ensemble.metrics for v in metric.variables],
            position=self._position,
        )
        self._manager = tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=2)
        self.epoch = self.step = 0

    def restore(self) -> None:
        """Read the newest checkpoint, if there is one."""
        newest = self._manager.latest_checkpoint
        if newest:
            self._manager.checkpoint.restore(newest).assert_consumed()
            self.epoch, self.step = (int(variable) for variable in self._position)

    def save(self) -> None:
        """Write a checkpoint; TensorFlow renames it into place when it is complete."""
        for variable, value in zip(self._position, (self.epoch, self.step), strict=True):
            variable.assign(value)
        self._manager.save()
