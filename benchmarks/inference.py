"""Measure the latency of one ensemble: exported to ONNX and SavedModel, in Keras, and in PyTorch.

python -m benchmarks.inference --target=runs/NAME --out=docs/benchmarks/inference.json
"""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
from pydantic import Field

from benchmarks.ceiling import ceiling
from benchmarks.results import Table, publish, timing_rows
from benchmarks.timing import Outcome, Run, Timing, interleaved
from benchmarks.trained_ensemble import EnsembleFlags, write_onnx
from ncen_tf import program
from ncen_tf.export.conversion import Predict, ensemble_predictor, file_predictor, save_saved_model

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
    shape = ensemble.members[0].input_shape[1:]
    with tempfile.TemporaryDirectory() as folder:
        saved_model = Path(folder) / "saved_model"
        save_saved_model(ensemble.members, shape, saved_model)
        sides: dict[str, Callable[[], Predict]] = {
            "ONNX": lambda: file_predictor(write_onnx(ensemble, Path(folder))),
            "SavedModel": lambda: file_predictor(saved_model),
            "Keras": lambda: ensemble_predictor(ensemble.members, shape),
            "PyTorch": lambda: _torch_predictor(ensemble.members),
        }
        tables = [compare(flags, sides, (batch, *shape)) for batch in flags.batches]
    publish("inference", "Inference", f"{ABOUT} {description}.", [*tables, ceiling(flags)], flags)


def _torch_predictor(members: Sequence[keras.Model]) -> Predict:
    from benchmarks.peers.torch_resnet import torch_predictor

    return torch_predictor(members)


def compare(flags: InferenceFlags, sides: dict[str, Callable[[], Predict]], shape: tuple[int, ...]) -> Table:
    """Time every side on images of a shape."""
    images = np.random.default_rng(0).uniform(size=shape).astype(np.float32)

    def ready(make: Callable[[], Predict]) -> Run:
        return functools.partial(make(), images)

    candidates = {name: functools.partial(ready, make) for name, make in sides.items()}
    outcomes = interleaved(candidates, flags.rounds, calls=flags.calls)
    check_same_answers(outcomes)
    return Table(f"Batch {len(images)}", timing_rows(outcomes, len(images), relative_to="ONNX"))


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
