"""A run's folder: what it was asked to do, how far it got, what came out."""

import json
import shutil
from pathlib import Path
from typing import Any

from ncen_tf.errors import InputError
from ncen_tf.files import replacing, write_json
from ncen_tf.training.config import TrainingConfig


class RunDirectory:
    """Paths and small files of one training run.

    ``flags.cfg`` (resolved flagfile), ``metrics.jsonl`` (a line an epoch), ``checkpoints/``,
    ``tensorboard/``, ``ensemble.keras`` and ``summary.json``; the last is written last, so it marks a
    complete run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flagfile = path / "flags.cfg"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.model_file = path / "ensemble.keras"
        self.summary_file = path / "summary.json"

    @property
    def is_complete(self) -> bool:
        return self.summary_file.is_file()

    def open(self, config: TrainingConfig, overwrite: bool = False) -> None:
        """Claim the folder for these settings; the same settings again continue what is there.

        Args:
            config: what the run is asked to do.
            overwrite: delete an earlier run in this folder, whatever its settings.

        Raises:
            InputError: the folder holds a run with other settings, or files that are no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: choose another --run_dir.")
        if self.path.is_dir() and any(self.path.iterdir()):
            if not self.flagfile.is_file():
                raise InputError(f"{self.path} is not empty and holds no run: choose another --run_dir.")
            if overwrite:
                shutil.rmtree(self.path)
            else:
                self._refuse_other_flags(config)
        self.path.mkdir(parents=True, exist_ok=True)
        if not self.flagfile.exists():
            lines = [f"--{name}={value}" for name, value in config.to_flags().items()]
            with replacing(self.flagfile) as temporary:
                temporary.write_text("\n".join(lines) + "\n")

    def read_flags(self) -> dict[str, str]:
        """The flags that the run was started with, by name.

        Raises:
            InputError: the folder holds no run.
        """
        if not self.flagfile.is_file():
            raise InputError(f"{self.path} is not a run directory: it has no {self.flagfile.name}.")
        lines = self.flagfile.read_text().splitlines()
        pairs = [line.removeprefix("--").partition("=") for line in lines if line.startswith("--")]
        return {name: value for name, _, value in pairs}

    def _refuse_other_flags(self, config: TrainingConfig) -> None:
        # Through the settings: a flag that did not exist yet when the run was started has its default.
        old, new = TrainingConfig.from_flags(self.read_flags()).to_flags(), config.to_flags()
        differing = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        if differing:
            changes = "; ".join(
                f"--{name} was {old.get(name, 'not set')}, is {new.get(name, 'not set')}"
                for name in differing
            )
            raise InputError(
                f"{self.path} holds a run with other flags ({changes}): "
                "choose another --run_dir or pass --overwrite."
            )

    def read_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl`` for the first ``epochs`` epochs; later ones are to be repeated."""
        if not self.metrics_file.exists():
            return []
        lines = [json.loads(line) for line in self.metrics_file.read_text().splitlines()]
        return [line for line in lines if line["epoch"] <= epochs]

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Replace ``metrics.jsonl``."""
        with replacing(self.metrics_file) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in history))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``, which marks the run as complete."""
        write_json(self.summary_file, summary)
