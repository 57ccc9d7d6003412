"""Measure the latency of one ensemble: exported to ONNX and SavedModel, in Keras, and in PyTorch.

python -m benchmarks.inference --target=runs/NAME --out=docs/benchmarks/inference.json
"""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from benchmarks.ceiling import ceiling
from benchmarks.results import Table, publish, timing_rows
from benchmarks.timing import Candidate, Outcome, Run, Timing, interleaved, ratio
from benchmarks.trained_ensemble import EnsembleFlags, write_onnx
from ncen_tf import program
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.export.conversion import Predict, ensemble_predictor, file_predictor, save_saved_model

Side = Callable[[Ensemble, Path], Predict]

TOLERANCE = 1e-4
ABOUT = """One call takes images as a NumPy array and returns the probabilities of the ensemble as another.
ONNX runs in onnxruntime, SavedModel through its serving signature, Keras as a `tf.function`, PyTorch
eagerly in inference mode with the same weights. All give the same probabilities within 1e-4, which is
checked on the measured results."""


class InferenceFlags(EnsembleFlags):
    """Flags of the program."""

    batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 64, 256), description="Numbers of images per call"
    )
    calls: int = Field(10, ge=1, description="Number of calls in a row that are timed together")


def main(flags: InferenceFlags) -> None:
    ensemble, description = flags.load_ensemble()
    with tempfile.TemporaryDirectory() as folder:
        tables = [compare(flags, ensemble, batch, Path(folder)) for batch in flags.batches]
    publish("inference", "Inference", f"{ABOUT} {description}.", [*tables, ceiling(flags)], flags)


def compare(flags: InferenceFlags, ensemble: Ensemble, batch: int, folder: Path) -> Table:
    """Time every side at one batch size."""
    shape = (batch, *ensemble.members[0].input_shape[1:])
    images = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    sides = {"ONNX": onnx, "SavedModel": saved_model, "Keras": keras, "PyTorch": torch}
    candidates: dict[str, Candidate] = {
        name: functools.partial(ready, make, ensemble, folder, images) for name, make in sides.items()
    }
    outcomes = interleaved(candidates, flags.rounds, calls=flags.calls)
    check_same_answers(outcomes)
    rows = timing_rows(outcomes, batch)
    for row, outcome in zip(rows, outcomes.values(), strict=True):
        row["/ ONNX"] = ratio(outcome, outcomes["ONNX"])
    return Table(f"Batch {batch}", rows)


def ready(make: Side, ensemble: Ensemble, folder: Path, images: npt.NDArray[np.float32]) -> Run:
    """Make one side ready for the images."""
    return functools.partial(make(ensemble, folder), images)


def onnx(ensemble: Ensemble, folder: Path) -> Predict:
    """Run the exported ONNX file in onnxruntime."""
    return file_predictor(write_onnx(ensemble, folder))


def saved_model(ensemble: Ensemble, folder: Path) -> Predict:
    """Run the exported SavedModel in TensorFlow."""
    out = folder / "saved_model"
    if not out.exists():
        save_saved_model(ensemble.members, ensemble.members[0].input_shape[1:], out)
    return file_predictor(out)


def keras(ensemble: Ensemble, folder: Path) -> Predict:
    """Run the Keras ensemble."""
    return ensemble_predictor(ensemble.members, ensemble.members[0].input_shape[1:])


def torch(ensemble: Ensemble, folder: Path) -> Predict:
    """Run the same weights in PyTorch."""
    from benchmarks.peers.torch_resnet import torch_predictor

    return torch_predictor(ensemble.members)


def check_same_answers(outcomes: dict[str, Outcome]) -> None:
    """Check that all sides computed the same probabilities.

    Raises:
        RuntimeError: They did not.
    """
    answers = {name: o.result for name, o in outcomes.items() if isinstance(o, Timing)}
    first = next(iter(answers.values()), None)
    for name, answer in answers.items():
        if not abs(answer - first).max() < TOLERANCE:
            raise RuntimeError(f"{name} computes other probabilities than {next(iter(answers))}.")


if __name__ == "__main__":
    program.run(InferenceFlags, main)
