"""Start-up time of every program, speed of the input pipeline, peak memory of a training and of an attack.

python -m benchmarks.startup_and_memory --out=docs/benchmarks/startup_and_memory.json
"""

import functools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import ncen_tf
from benchmarks.report import ROUNDS, publish
from benchmarks.table import Row, Table, timing_rows
from benchmarks.timing import Candidate, Run, interleaved
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import load_data
from ncen_tf.data.pipeline import training_batches

ARCHITECTURE = flags.DEFINE_list("architecture", ["resnet20"] * 3, "members that are trained and attacked")
TRAINED = flags.DEFINE_integer("train_examples", 600, "images of an epoch of training", lower_bound=10)
ATTACKED = flags.DEFINE_integer("attacked_examples", 100, "attacked images", lower_bound=10)
MEMORY_ROUNDS = flags.DEFINE_integer("memory_rounds", 3, "trainings and attacks", lower_bound=1)
BATCH = 64
# Linux counts to a process's peak what its parent held when it was started, and this one holds TensorFlow.
LAUNCHER = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""

ABOUT = f"""Start-up is the wall-clock time of `python -m ncen_tf.NAME --help` as a process of its own,
beside an empty Python and one that imports TensorFlow. The input pipeline gives batches of {BATCH} from
the embedded sample, augmented and with noise, to nobody. Memory is the most that a process ever held
(`ru_maxrss`), the median over processes: an epoch with NCE, the export of what it trained, and
the suite `quick` on the ONNX file."""


def main() -> None:
    publish(
        "startup_and_memory",
        "Start-up, input pipeline, memory",
        ABOUT,
        [startup(), pipeline(), memory()],
    )


def startup() -> Table:
    """``--help`` of every program."""
    candidates: dict[str, Candidate] = {
        "python, nothing": lambda: functools.partial(python, "-c", ""),
        "python, TensorFlow": lambda: functools.partial(python, "-c", "import tensorflow"),
    }
    for file in sorted(Path(ncen_tf.__path__[0]).glob("*.py")):
        if "program.run(main)" in file.read_text(encoding="utf-8"):
            name = f"ncen_tf.{file.stem}"
            candidates[name] = functools.partial(help_of, name)
    return Table("Start-up", timing_rows(interleaved(candidates, ROUNDS.value)))


def pipeline() -> Table:
    """Epochs of batches without a training."""
    dataset = load_data("fashion_mnist_sample")

    def ready() -> Run:
        batches = training_batches(
            dataset.train,
            BATCH,
            epoch=0,
            seed=0,
            noise_eps=0.3,
            crop_padding=4,
            flip=False,
        )
        return lambda: sum(1 for _ in batches)

    outcomes = interleaved({f"batches of {BATCH}": ready}, ROUNDS.value)
    return Table("Input pipeline, an epoch", timing_rows(outcomes, 2 * len(dataset.train)))


def memory() -> Table:
    """Peak memory of whole programs."""
    data = "--dataset=fashion_mnist_sample"
    measured: dict[str, list[tuple[float, float]]] = {}
    for _ in range(MEMORY_ROUNDS.value):
        with tempfile.TemporaryDirectory() as folder:
            run, export = f"{folder}/run", f"{folder}/export"
            train = [
                data,
                f"--architecture={','.join(ARCHITECTURE.value)}",
                "--epochs=1",
                "--test_examples=100",
            ]
            train += [f"--train_examples={TRAINED.value}", f"--run_dir={run}"]
            attack = [data, f"--target={export}", f"--num_examples={ATTACKED.value}", "--suite=quick"]
            attack += [f"--out={folder}/report"]
            commands = {
                "python, nothing": ["-c", ""],
                "python, TensorFlow": ["-c", "import tensorflow"],
                f"train, {TRAINED.value} images": ["-m", "ncen_tf.train", *train],
                "export": ["-m", "ncen_tf.export", f"--run={run}", f"--out={export}"],
                f"attack, {ATTACKED.value} images": ["-m", "ncen_tf.attack", *attack],
            }
            for name, arguments in commands.items():
                measured.setdefault(name, []).append(peak_memory(arguments))
    rows: list[Row] = []
    for name, values in measured.items():
        peaks, seconds = zip(*values, strict=True)
        rows.append({"": name, "peak MiB": statistics.median(peaks), "seconds": statistics.median(seconds)})
    return Table(f"Peak memory, {' + '.join(ARCHITECTURE.value)}", rows)


def help_of(name: str) -> Run:
    """``--help`` of a program; what it runs raises RuntimeError if something else is printed."""

    def run() -> None:
        # absl ends --help with exit code 1, as a crash does
        done = python("-m", name, "--help")
        if "Try --helpfull" not in done.stdout:
            raise RuntimeError(f"{name} --help failed: {done.stderr[-300:]}")

    return run


def peak_memory(arguments: Sequence[str]) -> tuple[float, float]:
    """Run Python to its end; its peak memory in MiB and its seconds.

    Raises:
        InputError: the process failed.
    """
    started = time.perf_counter()
    done = python("-c", LAUNCHER, *arguments)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise InputError(f"{' '.join(arguments)} failed: {done.stderr[-300:]}")
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return int(done.stdout) / unit, seconds


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with arguments, as a process of its own."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


if __name__ == "__main__":
    program.run(main)
