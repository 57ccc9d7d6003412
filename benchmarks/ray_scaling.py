"""Measure an evaluation on Ray with one worker of one core and with more, and what Ray costs a short one.

python -m benchmarks.ray_scaling --out=docs/benchmarks/ray_scaling.json
"""

import os
import time
from pathlib import Path

import ray
from pydantic import Field

import ncen_tf
from benchmarks.results import BenchmarkFlags, Row, Table, publish
from ncen_tf import program
from ncen_tf.attack.auto_pgd import AutoPgdCrossEntropy

ABOUT = """Each worker has one core. `strict` is that suite in Linf at eps 0.1, on {examples} images of
FashionMNIST in batches of {batch_size}, once for each number of workers; `short` is one step of Auto-PGD on
one batch. Without Ray, this process attacks with one thread. A worker is warm when it has attacked before."""


class RayFlags(BenchmarkFlags):
    """Flags of the program."""

    target: Path = Field(Path("exports/reference/ensemble.onnx"), description="Model that is attacked")
    examples: int = Field(200, ge=1, description="Number of images")
    batch_size: int = Field(10, ge=1, description="Number of images in a task")
    rounds: int = Field(1, ge=1, le=1, description="Number of times that each side is timed")
    workers: tuple[int, ...] = Field((1, 2), description="Numbers of workers")


def main(flags: RayFlags) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    test = ncen_tf.load_data("fashion_mnist_sample").test

    step = AutoPgdCrossEntropy(eps=0.1, steps=1)
    short = ncen_tf.Suite(name="short", attacks=(step,), objective="ensemble", batch_size=flags.batch_size)
    strict = ncen_tf.load_suite("strict", test.images.shape[1:], norm="Linf")
    strict = strict.with_choices(batch_size=flags.batch_size, check_gradients=False)

    def seconds(address: str | None, suite: ncen_tf.Suite, examples: int) -> float:
        started = time.perf_counter()
        ncen_tf.evaluate(flags.target, test, suite=suite, examples=examples, ray=address)
        return time.perf_counter() - started

    rows: list[Row] = []
    for workers in (0, *flags.workers):
        address = "auto" if workers else None
        started = time.perf_counter()
        if workers:
            ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        connection = time.perf_counter() - started
        row: Row = {
            "": f"{workers} workers" if workers else "without Ray",
            "start Ray s": connection if workers else None,
            "short, cold s": seconds(address, short, flags.batch_size),
            "short, warm s": seconds(address, short, flags.batch_size),
        }
        if workers:
            row["strict s"] = seconds(address, strict, flags.examples)
        rows.append(row)
        if workers:
            ray.shutdown()
    first = next(float(row["strict s"] or 0) for row in rows[1:])
    for row in rows[1:]:
        row["times as fast as one worker"] = first / float(row["strict s"] or 0)
    publish("ray_scaling", "Workers on Ray", ABOUT.format(**dict(flags)), [Table("Evaluation", rows)], flags)


if __name__ == "__main__":
    program.run(RayFlags, main)
