"""The ensemble of a run, finished or not, in float32 and ready for inference."""

import dataclasses
import hashlib

import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.data.datasets import DATASETS, DatasetSpec
from ncen_tf.ensembles.ensemble import Ensemble, build_ensemble
from ncen_tf.train.checkpoint import checkpoint_epoch, checkpoint_path, newest_intact
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.untrusted.keras_file import load_weights


@dataclasses.dataclass(frozen=True)
class TrainedEnsemble:
    """What a run has produced so far."""

    ensemble: Ensemble
    config: TrainingConfig
    epochs_done: int
    finished: bool

    @property
    def spec(self) -> DatasetSpec:
        return DATASETS[self.config.dataset]

    def weights_sha256(self) -> str:
        """Hash over all weights, in the order of the members' variables."""
        digest = hashlib.sha256()
        for weight in self.ensemble.get_weights():
            digest.update(weight.astype("<f4").tobytes())
        return digest.hexdigest()


def load_trained(run: RunDirectory) -> TrainedEnsemble:
    """Read a run's ``ensemble.keras``, or its newest checkpoint if it is not finished.

    Raises:
        InputError: no run, nothing saved yet, or a file that cannot be read.
    """
    config = TrainingConfig.from_flags(run.read_flags())
    spec = DATASETS[config.dataset]
    ensemble = build_ensemble(config.architecture, spec.image_shape, len(spec.class_names))
    if run.model_file.is_file():
        load_weights(ensemble, run.model_file)
        return TrainedEnsemble(ensemble, config, config.epochs, finished=True)
    number = newest_intact(run.checkpoints)
    if number is None:
        raise InputError(f"{run.path} has neither {run.model_file.name} nor a checkpoint yet.")
    path = checkpoint_path(run.checkpoints, number)
    checkpoint = tf.train.Checkpoint(weights=[variable.value for variable in ensemble.variables])
    try:
        checkpoint.read(str(path)).assert_existing_objects_matched().expect_partial()
        epochs_done = checkpoint_epoch(run.checkpoints, number)
    except (tf.errors.OpError, AssertionError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"Checkpoint {path.parent} is not of this run's ensemble.") from error
    return TrainedEnsemble(ensemble, config, epochs_done, finished=False)


def take_weights(ensemble: Ensemble, config: TrainingConfig, run: RunDirectory) -> None:
    """Give an ensemble the weights and moving statistics that another run has come to.

    Args:
        ensemble: as ``config`` builds it.
        config: settings of the run that begins.
        run: whose ensemble it begins with.

    Raises:
        InputError: as :func:`load_trained`, or other members, image sizes or numbers of classes.
    """
    trained = load_trained(run)
    spec = DATASETS[config.dataset]
    if trained.config.architecture != config.architecture:
        raise InputError(
            f"--initial_run={run.path} has members {','.join(trained.config.architecture)}: "
            f"{','.join(config.architecture)} cannot begin with their weights."
        )
    if (trained.spec.image_shape, len(trained.spec.class_names)) != (spec.image_shape, len(spec.class_names)):
        raise InputError(
            f"--initial_run={run.path} is for {trained.spec.name}: its weights do not fit {spec.name}."
        )
    ensemble.set_weights(trained.ensemble.get_weights())
