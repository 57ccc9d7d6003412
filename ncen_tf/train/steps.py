"""The steps of a run: which batch each takes, and how replicas share it."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Dataset
from ncen_tf.data.datasets import DATASETS
from ncen_tf.data.pipeline import steps_per_epoch, training_batches
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.schedule import cosine_rate, stepped_rate


class TrainingSteps:
    """Training steps that depend on seed, epoch and step alone, however many replicas take them.

    Args:
        ensemble: compiled and created under ``strategy``.
        config: settings of the run.
        dataset: whose train split is used.
        strategy: what the steps run under.

    Raises:
        InputError: the last batch of an epoch has fewer images than there are replicas.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        config: TrainingConfig,
        dataset: Dataset,
        strategy: tf.distribute.Strategy,
    ) -> None:
        self._config = config
        self._ensemble = ensemble
        self._dataset = dataset
        self.per_epoch = steps_per_epoch(len(dataset.train), config.batch_size)
        replicas = strategy.num_replicas_in_sync
        last_batch = 2 * len(dataset.train) - (self.per_epoch - 1) * config.batch_size
        if min(last_batch, config.batch_size) < replicas:
            raise InputError(
                f"The last batch of an epoch has {last_batch} images for {replicas} replicas: "
                "choose another --batch_size."
            )

        # One graph for each batch size, of which there are two: a graph for any size is slower, and one that
        # is first this, then that, would make a resumed run round differently.
        @tf.function
        def take(images: tf.Tensor, labels: tf.Tensor) -> None:
            def replica_step() -> None:
                replica = tf.distribute.get_replica_context().replica_id_in_sync_group
                share = _share(tf.shape(images)[0], replica, replicas)
                ensemble.train_step((images[share], labels[share]))

            strategy.run(replica_step)

        self._take = take

    def batches(self, epoch: int, first: int) -> Iterable[tuple[tf.Tensor, tf.Tensor]]:
        """Batches over all replicas of an epoch, from its step ``first`` (from 0) on.

        Every worker of a cluster makes the whole batch, which costs little beside a training step, so that
        its replicas' shares are those that one device would see.
        """
        return training_batches(
            self._dataset.train,
            self._config.batch_size,
            epoch=epoch,
            seed=self._config.seed,
            noise_eps=self._config.noise_eps,
            crop_padding=self._config.crop_padding,
            flip=DATASETS[self._config.dataset].flip,
            skip_steps=first,
        )

    def learning_rate(self, epoch: int, step: int) -> float:
        """Of a step (from 0) of an epoch (from 0)."""
        config = self._config
        if config.schedule == "cosine":
            done = (epoch * self.per_epoch + step) / (config.epochs * self.per_epoch)
            return cosine_rate(done, config.learning_rate, config.min_learning_rate)
        return stepped_rate(epoch, config.learning_rate, config.decay_every, config.min_learning_rate)

    def take(self, images: tf.Tensor, labels: tf.Tensor, rate: float) -> None:
        """One optimizer step on a batch over all replicas, at a learning rate."""
        self._ensemble.optimizer.learning_rate = rate
        self._take(images, labels)


def _share(size: Any, replica: Any, replicas: int) -> slice:
    """Rows of one replica: shares are contiguous and differ by one row at most."""
    return slice(replica * size // replicas, (replica + 1) * size // replicas)
