"""Several replicas train what one device trains: virtual devices, processes on 127.0.0.1, nodes of Ray."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncen_tf
from ncen_tf.train.run_directory import checkpoint_steps
from tests.conftest import ROOT
from tests.ray_cluster import MEMORY, nodes
from tests.train import replicas

TINY = (
    "--strategy=multi_worker",
    "--sync_batch_norm",
    "--dataset=fashion_mnist_sample",
    "--architecture=tests.train.replicas:member,tests.train.replicas:member",
    "--train_examples=20",
    "--test_examples=10",
    "--epochs=8",
    "--batch_size=8",
    "--checkpoint_every=1",
    "--deterministic",
)

Workers = list[subprocess.Popen[str]]


@contextlib.contextmanager
def two_workers(*command: str) -> Iterator[Workers]:
    """Start the same command as two workers on free ports; they are stopped at the end."""
    with contextlib.ExitStack() as reserved:
        sockets = [reserved.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in sockets]
    workers = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=ROOT,
                env=os.environ | {"TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def finish(workers: Workers) -> list[str]:
    """Wait until both have succeeded, and return what they print."""
    outputs = [worker.communicate(timeout=500) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    return [stdout for stdout, _ in outputs]


def wait_for_checkpoint(run: Path, steps: int, workers: Workers) -> None:
    deadline = time.monotonic() + 500
    while max(checkpoint_steps(run / "checkpoints"), default=0) < steps:
        assert time.monotonic() < deadline
        assert all(worker.poll() is None for worker in workers), [w.communicate() for w in workers]
        time.sleep(0.005)


def saved_weights(run: Path) -> list[np.ndarray]:
    return ncen_tf.open_run(run).ensemble.get_weights()


def test_two_virtual_devices_end_with_the_weights_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.replicas", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    count, difference = done.stdout.split()
    assert count == "2"
    assert float(difference) < 1e-9


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "undisturbed"
    with two_workers("ncen_tf.train", *TINY, f"--run_dir={run}") as workers:
        finish(workers)
    return run


def test_after_a_kill_and_after_sigterm_the_same_command_resumes_to_the_same_weights(
    undisturbed: Path, tmp_path: Path
) -> None:
    """The second worker is killed; in the resumed run, the chief is asked to end."""
    run = tmp_path / "run"
    command = ("ncen_tf.train", *TINY, f"--run_dir={run}")
    with two_workers(*command) as workers:
        wait_for_checkpoint(run, 1, workers)
        workers[1].send_signal(signal.SIGKILL)
        _, stderr = workers[0].communicate(timeout=300)
        assert workers[0].returncode == 75, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    assert "The connection to another worker is lost" in errors[0]
    assert "Traceback" not in stderr
    with two_workers(*command) as workers:
        wait_for_checkpoint(run, 3, workers)
        workers[0].send_signal(signal.SIGTERM)
        outputs = [worker.communicate(timeout=300) for worker in workers]
        assert [worker.returncode for worker in workers] == [130, 130], outputs
    assert not (run / "summary.json").exists()
    with two_workers(*command) as workers:
        finish(workers)
    pairs = zip(saved_weights(run), saved_weights(undisturbed), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of Ray with room for a worker each."""
    pytest.importorskip("ray")
    with nodes(1, 1) as cluster:
        yield cluster


def test_two_workers_on_ray_end_with_the_weights_of_one_device(cluster: Any, tmp_path: Path) -> None:
    from ncen_tf.train.ray_training import run_workers  # Ray is optional

    run_workers(replicas.compare_on_ray, {"folder": tmp_path}, workers=2, cpus=1, gpus=0)
    count, difference = (tmp_path / "result.txt").read_text().split()
    assert count == "2"
    assert float(difference) < 1e-9


def test_a_training_on_ray_that_loses_a_node_ends_with_the_weights_of_an_undisturbed_one(
    cluster: Any, undisturbed: Path, tmp_path: Path
) -> None:
    """A node is killed with its worker, and another one joins the cluster."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ncen_tf.train", *TINY, f"--run_dir={run}"]
    command += [f"--ray={cluster.address}", "--workers=2"]
    driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_checkpoint(run, 1, [driver])
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
        stdout, stderr = driver.communicate(timeout=500)
    finally:
        driver.kill()
    assert driver.returncode == 0, stderr
    assert "Clean accuracy" in stdout
    assert "Traceback" not in stderr
    pairs = zip(saved_weights(run), saved_weights(undisturbed), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert (run / "metrics.jsonl").read_text().count("\n") == 8


def test_only_the_chief_writes_the_run_directory(undisturbed: Path) -> None:
    """Everything is there once: two writers would leave two event files."""
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "data.json",
        "diagnostics.png",
        "ensemble.keras",
        "metrics.jsonl",
        "summary.json",
        "tensorboard",
    ]
    assert len(list((undisturbed / "tensorboard").iterdir())) == 1
    assert json.loads((undisturbed / "summary.json").read_text())["replicas"] == 2
