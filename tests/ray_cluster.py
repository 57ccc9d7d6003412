"""A Ray cluster of real nodes on this machine."""

import contextlib
from collections.abc import Iterator
from typing import Any

MEMORY = 100 << 20
"""Bytes of each node's object store."""


@contextlib.contextmanager
def nodes(*cpus: int) -> Iterator[Any]:
    """Start a node for each number of CPUs, the first one with the head, and connect this process to them.

    Yields:
        The ``ray.cluster_utils.Cluster``, whose ``worker_nodes`` are the others.
    """
    import ray  # optional
    from ray.cluster_utils import Cluster

    head = {"num_cpus": cpus[0], "include_dashboard": False, "object_store_memory": MEMORY}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for number in cpus[1:]:
            cluster.add_node(num_cpus=number, object_store_memory=MEMORY)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
