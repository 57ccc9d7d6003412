"""Two real processes on 127.0.0.1 train one ensemble; one of them is killed."""

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

import keras
import numpy as np
import pytest

import ncen_tf  # noqa: F401 -- registers the classes that load_model needs
from tests.conftest import ROOT

TINY = (
    "--strategy=multi_worker",
    "--sync_batch_norm",
    "--dataset=fashion_mnist_sample",
    "--architecture=resnet8,resnet8",
    "--regularizer=none",  # others take long to trace
    "--train_examples=20",
    "--test_examples=10",
    "--epochs=2",
    "--batch_size=8",
    "--checkpoint_every=1",
    "--deterministic",
)

Workers = list[subprocess.Popen[str]]


@contextlib.contextmanager
def two_workers(*command: str) -> Iterator[Workers]:
    """The same command as two workers on free ports; stopped in the end."""
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
    """What the workers print, after both have succeeded."""
    outputs = [worker.communicate(timeout=400) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    return [stdout for stdout, _ in outputs]


def test_two_workers_with_synced_batch_norm_end_with_the_weights_of_one_device(tmp_path: Path) -> None:
    with two_workers("tests.train.two_workers", str(tmp_path)) as workers:
        chief, _ = finish(workers)
    assert float(chief.splitlines()[-1]) < 1e-9


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
        wait_for(run / "checkpoints" / "step-1", workers)
        workers[1].send_signal(signal.SIGKILL)
        _, stderr = workers[0].communicate(timeout=30)
        assert workers[0].returncode == 75, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    assert "The connection to worker 1 (127.0.0.1:" in errors[0]
    assert "Traceback" not in stderr
    with two_workers(*command) as workers:
        wait_for(run / "checkpoints" / "step-3", workers)
        workers[0].send_signal(signal.SIGTERM)
        outputs = [worker.communicate(timeout=120) for worker in workers]
        assert [worker.returncode for worker in workers] == [130, 130], outputs
    assert not (run / "summary.json").exists()
    with two_workers(*command) as workers:
        finish(workers)
    pairs = zip(*(saved_weights(folder) for folder in (run, undisturbed)), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def wait_for(folder: Path, workers: Workers) -> None:
    deadline = time.monotonic() + 400
    while not folder.exists():
        assert time.monotonic() < deadline
        assert all(worker.poll() is None for worker in workers), [w.communicate() for w in workers]
        time.sleep(0.005)


def saved_weights(run: Path) -> list[np.ndarray]:
    return keras.saving.load_model(run / "ensemble.keras").get_weights()


def test_only_the_chief_writes_the_run_directory(undisturbed: Path) -> None:
    """Everything once: two writers would leave two event files."""
    assert sorted(path.name for path in undisturbed.iterdir()) == [
        ".lock",
        "checkpoints",
        "diagnostics.png",
        "ensemble.keras",
        "flags.cfg",
        "metrics.jsonl",
        "summary.json",
        "tensorboard",
    ]
    assert len(list((undisturbed / "tensorboard").iterdir())) == 1
    assert json.loads((undisturbed / "summary.json").read_text())["replicas"] == 2
