"""Write a SavedModel that plain TensorFlow serves."""

from pathlib import Path

import tensorflow as tf

from ncen_tf.base.files import without_patterns
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.export.serving import serving_function


def save_saved_model(ensemble: Ensemble, image_shape: tuple[int, int, int], folder: Path) -> None:
    """Write a SavedModel with the signature ``serving_default``; loading it does not need this package."""
    module = tf.Module()
    module.weights = [variable.value for variable in ensemble.variables]
    serve = serving_function(ensemble, image_shape)
    folder.mkdir()
    with without_patterns(folder) as path:
        tf.saved_model.save(module, str(path), signatures={"serving_default": serve})
