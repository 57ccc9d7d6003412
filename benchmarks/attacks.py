"""PGD and MI-FGSM on one ensemble: ours on Keras and ONNX beside other packages' attacks.

python -m benchmarks.attacks --target=runs/NAME --out=docs/benchmarks/attacks.json
"""

import functools
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import tensorflow as tf
from absl import flags

from benchmarks.ceiling import ceiling
from benchmarks.peers.attack_libraries import LIBRARIES, Images, Task
from benchmarks.report import ROUNDS, publish
from benchmarks.table import Row, Table, timing_rows
from benchmarks.target import balanced_images, open_ensemble, write_onnx
from benchmarks.timing import Candidate, Failure, Outcome, Run, Timing, interleaved
from ncen_tf import program
from ncen_tf.attack.basic_iterative import BasicIterative
from ncen_tf.attack.momentum_iterative import MomentumIterative
from ncen_tf.attack.objectives import Objective
from ncen_tf.targets.keras_target import KerasTarget
from ncen_tf.targets.onnx_target import OnnxTarget
from ncen_tf.targets.target import Target

IMAGES = flags.DEFINE_integer(
    "images", 100, "class-balanced test images, attacked as one batch", lower_bound=10
)
STEPS = flags.DEFINE_integer("steps", 40, "gradient steps", lower_bound=1)
EPS = flags.DEFINE_float("eps", 0.1, "Linf radius", lower_bound=1e-6)
STEP_SIZE = flags.DEFINE_float("step_size", 0.01, "of each gradient step", lower_bound=1e-6)

ABOUT = """Every side maximises the cross-entropy of the ensemble's mean probabilities for the same images
in one batch, and starts at the images themselves: PGD has no random start here. Robust accuracy is over
all images, judged by the Keras ensemble for every side; where it is equal, so is the work. The first call
includes imports, conversion and tracing. The packages get the ensemble as a Python callable, as their
manuals say; torchattacks gets a PyTorch ensemble with the same weights."""


def main() -> None:

    ensemble, name = open_ensemble()
    images, labels = balanced_images(IMAGES.value)

    settings = (ensemble, images, labels, EPS.value, STEP_SIZE.value, STEPS.value)
    kinds: tuple[Literal["PGD", "MI-FGSM"], ...] = ("PGD", "MI-FGSM")
    with tempfile.TemporaryDirectory() as folder:
        tables = [compare(Task(kind, *settings), Path(folder)) for kind in kinds]
    members = ", ".join(member.name for member in ensemble.members)
    clean = accuracy(Task("PGD", *settings), images)
    about = f"{ABOUT} The ensemble is {name} ({members}); its clean accuracy is {clean:.3f}."
    publish("attacks", "Attacks", about, [*tables, ceiling(ROUNDS.value)])


def compare(task: Task, folder: Path) -> Table:
    """Time every side on one attack."""
    candidates: dict[str, Candidate] = {
        "ncen_tf, Keras": functools.partial(ours_on_keras, task),
        "ncen_tf, ONNX": functools.partial(ours_on_onnx, task, folder),
    }
    candidates |= {name: functools.partial(make, task) for name, make in LIBRARIES.items()}
    outcomes = interleaved(candidates, ROUNDS.value)
    rows = [
        row | strength(task, outcome)
        for row, outcome in zip(timing_rows(outcomes, len(task.images)), outcomes.values(), strict=True)
    ]
    fastest = min(o.median for o in outcomes.values() if isinstance(o, Timing))
    for row, outcome in zip(rows, outcomes.values(), strict=True):
        row["/ fastest"] = outcome.median / fastest if isinstance(outcome, Timing) else None
    return Table(f"{task.attack}-{task.steps}, Linf {task.eps:g}, {len(task.images)} images", rows)


def ours_on_keras(task: Task) -> Run:
    """This package on the Keras ensemble."""
    return ours(task, KerasTarget(task.ensemble, "Keras", sha256=""))


def ours_on_onnx(task: Task, folder: Path) -> Run:
    """This package on its ONNX export."""
    return ours(task, OnnxTarget(write_onnx(task.ensemble, folder)))


def ours(task: Task, target: Target) -> Run:
    """This package's attack."""
    kind = BasicIterative if task.attack == "PGD" else MomentumIterative
    attack = kind(eps=task.eps, steps=task.steps, step_size=task.step_size)
    objective = Objective(target, "ensemble")
    x, y = tf.constant(task.images), tf.constant(task.labels)
    return lambda: np.asarray(attack(objective, x, y, 0))


def strength(task: Task, outcome: Outcome) -> Row:
    """What one side's images do, and how far they are from the originals."""
    if isinstance(outcome, Failure):
        return {}
    found = outcome.result
    return {
        "first call s": outcome.first,
        "robust accuracy": accuracy(task, found),
        "largest change": float(abs(found - task.images).max()),
    }


def accuracy(task: Task, images: Images) -> float:
    """Of the Keras ensemble."""
    predicted = np.asarray(task.ensemble.predict_probabilities(images)).argmax(1)
    return float((predicted == task.labels).mean())


if __name__ == "__main__":
    program.run(main)
