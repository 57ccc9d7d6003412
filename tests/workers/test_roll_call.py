"""Workers meet over real connections on 127.0.0.1 before TensorFlow connects them."""

import socket
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.train.claim import claimed_run
from ncen_tf.train.config import TrainingConfig
from ncen_tf.workers.cluster import Cluster
from ncen_tf.workers.messages import receive, send
from ncen_tf.workers.roll_call import answer_roll_call, hold_roll_call

FLAGS = {"seed": "0", "batch_size": "64"}
Connections = dict[int, socket.socket]


@pytest.fixture
def addresses() -> tuple[str, ...]:
    """Three that are free."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    found = tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in servers)
    for server in servers:
        server.close()
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.jsonl").write_text("{}\n")
    (run / "checkpoints" / "state").write_bytes(bytes(range(256)) * 8192)  # more than a socket takes at once
    return run


def files(run: Path) -> list[Path]:
    return [path for path in sorted(run.rglob("*")) if path.is_file()]


def close(*results: Connections) -> None:
    for connections in results:
        for connection in connections.values():
            connection.close()


def answer(
    pool: ThreadPoolExecutor, cluster: Cluster, folder: Path, flags: dict[str, str] = FLAGS
) -> Future[Connections]:
    return pool.submit(answer_roll_call, cluster, flags, folder, 20)


def test_every_worker_gets_the_state_of_the_run(
    addresses: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    """Workers that are there before the chief and after it, and a stranger in between."""
    with ThreadPoolExecutor() as pool:
        early = answer(pool, Cluster(addresses, 2), tmp_path / "early")
        time.sleep(0.2)
        chief = pool.submit(hold_roll_call, Cluster(addresses, 0), FLAGS, run, files(run), 20)
        host, _, port = addresses[0].rpartition(":")
        stranger = connect(host, int(port))
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        late = answer(pool, Cluster(addresses, 1), tmp_path / "late")
        results = [chief.result(), early.result(), late.result()]
    assert [sorted(connections) for connections in results] == [[1, 2], [0], [0]]
    for folder in (tmp_path / "early", tmp_path / "late"):
        received = {path.relative_to(folder): path.read_bytes() for path in files(folder)}
        assert received == {path.relative_to(run): path.read_bytes() for path in files(run)}
    close(*results)
    stranger.close()


def connect(host: str, port: int) -> socket.socket:
    while True:
        try:
            return socket.create_connection((host, port))
        except ConnectionRefusedError:
            time.sleep(0.05)


def test_a_worker_that_was_asked_something_else_ends_both_with_the_difference(
    addresses: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    pair = addresses[:2]
    with ThreadPoolExecutor() as pool:
        chief = pool.submit(hold_roll_call, Cluster(pair, 0), FLAGS, run, files(run), 20)
        worker = answer(pool, Cluster(pair, 1), tmp_path / "worker", {"seed": "1", "epochs": "3"})
        for result in (chief, worker):
            with pytest.raises(InputError, match=r"worker 1 .* differs from the chief: ") as error:
                result.result()
            assert "--batch_size is not set, the chief's is 64; --epochs is 3, " in str(error.value)
            assert "--seed is 1, the chief's is 0" in str(error.value)
    assert not (tmp_path / "worker").exists()


def test_workers_that_would_save_at_other_steps_are_refused(
    addresses: tuple[str, ...], tmp_path: Path
) -> None:
    config = TrainingConfig("fashion_mnist_sample", ("resnet8", "resnet8"), "none", 0.0, 0.0, 1, 0.3)
    pair = addresses[:2]

    def claim(index: int, checkpoint_every: int) -> None:
        with claimed_run(tmp_path / "run", config, checkpoint_every, Cluster(pair, index)):
            raise AssertionError

    with ThreadPoolExecutor() as pool:
        for result in [pool.submit(claim, 0, 500), pool.submit(claim, 1, 2)]:
            with pytest.raises(InputError, match="--checkpoint_every is 2, the chief's is 500"):
                result.result()


def test_a_missing_worker_and_a_missing_chief_are_named(addresses: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no sign of worker 1 .{addresses[1]}. and worker 2"):
        hold_roll_call(Cluster(addresses, 0), FLAGS, tmp_path, [], wait=0.3)
    with pytest.raises(InputError, match=f"the chief at {addresses[0]} does not answer"):
        answer_roll_call(Cluster(addresses, 1), FLAGS, tmp_path, wait=0.3)


def test_a_port_in_use_is_named(addresses: tuple[str, ...], tmp_path: Path) -> None:
    port = int(addresses[0].rpartition(":")[2])
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(InputError, match=f"port {port} cannot be used: Address already in use"),
    ):
        hold_roll_call(Cluster(addresses, 0), FLAGS, tmp_path, [], wait=0.3)


def test_a_worker_finds_a_chief_that_starts_again(
    addresses: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    pair = addresses[:2]
    host, _, port = addresses[0].rpartition(":")
    with ThreadPoolExecutor() as pool, socket.create_server((host, int(port))) as first_chief:
        worker = answer(pool, Cluster(pair, 1), tmp_path / "worker")
        first_chief.accept()[0].close()
        first_chief.close()
        close(hold_roll_call(Cluster(pair, 0), FLAGS, run, files(run), 20), worker.result())
    assert (tmp_path / "worker" / "metrics.jsonl").exists()


def test_a_worker_that_cannot_store_the_state_says_so_at_once(
    addresses: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    """And does not blame the chief after ten minutes."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "checkpoints").write_text("in the way")
    pair = addresses[:2]
    with ThreadPoolExecutor() as pool:
        chief = pool.submit(hold_roll_call, Cluster(pair, 0), FLAGS, run, files(run), 20)
        with pytest.raises(FileExistsError):
            answer_roll_call(Cluster(pair, 1), FLAGS, scratch, wait=20)
        close(chief.result())


def test_a_chief_cannot_write_outside_the_folder(addresses: tuple[str, ...], tmp_path: Path) -> None:
    host, _, port = addresses[0].rpartition(":")

    def malicious_chief() -> None:
        with socket.create_server((host, int(port))) as server:
            connection, _ = server.accept()
            receive(connection, 1 << 20)
            send(connection, b'{"files": ["../outside"]}')
            send(connection, b"content")

    thread = threading.Thread(target=malicious_chief)
    thread.start()
    with pytest.raises(InputError, match=r"'\.\./outside', which lies outside"):
        answer_roll_call(Cluster(addresses, 1), FLAGS, tmp_path / "scratch", wait=20)
    thread.join()
    assert not (tmp_path / "outside").exists()
