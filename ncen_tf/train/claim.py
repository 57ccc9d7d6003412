"""Who writes where: the run directory belongs to one process, the chief of a cluster."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.workers.cluster import Cluster
from ncen_tf.workers.lifeline import lifelines
from ncen_tf.workers.loss import describe_loss, leave
from ncen_tf.workers.roll_call import answer_roll_call, hold_roll_call


@contextlib.contextmanager
def claimed_run(
    path: Path,
    config: TrainingConfig,
    checkpoint_every: int,
    cluster: Cluster | None = None,
    overwrite: bool = False,
) -> Iterator[RunDirectory]:
    """An opened run directory for this process.

    All workers of a cluster do the same work, saving included, because statistics that each keeps of its
    own are only read together. So the others write into a scratch folder that starts as a copy of the
    chief's run and is deleted in the end.

    Args:
        path: the run directory; only a process alone and a chief touch it.
        config: what the run is asked to do.
        checkpoint_every: steps between two checkpoints; all workers save at the same ones.
        cluster: the workers, if there are several.
        overwrite: delete an earlier run there.

    Raises:
        InputError: the folder cannot be used, or the workers do not come together.
    """
    agreed = config.to_flags() | {"checkpoint_every": str(checkpoint_every)}
    if cluster is None or cluster.is_chief:
        run = RunDirectory(path)
        run.open(config, overwrite)
        if cluster is None:
            yield run
        else:
            connections = hold_roll_call(cluster, agreed, path, run.state_files())
            with lifelines(connections, lambda lost: leave(describe_loss(cluster, [lost]))):
                yield run
    else:
        with tempfile.TemporaryDirectory(prefix="ncen_tf-worker-") as scratch:
            connections = answer_roll_call(cluster, agreed, Path(scratch))
            run = RunDirectory(Path(scratch))
            run.open(config)
            with lifelines(connections, lambda lost: leave(describe_loss(cluster, [lost]), Path(scratch))):
                yield run
