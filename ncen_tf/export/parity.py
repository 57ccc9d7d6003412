"""Whether two ways of running an ensemble give the same answers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ncen_tf.data.loading import Split
from ncen_tf.base.errors import InputError
from ncen_tf.untrusted.memory import try_model
from ncen_tf.untrusted.onnx_file import open_session, read_model
from ncen_tf.untrusted.saved_model import load_saved_model
from ncen_tf.export.serving import IMAGE, PROBABILITIES
from ncen_tf.ensembles.ensemble import Ensemble

Images = npt.NDArray[np.float32]
Predict = Callable[[Images], npt.NDArray[np.float32]]
"""images [N, H, W, C] in [0, 1] -> probabilities [N, classes]"""

MAX_DIFFERENCE = 1e-5
BATCH_SIZES = (1, 7, 256)
BATCHED_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class Parity:
    """How far a file's probabilities are from the reference's, over ``images`` images."""

    images: int
    max_difference: float
    mean_difference: float
    different_predictions: int
    max_difference_between_batch_sizes: float

    @property
    def holds(self) -> bool:
        return (
            self.max_difference < MAX_DIFFERENCE
            and self.different_predictions == 0
            and self.max_difference_between_batch_sizes < MAX_DIFFERENCE
        )


def keras_predictor(ensemble: Ensemble) -> Predict:
    """The ensemble as trained."""
    compiled = tf.function(ensemble.predict_probabilities, reduce_retracing=True)
    return lambda images: compiled(tf.constant(images)).numpy()


def file_predictor(path: Path) -> Predict:
    """An exported ``.onnx`` file or SavedModel folder.

    Raises:
        InputError: the file cannot be loaded.
    """
    try:
        if path.suffix == ".onnx":
            session = open_session(read_model(path).SerializeToString())
            return lambda images: session.run([PROBABILITIES], {IMAGE: images})[0]
        serve: Any = load_saved_model(path).signatures["serving_default"]
        (image,) = serve.structured_input_signature[1].values()
        try_model(path, image.shape[1:], lambda images: serve(image=tf.constant(images)))
        return lambda images: serve(image=tf.constant(images))[PROBABILITIES].numpy()
    except InputError:
        raise
    except Exception as error:  # onnxruntime's errors have no public base class
        raise InputError(f"{path} cannot be loaded: {' '.join(str(error).split())[:200]}") from error


def predict_all(predict: Predict, split: Split, batch_size: int = 256) -> npt.NDArray[np.float32]:
    """Probabilities [N, classes] for every image of a split."""
    starts = range(0, len(split), batch_size)
    batches = ((split.images[i : i + batch_size] / 255).astype(np.float32) for i in starts)
    return np.concatenate([predict(batch) for batch in batches])


def measure_parity(reference: npt.NDArray[np.float32], predict: Predict, split: Split) -> Parity:
    """Compare with the reference's probabilities on a whole split, and batch sizes with one another."""
    probabilities = predict_all(predict, split)
    difference = np.abs(probabilities - reference)
    return Parity(
        images=len(split),
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        different_predictions=int((probabilities.argmax(1) != reference.argmax(1)).sum()),
        max_difference_between_batch_sizes=difference_between_batch_sizes(predict, split),
    )


def difference_between_batch_sizes(predict: Predict, split: Split) -> float:
    """Largest difference between probabilities of the same image in batches of :data:`BATCH_SIZES`."""
    part = Split(split.images[:BATCHED_IMAGES], split.labels[:BATCHED_IMAGES])
    by_size = [predict_all(predict, part, size) for size in BATCH_SIZES]
    return max(float(np.abs(probabilities - by_size[0]).max()) for probabilities in by_size)
