"""Batches of images that are attacked by the workers of a Ray cluster."""

import contextlib
import logging
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.losses import ObjectiveName
from ncen_tf.attack.objectives import MeanTarget, Objective
from ncen_tf.attack.results import AttackedBatch
from ncen_tf.attack.runner import Job, RunJobs, attack_batch
from ncen_tf.base.errors import InputError
from ncen_tf.base.ray_cluster import connected, environment, read_files, require_room, write_files
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target
from ncen_tf.untrusted.onnx_file import weight_files

logger = logging.getLogger(__name__)

Model = str | Path | Target | Callable[..., Any] | Sequence[Any]


@contextlib.contextmanager
def workers(
    address: str,
    model: Model,
    opening: dict[str, Any],
    objective: ObjectiveName,
    batches: int,
    calls: int = 1,
    cpus: float = 1,
    gpus: float = 0,
) -> Iterator[RunJobs]:
    """Let the workers of a Ray cluster attack batches. Each worker opens the target once.

    A batch is a task: where a node is lost, Ray runs its tasks again on the others. A batch has the same
    outcome on every worker, because its random numbers come from its seed alone.

    Args:
        address: Of the cluster, as for :func:`~ncen_tf.base.ray_cluster.connected`.
        model: What is attacked, as for ``ncen_tf.open_target``, but not an open target. Its files travel
            through Ray's object store.
        opening: Settings of ``ncen_tf.open_target``.
        objective: Loss that gradient attacks maximise.
        batches: Number of batches of all images; a warning tells if it leaves workers idle.
        calls: Passes of the model for an answer.
        cpus: Number of CPUs of each worker, > 0.
        gpus: Number of GPUs of each worker, >= 0.

    Yields:
        A function that attacks batches on the cluster, and yields them as they are finished.

    Raises:
        InputError: No cluster answers, it has no room for a worker, the target is open already, or the
            installation of a worker does not allow an attack.
    """
    packed = _pack(model)
    with connected(address):
        room = require_room(cpus, gpus)
        if batches < room:
            logger.warning(
                "%d batches of images leave %d of %d workers idle: a smaller `batch_size` makes more.",
                batches,
                room - batches,
                room,
            )
        # The files were compared with their manifest here.
        target = ray.put((packed, opening | {"allow_unverified": True}, objective, calls))
        key = uuid.uuid4().hex
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=-1, runtime_env=environment(cpus))(
            _attack_here
        )

        def run_jobs(attack: Attack, jobs: Iterable[Job]) -> Iterator[tuple[int, AttackedBatch]]:
            pending = [task.remote(key, target, attack, job) for job in jobs]
            try:
                while pending:
                    (finished, *_), pending = ray.wait(pending)
                    yield ray.get(finished)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, InputError):
                    raise cause from None
                reason = " ".join(str(error).split())[-300:]
                raise InputError(f"A worker of the Ray cluster fails: {reason}") from error
            finally:
                for left in pending:
                    ray.cancel(left, force=True)

        yield run_jobs


_opened: dict[str, tuple[tempfile.TemporaryDirectory[str], Objective]] = {}
"""The target that this process, a worker, has open: by the key of the evaluation."""


def _attack_here(
    key: str, target: tuple[Any, dict[str, Any], ObjectiveName, int], attack: Attack, job: Job
) -> tuple[int, AttackedBatch]:
    """Attack a batch in the process of a worker."""
    if key not in _opened:
        _opened.clear()
        model, opening, objective, calls = target
        folder = tempfile.TemporaryDirectory(prefix="ncen_tf-worker-")
        opened = open_target(_unpack(model, Path(folder.name)), **opening)
        _opened[key] = folder, Objective(opened if calls == 1 else MeanTarget(opened, calls), objective)
    return job.number, attack_batch(attack, _opened[key][1], job)


class _Files(NamedTuple):
    """A model on disk, so that machines need not share one."""

    path: str
    """Path of the model in the folder of the files."""
    files: dict[str, bytes]


def _pack(model: Model) -> Any:
    """Read a model's files; a Keras model or a function is sent as Ray sends Python objects."""
    if isinstance(model, Target):
        raise InputError(
            "`ray` needs a target that its workers can open: a path, a Keras model or a function."
        )
    if isinstance(model, Sequence) and not isinstance(model, str):
        return [_pack(each) for each in model]
    if not isinstance(model, str | Path):
        return model
    path = Path(model)
    if path.is_dir():
        return _Files(path.name, read_files(path.parent, path.rglob("*")))
    weights = weight_files(path) if path.suffix == ".onnx" else []
    return _Files(path.name, read_files(path.parent, [path, *weights]))


def _unpack(packed: Any, folder: Path) -> Any:
    if isinstance(packed, list):
        return [_unpack(each, folder / str(number)) for number, each in enumerate(packed)]
    if not isinstance(packed, _Files):
        return packed
    write_files(folder, packed.files)
    return folder / packed.path
