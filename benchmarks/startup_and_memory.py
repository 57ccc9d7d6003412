"""Measure the start-up time of every program, the input pipeline, and the memory of training and attack.

python -m benchmarks.startup_and_memory --out=docs/benchmarks/startup_and_memory.json
"""

import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

from pydantic import Field

from benchmarks.results import BenchmarkFlags, Row, Table, publish, timing_rows
from benchmarks.timing import Candidate, Run, interleaved
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data.loading import load_data
from ncen_tf.data.pipeline import training_batches

BATCH = 64
# On Linux the peak of a process includes the memory of its parent at the start, and this one has TensorFlow.
LAUNCHER = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""

ABOUT = f"""Start-up is the wall-clock time of `python -m ncen_tf.NAME --help` as a process of its own,
beside an empty Python and one that imports TensorFlow. The input pipeline makes batches of {BATCH} from the
embedded sample, augmented and with noise, which nobody uses. Memory is the most that a process ever used
(`ru_maxrss`), the median over processes: an epoch with NCE, the export of what it trained, and the suite
`quick` on the ONNX file."""


class StartupFlags(BenchmarkFlags):
    """Flags of the program."""

    architecture: tuple[str, ...] = Field(("resnet20",) * 3, description="Architecture of each member")
    train_examples: int = Field(600, ge=10, description="Number of images in an epoch of training")
    attacked_examples: int = Field(100, ge=10, description="Number of attacked images")
    memory_rounds: int = Field(3, ge=1, description="Number of trainings and attacks")


def main(flags: StartupFlags) -> None:
    tables = [startup(flags), pipeline(flags), memory(flags)]
    publish("startup_and_memory", "Start-up, input pipeline, memory", ABOUT, tables, flags)


def startup(flags: StartupFlags) -> Table:
    """Time ``--help`` of every program."""
    candidates: dict[str, Candidate] = {
        "python, nothing": lambda: functools.partial(python, "-c", ""),
        "python, TensorFlow": lambda: functools.partial(python, "-c", "import tensorflow"),
    }
    for name in program.PROGRAMS:
        candidates[f"ncen_tf.{name}"] = functools.partial(help_of, f"ncen_tf.{name}")
    return Table("Start-up", timing_rows(interleaved(candidates, flags.rounds)))


def pipeline(flags: StartupFlags) -> Table:
    """Time epochs of batches without a training."""
    dataset = load_data("fashion_mnist_sample")

    def ready() -> Run:
        batches = training_batches(
            dataset.train, BATCH, epoch=0, seed=0, noise_eps=0.3, crop_padding=4, flip=False
        )
        return lambda: sum(1 for _ in batches)

    outcomes = interleaved({f"batches of {BATCH}": ready}, flags.rounds)
    return Table("Input pipeline, an epoch", timing_rows(outcomes, 2 * len(dataset.train)))


def memory(flags: StartupFlags) -> Table:
    """Measure the peak memory of whole programs."""
    data = "--dataset=fashion_mnist_sample"
    measured: dict[str, list[tuple[float, float]]] = {}
    for _ in range(flags.memory_rounds):
        with tempfile.TemporaryDirectory() as folder:
            run, export = f"{folder}/run", f"{folder}/export"
            train = [data, f"--architecture={','.join(flags.architecture)}", "--epochs=1", f"--run_dir={run}"]
            train += [f"--train_examples={flags.train_examples}", "--test_examples=100"]
            attack = [data, f"--target={export}", "--suite=quick", f"--out={folder}/report"]
            attack += [f"--num_examples={flags.attacked_examples}"]
            commands = {
                "python, nothing": ["-c", ""],
                "python, TensorFlow": ["-c", "import tensorflow"],
                f"train, {flags.train_examples} images": ["-m", "ncen_tf.train", *train],
                "export": ["-m", "ncen_tf.export", f"--run={run}", f"--out={export}"],
                f"attack, {flags.attacked_examples} images": ["-m", "ncen_tf.attack", *attack],
            }
            for name, arguments in commands.items():
                measured.setdefault(name, []).append(peak_memory(arguments))
    rows: list[Row] = []
    for name, values in measured.items():
        peaks, seconds = zip(*values, strict=True)
        rows.append({"": name, "peak MiB": statistics.median(peaks), "seconds": statistics.median(seconds)})
    return Table(f"Peak memory, {' + '.join(flags.architecture)}", rows)


def help_of(name: str) -> Run:
    """Make a call of ``--help`` of a program, which raises RuntimeError if something else is printed."""

    def run() -> None:
        # absl ends --help with exit code 1, as a crash does
        done = python("-m", name, "--help")
        if "Try --helpfull" not in done.stdout:
            raise RuntimeError(f"{name} --help failed: {done.stderr[-300:]}")

    return run


def peak_memory(arguments: Sequence[str]) -> tuple[float, float]:
    """Run Python to its end, and return its peak memory in MiB and its seconds.

    Raises:
        InputError: The process failed.
    """
    started = time.perf_counter()
    done = python("-c", LAUNCHER, *arguments)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise InputError(f"{' '.join(arguments)} failed: {done.stderr[-300:]}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return int(done.stdout) / unit, seconds


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments, as a process of its own."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


if __name__ == "__main__":
    program.run(StartupFlags, main)
