"""Latency of one ensemble: exported to ONNX and SavedModel, in Keras, and in PyTorch.

python -m benchmarks.inference --target=runs/NAME --out=docs/benchmarks/inference.json
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from absl import flags

from benchmarks.ceiling import ceiling
from benchmarks.report import ROUNDS, publish, whole_numbers
from benchmarks.table import Table, timing_rows
from benchmarks.target import open_ensemble, write_onnx
from benchmarks.timing import Candidate, Outcome, Run, Timing, interleaved, ratio
from ncen_tf import program
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.export.conversion import Predict, ensemble_predictor, file_predictor, save_saved_model

Side = Callable[[Ensemble, Path], Predict]

BATCHES = flags.DEFINE_list("batches", ["1", "64", "256"], "images a call")
CALLS = flags.DEFINE_integer("calls", 10, "calls in a row each time", lower_bound=1)

TOLERANCE = 1e-4
ABOUT = """One call takes images as a NumPy array and gives the ensemble's probabilities as one. ONNX runs
in onnxruntime, SavedModel through its serving signature, Keras as a `tf.function`, PyTorch eagerly in
inference mode with the same weights. All give the same probabilities within 1e-4, which is checked on
what was timed."""


def main() -> None:
    batches = whole_numbers(BATCHES)
    ensemble, name = open_ensemble()

    with tempfile.TemporaryDirectory() as folder:
        tables = [compare(ensemble, batch, Path(folder)) for batch in batches]
    members = ", ".join(member.name for member in ensemble.members)
    about = f"{ABOUT} The ensemble is {name} ({members})."
    publish("inference", "Inference", about, [*tables, ceiling(ROUNDS.value)])


def compare(ensemble: Ensemble, batch: int, folder: Path) -> Table:
    """Time every side at one batch size."""
    shape = (batch, *ensemble.members[0].input_shape[1:])
    images = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    sides = {"ONNX": onnx, "SavedModel": saved_model, "Keras": keras, "PyTorch": torch}
    candidates: dict[str, Candidate] = {
        name: functools.partial(ready, make, ensemble, folder, images) for name, make in sides.items()
    }
    outcomes = interleaved(candidates, ROUNDS.value, calls=CALLS.value)
    check_same_answers(outcomes)
    rows = timing_rows(outcomes, batch)
    for row, outcome in zip(rows, outcomes.values(), strict=True):
        row["/ ONNX"] = ratio(outcome, outcomes["ONNX"])
    return Table(f"Batch {batch}", rows)


def ready(make: Side, ensemble: Ensemble, folder: Path, images: npt.NDArray[np.float32]) -> Run:
    """One side, bound to the images."""
    return functools.partial(make(ensemble, folder), images)


def onnx(ensemble: Ensemble, folder: Path) -> Predict:
    """As ``ncen_tf.export`` writes it, in onnxruntime."""
    return file_predictor(write_onnx(ensemble, folder))


def saved_model(ensemble: Ensemble, folder: Path) -> Predict:
    """As ``ncen_tf.export`` writes it, in TensorFlow."""
    out = folder / "saved_model"
    if not out.exists():
        save_saved_model(ensemble.members, ensemble.members[0].input_shape[1:], out)
    return file_predictor(out)


def keras(ensemble: Ensemble, folder: Path) -> Predict:
    """As it was trained."""
    return ensemble_predictor(ensemble.members, ensemble.members[0].input_shape[1:])


def torch(ensemble: Ensemble, folder: Path) -> Predict:
    """The same weights in PyTorch."""
    from benchmarks.peers.torch_resnet import torch_predictor

    return torch_predictor(ensemble.members)


def check_same_answers(outcomes: dict[str, Outcome]) -> None:
    """Stop unless all sides computed the same probabilities.

    Raises:
        RuntimeError: they did not.
    """

    answers = {name: o.result for name, o in outcomes.items() if isinstance(o, Timing)}
    first = next(iter(answers.values()), None)
    for name, answer in answers.items():
        if not abs(answer - first).max() < TOLERANCE:
            raise RuntimeError(f"{name} gives other probabilities than {next(iter(answers))}.")


if __name__ == "__main__":
    program.run(main)
