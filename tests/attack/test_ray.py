"""Attacks on a Ray cluster of two nodes here: the results of a local run, also when a node is lost."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ncen_tf
from ncen_tf.attack.iterative import RestartedPgd
from ncen_tf.attack.objectives import Objective
from ncen_tf.attack.runner import Job, attack_batch
from ncen_tf.base.errors import InputError
from ncen_tf.base.ray_cluster import require_room
from tests.conftest import ROOT
from tests.ray_cluster import MEMORY, nodes

ray = pytest.importorskip("ray")

from ncen_tf.attack import ray_workers  # noqa: E402 # it imports Ray

REFERENCE = ROOT / "exports/reference/ensemble.onnx"
ATTACK = RestartedPgd(eps=0.1, steps=3, step_size=0.04, restarts=2)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with nodes(1, 1) as cluster:
        yield cluster


@pytest.fixture
def jobs() -> list[Job]:
    test = ncen_tf.load_data("fashion_mnist_sample").test
    images = test.float_images()
    return [Job(n, images[2 * n : 2 * n + 2], test.labels[2 * n : 2 * n + 2], seed=n) for n in range(6)]


@pytest.mark.parametrize("batch_size", [2, 10])
def test_a_report_is_that_of_a_local_run(
    batch_size: int, cluster: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = ncen_tf.load_data("fashion_mnist_sample").test
    suite = ncen_tf.Suite(name="pgd", attacks=(ATTACK,), objective="ensemble", batch_size=batch_size)
    local, distributed = (
        ncen_tf.evaluate(REFERENCE, data, suite=suite, examples=10, ray=address) for address in (None, "auto")
    )
    assert distributed.attacks[0].robust_accuracy == local.attacks[0].robust_accuracy
    assert distributed.attacks[0].mean_l2_broken == local.attacks[0].mean_l2_broken
    assert ("1 batches of images leave 1 of 2 workers idle" in caplog.text) == (batch_size == 10)


def test_workers_that_there_is_no_room_for(cluster: Any) -> None:
    assert (require_room(1, 0), require_room(0.5, 0), require_room(0.7, 0)) == (2, 4, 2)
    with pytest.raises(InputError, match="No node of the Ray cluster has 2 CPUs and 0 GPUs"):
        require_room(2, 0)
    with pytest.raises(InputError, match="No node of the Ray cluster has 1 CPUs and 1 GPUs"):
        require_room(1, 1)


def test_an_open_target_is_refused(cluster: Any) -> None:
    target = ncen_tf.open_target(REFERENCE)
    data = ncen_tf.load_data("fashion_mnist_sample").test
    with pytest.raises(InputError, match="a target that its workers can open"):
        ncen_tf.evaluate(target, data, suite="quick", examples=10, ray="auto")


def test_a_lost_node_loses_no_batch(cluster: Any, jobs: list[Job]) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    target = ncen_tf.open_target(REFERENCE)
    done: dict[int, Any] = {}
    with ray_workers.workers("auto", REFERENCE, {}, "ensemble", len(jobs)) as run_jobs:
        for number, batch in run_jobs(ATTACK, jobs):
            assert number not in done
            done[number] = batch
            if len(done) == 1:
                cluster.remove_node(node, allow_graceful=False)
    assert done.keys() == set(range(6))
    for job in jobs:
        expected = attack_batch(ATTACK, Objective(target, "ensemble"), job)
        np.testing.assert_array_equal(done[job.number].adversarials, expected.adversarials)
        assert (done[job.number].queries, done[job.number].gradients) == (
            expected.queries,
            expected.gradients,
        )
