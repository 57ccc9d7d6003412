"""What TF_CONFIG may say, and what is said about one that cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.workers.cluster import Cluster
from ncen_tf.workers.loss import describe_loss

ADDRESSES = ["host0:2222", "host1:2222", "10.0.0.3:80"]


def read(monkeypatch: pytest.MonkeyPatch, content: object) -> Cluster:
    monkeypatch.setenv("TF_CONFIG", content if isinstance(content, str) else json.dumps(content))
    return Cluster.from_environment()


def config(cluster: object, kind: object = "worker", index: object = 0) -> dict[str, object]:
    return {"cluster": cluster, "task": {"type": kind, "index": index}}


def test_workers_are_numbered_as_they_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(3):
        cluster = read(monkeypatch, config({"worker": ADDRESSES}, index=index))
        assert (cluster.addresses, cluster.index) == (tuple(ADDRESSES), index)
        assert cluster.is_chief == (index == 0)
        assert cluster.index_of("worker", 2) == 2


def test_a_task_of_type_chief_comes_before_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"worker": ADDRESSES[1:], "chief": ADDRESSES[:1]}
    chief = read(monkeypatch, config(listed, "chief"))
    assert (chief.addresses, chief.index) == (tuple(ADDRESSES), 0)
    last = read(monkeypatch, config(listed, "worker", 1))
    assert last.index == last.index_of("worker", 1) == 2
    assert last.index_of("chief", 0) == 0
    assert "worker 2 (10.0.0.3:80)" in describe_loss(chief, [2])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "needs the environment variable TF_CONFIG"),
        ("{", "is not JSON"),
        ("[]", "has no 'cluster'"),
        ({"cluster": {"worker": ADDRESSES}}, "has no 'task'"),
        (config({}), "got none"),
        (config({"ps": ADDRESSES}), "got 'ps'"),
        (config({"worker": ADDRESSES, "evaluator": ADDRESSES}), "got 'evaluator'"),
        (config({"worker": "host0:1"}), "is a list of addresses"),
        (config({"chief": ADDRESSES[:2], "worker": []}, "chief"), "one for 'chief'"),
        (config({"worker": ADDRESSES}, index=3), "no task of type 'worker' and index 3"),
        (config({"worker": ADDRESSES}, index="0"), "no task of type 'worker' and index '0'"),
        (config({"worker": ADDRESSES}, index=[0]), r"no task of type 'worker' and index \[0\]"),
        (config({"worker": ADDRESSES}, "chief"), "no task of type 'chief'"),
        (config({"worker": [*ADDRESSES, ADDRESSES[0]]}), "listed twice"),
        (config({"worker": ["host0"]}), "got 'host0'"),
        (config({"worker": ["host0:0"]}), "got 'host0:0'"),
        (config({"worker": ["host0:65536"]}), "got 'host0:65536'"),
        (config({"worker": ["host0:²"]}), "'host:port'"),
        (config({"worker": [["host0", 1]]}), "'host:port'"),
    ],
)
def test_what_is_no_cluster_is_refused_in_one_sentence(
    content: object, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=says):
        read(monkeypatch, content)


def test_the_program_refuses_a_missing_tf_config(
    tmp_path: Path, refuse: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    flags = ("--dataset=fashion_mnist_sample", f"--run_dir={tmp_path / 'run'}")
    refuse("train", *flags, "--strategy=multi_worker", says="needs the environment variable TF_CONFIG")
    refuse(
        "train", *flags, "--strategy=multi_worker", "--virtual_devices=2", says="--virtual_devices above 1"
    )
    assert not (tmp_path / "run").exists()
