"""Training of one ensemble by several workers of a Ray cluster, which Ray Train starts and restarts."""

import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.tensorflow import TensorflowTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ncen_tf.base.environment import signal_handlers
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing
from ncen_tf.base.ray_cluster import environment, require_room, write_files
from ncen_tf.data.dataset import Dataset
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.train.training import train_ensemble

logger = logging.getLogger(__name__)

RESTARTS = 20
"""How often the workers are started again after one of them is lost."""
SECONDS_BETWEEN_COPIES = 0.5
"""How often the chief looks for new files in its run directory."""


def train_on_ray(
    config: TrainConfig,
    data: Callable[[], Dataset],
    run_dir: Path,
    *,
    workers: int,
    cpus: float,
    gpus: float,
    overwrite: bool,
) -> None:
    """Train an ensemble with MultiWorkerMirroredStrategy over workers of a Ray cluster.

    This process is connected to the cluster, and its machine belongs to it.
    If a worker or its node is lost, all workers are started again and go on from the newest checkpoint. The
    first worker sends its files to this process's machine, so that no shared file system is needed.

    Args:
        config: Settings of the run; the strategy is multi_worker.
        data: A function that loads the images on every worker's machine.
        run_dir: Folder of the run on this machine, as of :func:`ncen_tf.train_ensemble`.
        workers: Number of workers, >= 1.
        cpus: Number of CPUs of each worker, > 0.
        gpus: Number of GPUs of each worker, >= 0.
        overwrite: Whether to delete an earlier run in the folder.

    Raises:
        InputError: As of :func:`ncen_tf.train_ensemble`; or the cluster has no room for a worker, or workers
            were lost too often.
        KeyboardInterrupt: Ctrl-C or SIGTERM. The steps since the newest checkpoint are lost.
    """
    config = TrainConfig(**dict(config) | {"strategy": "multi_worker"})
    run = RunDirectory(run_dir)
    with run.lock():
        if overwrite:
            run.clear()
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        files = ray.remote(num_cpus=0, scheduling_strategy=here)(_RunFiles).remote(run_dir.absolute())
        logger.info("%d workers train; %s has a line for each epoch", workers, run.metrics_file)
        settings = {"config": config, "data": data, "name": run_dir.name, "files": files, "cwd": Path.cwd()}
        try:
            run_workers(_train_here, settings, workers, cpus, gpus)
            refusal = ray.get(files.refusal.remote())
        finally:
            ray.kill(files)
        if refusal:
            raise InputError(refusal)


def run_workers(
    function: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    workers: int,
    cpus: float,
    gpus: float,
) -> None:
    """Call a function on several workers at a time, all of them again whenever one is lost.

    It is called with ``settings`` in a process of each worker, with a ``TF_CONFIG`` that names all of them.

    Raises:
        InputError: The cluster has no room for a worker, or workers were lost too often.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    require_room(cpus, gpus)
    total = ray.cluster_resources()
    if total.get("CPU", 0) < workers * cpus or total.get("GPU", 0) < workers * gpus:
        logger.warning("The cluster has no room for all %d workers yet: waiting for nodes", workers)
    # Ray ends a training by its own handlers, and an exit.
    with tempfile.TemporaryDirectory(prefix="ncen_tf-ray-") as storage, signal_handlers():
        trainer = TensorflowTrainer(
            function,
            train_loop_config=settings,
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=gpus > 0, resources_per_worker={"CPU": cpus, "GPU": gpus}
            ),
            run_config=RunConfig(
                storage_path=storage,
                failure_config=FailureConfig(max_failures=RESTARTS),
                worker_runtime_env=environment(cpus),
            ),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            reason = " ".join(str(error).split())[-300:]
            raise InputError(f"The workers on Ray were lost {RESTARTS + 1} times: {reason}") from error
        except SystemExit:
            raise KeyboardInterrupt("The same command goes on from the newest checkpoint.") from None


class _RunFiles:
    """An actor on the machine of the command: the run directory, and why the training cannot be done."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._refusal: str | None = None

    def read(self) -> dict[str, bytes]:
        """Read the files that a training goes on from."""
        return _read(self._folder, {})

    def write(self, files: dict[str, bytes], checkpoints: set[str]) -> None:
        """Write files, those last that tell that there are others, and remove old checkpoints."""
        for name in sorted(files, key=_position):
            file = self._folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary:
                temporary.write_bytes(files[name])
        for file in RunDirectory(self._folder).checkpoints.glob("*"):
            if file.name not in checkpoints:
                file.unlink()

    def refuse(self, sentence: str) -> None:
        self._refusal = self._refusal or sentence

    def refusal(self) -> str | None:
        return self._refusal


def _position(name: str) -> int:
    """Order files as a training writes them: the history of an epoch before its checkpoint."""
    last = ("config.json", "summary.json")
    return last.index(name) + 2 if name in last else int(name.startswith("checkpoints/"))


def _train_here(settings: dict[str, Any]) -> None:
    """Train in this process, a worker's."""
    os.environ.pop("TF_USE_LEGACY_KERAS", None)  # Ray sets it
    with contextlib.suppress(OSError):  # another machine may have no such folder
        os.chdir(settings["cwd"])
    files = settings["files"]
    if ray.get(files.refusal.remote()):
        return
    with tempfile.TemporaryDirectory(prefix="ncen_tf-ray-") as folder:
        path = Path(folder) / settings["name"]
        with contextlib.ExitStack() as stack:
            if ray.train.get_context().get_world_rank() == 0:
                stack.enter_context(_copied(path, files))
            try:
                train_ensemble(settings["config"], settings["data"], path, progress=False)
            except InputError as error:
                ray.get(files.refuse.remote(str(error)))
                raise  # Ray then stops the other workers


@contextlib.contextmanager
def _copied(folder: Path, files: Any) -> Iterator[None]:
    """Start with the files of the run, and send those that change to the machine of the command."""
    write_files(folder, ray.get(files.read.remote()))
    done = threading.Event()
    sent: dict[Path, int] = {}

    def send() -> None:
        is_last = False
        while not is_last:
            is_last = done.wait(SECONDS_BETWEEN_COPIES)
            changed = _read(folder, sent)
            if changed:
                checkpoints = {file.name for file in RunDirectory(folder).checkpoints.glob("*")}
                ray.get(files.write.remote(changed, checkpoints))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _read(folder: Path, known: dict[Path, int]) -> dict[str, bytes]:
    """Read the files of a run that have changed, checkpoints first: the history is then as new as they are.

    ``known`` has the times in nanoseconds at which known files were written, and is brought up to date.
    """
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    changed = {}
    for file in sorted(files, key=lambda file: file.parent.name != "checkpoints"):
        with contextlib.suppress(FileNotFoundError):  # an old checkpoint may be removed at this moment
            written = file.stat().st_mtime_ns
            if known.get(file) != written:
                changed[file.relative_to(folder).as_posix()] = file.read_bytes()
                known[file] = written
    return changed
