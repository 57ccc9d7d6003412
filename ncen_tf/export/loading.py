"""Load ensembles from files."""

from pathlib import Path

import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train import nc_ensemble  # noqa: F401 -- Keras is to know the class
from ncen_tf.untrusted.keras_file import load_keras_model
from ncen_tf.untrusted.memory import MEMORY, try_model


def read_ensemble(file: Path) -> Ensemble:
    """Load the ensemble in a ``.keras`` file, and try it on two images.

    Raises:
        InputError: The file is refused by :func:`load_keras_model`, holds no ensemble of this package, or
            its members do not take images and give logits of one shape.
    """
    model = load_keras_model(file)
    if not isinstance(model, Ensemble):
        raise InputError(f"{file} holds a {type(model).__name__}, not an ensemble of ncen_tf.")
    interfaces = {(member.input_shape, member.output_shape) for member in model.members}
    (images, logits), *others = interfaces or {((), ())}
    sizes = (*images[1:], *logits[1:])
    if others or (len(images), len(logits)) != (4, 2) or not all(isinstance(n, int) and n > 0 for n in sizes):
        raise InputError(
            f"{file}: its members do not all take [N, H, W, C] and give [N, classes], or not the same."
        )
    small = file.stat().st_size < MEMORY // 2 and not tf.config.list_physical_devices("GPU")
    try_model(file, images[1:], lambda images: model(images, training=False), MEMORY if small else None)
    return model
