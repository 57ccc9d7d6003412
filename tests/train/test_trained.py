"""What a run has saved is read whole and finite, or refused."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.ensemble import Ensemble, build_ensemble
from ncen_tf.train.checkpoint import RunCheckpoint, checkpoint_path
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.train.trained import load_trained

CONFIG = TrainingConfig("fashion_mnist_sample", ("resnet8", "resnet8"), "none", 0.0, 0.0, 1, 0.3)


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    built = build_ensemble(CONFIG.architecture, (28, 28, 1))
    built.compile(keras.optimizers.Adam())
    built.optimizer.build(built.trainable_variables)
    return built


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.open(CONFIG)
    run.begin(CONFIG)
    return run


def set_bias(ensemble: Ensemble, value: float) -> None:
    ensemble.members[1].layers[-1].bias.assign(np.full(10, value))


def test_nan_in_the_weights_of_a_run_is_refused_by_export_and_attack(
    ensemble: Ensemble, run: RunDirectory, tmp_path: Path, refuse: Callable[..., None]
) -> None:
    set_bias(ensemble, np.nan)
    ensemble.save(run.model_file)
    says = "the weights of member 1 hold NaN or infinity"
    refuse("export", f"--run={run.path}", f"--out={tmp_path / 'out'}", says=says)
    assert not (tmp_path / "out").exists()
    refuse("attack", f"--target={run.path}", "--dataset=fashion_mnist_sample", "--suite=quick", says=says)


def test_a_checkpoint_that_is_not_finite_is_passed_over(ensemble: Ensemble, run: RunDirectory) -> None:
    """Checksums hold: it was written by another program, or an earlier version."""
    checkpoint = RunCheckpoint(ensemble, run.checkpoints, steps_per_epoch=100)
    with pytest.raises(InputError, match=r"neither ensemble\.keras nor a checkpoint"):
        load_trained(run)
    checkpoint.epoch = 1
    set_bias(ensemble, 1.0)
    checkpoint.save()
    set_bias(ensemble, np.inf)
    checkpoint._checkpoint.write(str(checkpoint_path(run.checkpoints, 200)))
    trained = load_trained(run)
    assert (trained.epochs_done, trained.finished) == (1, False)
    np.testing.assert_array_equal(trained.ensemble.members[1].layers[-1].bias, np.ones(10))
