"""Keras ensembles as targets: of a run directory or a ``.keras`` file."""

from pathlib import Path

import keras
import tensorflow as tf

from ncen_tf.base.files import sha256
from ncen_tf.ensembles.batch_norm import BatchNorm
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.ensembles.penalties import stack_logits
from ncen_tf.export.loading import load_ensemble
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.train.trained import load_trained


class KerasTarget:
    """An ensemble in TensorFlow.

    Args:
        ensemble: what is attacked, an ensemble or a single classifier; with ``batch_statistics`` its BatchNorm layers are changed.
        description: stands in reports.
        sha256: digest of its weights or file.
        batch_statistics: normalise with the statistics of each batch, as in training, instead of the
            moving ones: an image's answer then depends on its batch.
    """

    gives_logits = True
    providers: tuple[str, ...] = ()

    def __init__(
        self, ensemble: keras.Model, description: str, sha256: str, batch_statistics: bool = False
    ) -> None:
        members = ensemble.members if isinstance(ensemble, Ensemble) else [ensemble]
        self.keras_model = ensemble
        self._models = members
        self.description = f"{description}, batch statistics" if batch_statistics else description
        self._batch_statistics = batch_statistics
        if batch_statistics:
            for layer in (layer for member in members for layer in member.layers):
                if isinstance(layer, BatchNorm):
                    layer.momentum = 1.0  # Moving statistics stay as they were trained.
        self.sha256 = sha256
        member = members[0]
        self.image_shape: tuple[int, int, int] = tuple(member.input_shape[1:])
        self.classes: int = member.output_shape[-1]
        self.members = len(members)

    def member_logits(self, images: tf.Tensor) -> tf.Tensor:
        return stack_logits(self._models, [images] * self.members, self._batch_statistics)


def open_run(path: Path, batch_statistics: bool = False) -> KerasTarget:
    """The ensemble of a run directory, finished or at its newest checkpoint.

    Raises:
        InputError: no run, nothing saved yet, or a damaged file.
    """
    trained = load_trained(RunDirectory(path))
    state = "finished" if trained.finished else f"after {trained.epochs_done} epochs"
    return KerasTarget(trained.ensemble, f"run {path}, {state}", trained.weights_sha256(), batch_statistics)


def open_keras_file(path: Path, batch_statistics: bool = False) -> KerasTarget:
    """An ensemble saved as ``.keras``, read in safe mode and tried.

    Raises:
        InputError: a damaged or hostile file, or no ensemble of this package.
    """
    return KerasTarget(load_ensemble(path), f"keras {path}", sha256(path), batch_statistics)
