"""The former interface of runs, until its last user has gone."""

import dataclasses

from ncen_tf.data.datasets import DATASETS, DatasetSpec
from ncen_tf.ensembles.ensemble import Ensemble
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.run_directory import RunDirectory
from ncen_tf.train.training import TrainedRun, open_run


@dataclasses.dataclass(frozen=True)
class TrainedEnsemble:
    run: TrainedRun

    @property
    def ensemble(self) -> Ensemble:
        return self.run.ensemble

    @property
    def config(self) -> TrainConfig:
        return self.run.config

    @property
    def epochs_done(self) -> int:
        return self.run.epochs_trained

    @property
    def finished(self) -> bool:
        return self.run.summary is not None

    @property
    def spec(self) -> DatasetSpec:
        return DATASETS[self.run.data.name]

    def weights_sha256(self) -> str:
        return self.run.weights_sha256()


def load_trained(run: RunDirectory) -> TrainedEnsemble:
    return TrainedEnsemble(open_run(run.path))
