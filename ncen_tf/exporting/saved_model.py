"""Export to a SavedModel that plain TensorFlow serves."""

from pathlib import Path

import tensorflow as tf

from ncen_tf.exporting.serving import serving_function
from ncen_tf.models.ensemble import Ensemble


def save_saved_model(ensemble: Ensemble, image_shape: tuple[int, int, int], folder: Path) -> None:
    """Write a SavedModel with the signature ``serving_default``; loading it does not need this package."""
    module = tf.Module()
    module.weights = [variable.value for variable in ensemble.variables]
    serve = serving_function(ensemble, image_shape)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": serve})
