"""Measure PGD and MI-FGSM on one ensemble: this package on Keras and ONNX beside other packages' attacks.

python -m benchmarks.attacks --target=runs/NAME --out=docs/benchmarks/attacks.json
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from benchmarks.ceiling import ceiling
from benchmarks.peers.attack_libraries import LIBRARIES, Images, Task
from benchmarks.results import Row, Table, publish, timing_rows
from benchmarks.timing import Candidate, Failure, Outcome, Run, Timing, interleaved
from benchmarks.trained_ensemble import EnsembleFlags, write_onnx
from ncen_tf import program
from ncen_tf.attack.attack import Attack, find_attack
from ncen_tf.attack.objectives import Objective
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.targets.opening import open_target

ABOUT = """Every side maximises the cross-entropy of the ensemble's mean probabilities for the same images
in one batch, and starts at the images themselves: PGD has no random start here. Robust accuracy is over all
images, judged by the Keras ensemble for every side; where it is equal, so is the work. The first call
includes imports, conversion and tracing. The packages get the ensemble as a Python callable, as their
manuals say; torchattacks gets a PyTorch ensemble with the same weights."""


class AttackFlags(EnsembleFlags):
    """Flags of the program."""

    images: int = Field(100, ge=10, description="Number of class-balanced test images, attacked as one batch")
    steps: int = Field(40, ge=1, description="Number of gradient steps")
    eps: float = Field(0.1, gt=0, description="Perturbation bound in Linf")
    step_size: float = Field(0.01, gt=0, description="Size of each gradient step")


def main(flags: AttackFlags) -> None:
    ensemble, description = flags.load_ensemble()
    images, labels = flags.balanced_images(flags.images)
    settings = (ensemble, images, labels, flags.eps, flags.step_size, flags.steps)
    kinds: tuple[Literal["PGD", "MI-FGSM"], ...] = ("PGD", "MI-FGSM")
    with tempfile.TemporaryDirectory() as folder:
        tables = [compare(Task(kind, *settings), flags.rounds, Path(folder)) for kind in kinds]
    clean = accuracy(Task("PGD", *settings), images)
    about = f"{ABOUT} {description}; its clean accuracy is {clean:.3f}."
    publish("attacks", "Attacks", about, [*tables, ceiling(flags)], flags)


def compare(task: Task, rounds: int, folder: Path) -> Table:
    """Time every side on one attack."""
    candidates: dict[str, Candidate] = {
        "ncen_tf, Keras": lambda: ours(task, task.ensemble),
        "ncen_tf, ONNX": lambda: ours(task, write_onnx(task.ensemble, folder)),
    }
    candidates |= {name: functools.partial(make, task) for name, make in LIBRARIES.items()}
    outcomes = interleaved(candidates, rounds)
    rows = [
        row | strength(task, outcome)
        for row, outcome in zip(timing_rows(outcomes, len(task.images)), outcomes.values(), strict=True)
    ]
    fastest = min(o.median for o in outcomes.values() if isinstance(o, Timing))
    for row, outcome in zip(rows, outcomes.values(), strict=True):
        row["/ fastest"] = outcome.median / fastest if isinstance(outcome, Timing) else None
    return Table(f"{task.attack}-{task.steps}, Linf {task.eps:g}, {len(task.images)} images", rows)


def ours(task: Task, model: Ensemble | Path) -> Run:
    """Attack a model with this package."""
    make: Callable[..., Attack] = find_attack("BIM" if task.attack == "PGD" else "MI-FGSM")
    attack = make(eps=task.eps, steps=task.steps, step_size=task.step_size)
    objective = Objective(open_target(model), "ensemble")
    return lambda: attack(objective, task.images, task.labels, 0)


def strength(task: Task, outcome: Outcome) -> Row:
    """Measure what the images of a side do, and how far they are from the originals."""
    if isinstance(outcome, Failure):
        return {}
    found = outcome.result
    return {
        "first call s": outcome.first,
        "robust accuracy": accuracy(task, found),
        "largest change": float(abs(found - task.images).max()),
    }


def accuracy(task: Task, images: Images) -> float:
    """Compute the accuracy of the Keras ensemble."""
    predicted = task.ensemble.predict(images, verbose=0).argmax(1)
    return float((predicted == task.labels).mean())


if __name__ == "__main__":
    program.run(AttackFlags, main)
