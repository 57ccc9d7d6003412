"""Models, to their answer for a batch."""

from pathlib import Path

from ncen_tf.base.errors import InputError
from tests.fuzzing.case import MODEL


def onnx(folder: Path) -> None:
    """White-box, and as a file that is only queried; the gradient of one batch."""
    import tensorflow as tf

    from ncen_tf.targets.opening import open_target

    refused = None
    for differentiable in (True, False):
        try:
            target = open_target(folder / MODEL, differentiable=differentiable).target
        except InputError as error:
            refused = error
            continue
        images = tf.zeros((3, *target.image_shape))
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = target.member_logits(images)
        if differentiable:
            tape.gradient(logits, images)
    if refused:
        raise refused


def onnx_parity(folder: Path) -> None:
    """As ``ncen_tf.export --verify`` opens files."""
    from ncen_tf.export.conversion import file_predictor

    file_predictor(folder / MODEL)


def keras(folder: Path) -> None:
    """An ensemble in a ``.keras`` file."""
    from ncen_tf.targets.keras_target import open_keras_file

    open_keras_file(folder / "ensemble.keras")


def saved_model(folder: Path) -> None:
    """A SavedModel, to the answer for a batch."""
    import numpy as np

    from ncen_tf.targets.opening import open_target

    target = open_target(folder).target
    target.member_logits(np.zeros((2, *target.image_shape), np.float32))


def run(folder: Path) -> None:
    """The ensemble of a run."""
    from ncen_tf.targets.keras_target import open_run

    open_run(folder)


def checkpoint(folder: Path) -> None:
    """The ensemble of a run that is not finished."""
    run(folder)
