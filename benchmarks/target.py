"""The trained ensemble that benchmarks of inference and attacks are about, and the images they show it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from absl import flags

from ncen_tf.base.errors import InputError
from ncen_tf.data import location_flags
from ncen_tf.data.datasets import DATASETS
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.export.conversion import convert_to_onnx
from ncen_tf.targets.keras_target import KerasTarget
from ncen_tf.targets.opening import open_target

TARGET = flags.DEFINE_string("target", None, "run directory or .keras file of a trained ensemble")
DATASET = flags.DEFINE_enum("dataset", "fashion_mnist_sample", list(DATASETS), "whose test images are used")
flags.adopt_module_key_flags(location_flags)


def open_ensemble() -> tuple[Ensemble, str]:
    """The ensemble of ``--target``, and what it is called.

    Raises:
        InputError: none is named, or it is no Keras ensemble.
    """
    if not TARGET.value:
        raise InputError("--target names the trained ensemble to measure: a run directory or .keras file.")

    target = open_target(Path(TARGET.value)).target
    if not isinstance(target, KerasTarget):
        raise InputError(
            f"{TARGET.value} is no run directory and no .keras file: every side is made from one."
        )
    return target.keras_model, Path(TARGET.value).name


def write_onnx(ensemble: Ensemble, folder: Path) -> Path:
    """Export an ensemble to ``ensemble.onnx`` in a folder; one that is there already is taken."""
    file = folder / "ensemble.onnx"
    if not file.exists():
        model = convert_to_onnx(ensemble.members, ensemble.members[0].input_shape[1:], {})
        file.write_bytes(model.SerializeToString())
    return file


def balanced_images(count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Class-balanced test images [N, H, W, C] in [0, 1] and labels [N]."""
    test = location_flags.load_from_flags(DATASET.value, test_examples=count).test
    return (test.images / 255).astype(np.float32), test.labels.astype(np.int32)
