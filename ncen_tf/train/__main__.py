"""Train an ensemble: python -m ncen_tf.train --flagfile=configs/fmnist.cfg"""

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

import ncen_tf
from ncen_tf import program
from ncen_tf.base.environment import enable_onednn
from ncen_tf.base.errors import InputError
from ncen_tf.base.ray_cluster import RayFlags, connected
from ncen_tf.data.loading import DataFlags
from ncen_tf.train.config import TrainConfig

logger = logging.getLogger("ncen_tf.train")


class Flags(TrainConfig, DataFlags, RayFlags):
    """Settings of a run, where its data are, and where it goes."""

    structure: Literal["Ensemble1", "Ensemble2", "Ensemble3", "Ensemble4"] = Field(
        default="Ensemble1", description="Structure of the paper, instead of an architecture"
    )
    size: int = Field(
        default=3,
        description="Number of members of the structure: 3, 4 or 5",
        json_schema_extra={"flag": "members"},
    )
    run_dir: Path | None = Field(default=None, description="Folder of the run (default: runs/NAME)")
    overwrite: bool = Field(default=False, description="Deletion of an earlier run in the same folder")
    workers: int = Field(default=1, ge=1, description="Number of workers on a Ray cluster")
    given: tuple[str, ...] = Field(default=(), json_schema_extra={"flag": None})

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Make settings of the flags that were given, and remember their names."""
        made = super().from_flags(flags)
        return made.model_copy(update={"given": tuple(flags)})

    def config(self) -> TrainConfig:
        """Return the settings of the run alone."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.model_fields})


def default_run_dir(config: TrainConfig) -> Path:
    """Return runs/DATASET-REGULARIZER-MEMBERS-sSEED."""
    members = "+".join(name.removeprefix("resnet").replace(":", ".") for name in config.members)
    regularizer = config.regularizer.name if config.regularizer else "none"
    return Path("runs") / f"{Path(config.dataset).stem}-{regularizer}-{members}-s{config.seed}"


def main(flags: Flags) -> None:
    """Train, and print the accuracy and the next command."""
    enable_onednn()
    config = flags.config()
    for name, reason in config.without_effect(flags.given).items():
        logger.warning("--%s has no effect with --%s", name, reason)
    path = flags.run_dir or default_run_dir(config)
    source = DataFlags(**{name: getattr(flags, name) for name in DataFlags.model_fields})
    load = functools.partial(source.load, config.train_examples, config.test_examples)
    if flags.ray:
        with connected(flags.ray):
            from ncen_tf.train.ray_training import train_on_ray  # Ray is optional

            resources = {"cpus": flags.ray_cpus, "gpus": flags.ray_gpus}
            train_on_ray(config, load, path, workers=flags.workers, overwrite=flags.overwrite, **resources)
        run = ncen_tf.open_run(path)
    elif flags.workers > 1:
        raise InputError("`workers` are those of a Ray cluster: set `ray` too.")
    else:
        run = ncen_tf.train_ensemble(config, load, path, overwrite=flags.overwrite)
    test = run.history[-1].test
    members = ", ".join(f"{accuracy:.4f}" for accuracy in test.member_accuracy)
    print(
        f"Clean accuracy {test.clean_accuracy:.4f} on {run.data.test_examples} test images "
        f"(members {members}).\nRun: {path}, how the members' gradients relate: diagnostics.png\n"
        f"Next: python -m ncen_tf.export --run={path} --out=exports/{path.name}"
    )


if __name__ == "__main__":
    program.run(Flags, main)
