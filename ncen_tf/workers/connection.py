"""Several processes as one tf.distribute strategy, and what becomes of it when one of them dies."""

import contextlib
import faulthandler
import functools
import hashlib
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from ncen_tf.data.dataset import Dataset
from ncen_tf.base.errors import InputError, one_line
from ncen_tf.workers.cluster import Cluster
from ncen_tf.workers.loss import LostWorkerError, describe_loss

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 60


def connect_workers(cluster: Cluster) -> tf.distribute.Strategy:
    """MultiWorkerMirroredStrategy over the workers of ``TF_CONFIG``, each with all of its GPUs or its CPU.

    The process ends with exit code 1 if they cannot be connected within a minute.
    """
    logger.info(
        "Connecting %d workers: if one is gone already, this process ends after %d seconds",
        len(cluster.addresses),
        CONNECT_SECONDS,
    )
    # TensorFlow waits without end here and holds Python's lock, so that no Python code could stop it.
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(CONNECT_SECONDS, exit=True, file=nowhere)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        finally:
            faulthandler.cancel_dump_traceback_later()
    # TensorFlow catches SIGTERM and does nothing with it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return strategy


@contextlib.contextmanager
def naming_lost_workers(cluster: Cluster | None) -> Iterator[None]:
    """Turn TensorFlow's errors about another worker into one sentence.

    Raises:
        LostWorkerError: a worker has ended, froze or cannot be reached.
    """
    try:
        yield
    except (
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
        tf.errors.InternalError,
        tf.errors.UnavailableError,
    ) as error:
        if cluster is None:
            raise
        loss = describe_loss(cluster, _others_named(cluster, str(error)))
        if isinstance(error, tf.errors.InternalError):  # of this machine alone it may be, too
            loss = f"{loss} TensorFlow says: {one_line(str(error))[:200]}"
        raise LostWorkerError(loss) from error


def _others_named(cluster: Cluster, message: str) -> list[int]:
    tasks = re.findall(r"/job:(\w+)(?:/replica:0)?/task:(\d+)", message)
    named = {cluster.index_of(kind, int(task)) for kind, task in tasks} - {cluster.index}
    return sorted(named) or [index for index in range(len(cluster.addresses)) if index != cluster.index]


def has_several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether replicas are in more than this process."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def any_worker(strategy: tf.distribute.Strategy, here: bool) -> bool:
    """Whether any worker says yes; they all have to ask at the same point."""
    return any(_gather(strategy, int(here)))


def refuse_different_data(strategy: tf.distribute.Strategy, dataset: Dataset) -> None:
    """Let the workers compare their datasets.

    Raises:
        InputError: on all of them, if one has other images or labels.
    """
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        digest.update(split.images.data)
        digest.update(split.labels.data)
    if len(set(_gather(strategy, int.from_bytes(digest.digest()[:4])))) > 1:
        raise InputError("The workers have different images or labels: give all of them the same dataset.")


def _gather(strategy: tf.distribute.Strategy, number: int) -> list[int]:
    """What each worker calls this with, at the same point."""
    numbers = _gathering(strategy)(tf.constant([number], tf.int64))
    return strategy.experimental_local_results(numbers)[0].numpy().tolist()


@functools.cache
def _gathering(strategy: tf.distribute.Strategy) -> Any:
    def in_replica(number: tf.Tensor) -> tf.Tensor:
        return tf.distribute.get_replica_context().all_gather(tf.identity(number), axis=0)

    return tf.function(lambda number: strategy.run(in_replica, (number,)))
