"""The trained ensemble that the benchmarks of inference and attacks measure, and its images."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field

import ncen_tf
from benchmarks.results import BenchmarkFlags
from ncen_tf.data.loading import DataFlags
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.export.conversion import convert_to_onnx


class EnsembleFlags(BenchmarkFlags, DataFlags):
    """Flags of benchmarks that measure a trained ensemble."""

    target: Path = Field(description="Run directory or .keras file of a trained ensemble")
    dataset: str = Field("fashion_mnist_sample", description="Name of the dataset with the images")

    def load_ensemble(self) -> tuple[Ensemble, str]:
        """Load the ensemble, and return it with a description."""
        ensemble = ncen_tf.load_ensemble(self.target)
        members = ", ".join(member.name for member in ensemble.members)
        return ensemble, f"The ensemble is {self.target.name} ({members})"

    def balanced_images(self, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
        """Load class-balanced test images [N, H, W, C] in [0, 1] and labels [N]."""
        test = self.load(test_examples=count).test
        return test.float_images(), test.labels


def write_onnx(ensemble: Ensemble, folder: Path) -> Path:
    """Write ``ensemble.onnx`` into a folder, unless it is there already."""
    file = folder / "ensemble.onnx"
    if not file.exists():
        model = convert_to_onnx(ensemble.members, ensemble.members[0].input_shape[1:], {})
        file.write_bytes(model.SerializeToString())
    return file
