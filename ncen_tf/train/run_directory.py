"""A run's folder: what it was asked to do, how far it got, what came out."""

import fcntl
import json
import logging
import shutil
from pathlib import Path
from typing import IO, Any

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import remove_leftovers, replacing, write_json
from ncen_tf.train.config import TrainingConfig
from ncen_tf.untrusted.input_files import NUMBER, check_content, parse_json, read_text

logger = logging.getLogger(__name__)

_EPOCH = {
    "epoch": int,
    "learning_rate": NUMBER,
    "train": {str: NUMBER},
    "test": {str: (*NUMBER, [NUMBER])},
    "seconds_per_step": NUMBER,
}


class RunDirectory:
    """Paths and small files of one training run.

    ``flags.cfg`` (resolved flagfile), ``metrics.jsonl`` (a line an epoch), ``checkpoints/``,
    ``tensorboard/``, ``ensemble.keras``, ``diagnostics.png`` and ``summary.json``; the last is written last,
    so it marks a complete run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.flagfile = path / "flags.cfg"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.model_file = path / "ensemble.keras"
        self.summary_file = path / "summary.json"
        self.plot_file = path / "diagnostics.png"
        self._lock_file: IO[str] | None = None
        self._overwrite = False

    @property
    def goes_on(self) -> bool:
        """Whether the opened run has begun before and is not to be overwritten."""
        return self.flagfile.is_file() and not self._overwrite

    @property
    def is_complete(self) -> bool:
        return self.goes_on and self.summary_file.is_file()

    def open(self, config: TrainingConfig, overwrite: bool = False) -> None:
        """Claim the folder for these settings; the same settings again continue what is there.

        A run that is to be trained stays locked until this process ends, however it ends. What it is asked
        to do is written, and what it overwrites is deleted, by :meth:`begin`: a start that turns out to be
        impossible leaves the folder to the next.

        Args:
            config: what the run is asked to do.
            overwrite: begin anew, whatever run is in this folder.

        Raises:
            InputError: the folder holds a run with other settings, or files that are no run; it cannot be
                written; or another process trains in it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file: choose another --run_dir.")
        if self.path.is_dir() and not self.flagfile.is_file() and self._holds_files():
            raise InputError(f"{self.path} is not empty and holds no run: choose another --run_dir.")
        self._overwrite = overwrite
        if not self.is_complete:
            self._lock()
            remove_leftovers(self.path)
            remove_leftovers(self.checkpoints)
        if self.goes_on:
            self._refuse_other_flags(config)

    def begin(self, config: TrainingConfig) -> None:
        """Write the settings of a run that does not go on, and delete the one that it overwrites."""
        if self.goes_on:
            return
        if self._overwrite:
            self._clear()
            self._overwrite = False
        lines = [f"--{name}={value}" for name, value in config.to_flags().items()]
        with replacing(self.flagfile) as temporary:
            temporary.write_text("\n".join(lines) + "\n")

    def _holds_files(self) -> bool:
        """Whether there is more than what a process leaves that was killed before it wrote its flags."""
        return any(not entry.name.startswith(".") for entry in self.path.iterdir())

    def _lock(self) -> None:
        """Keep other processes out; the kernel lets go of the lock when this one ends or is killed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock_file = (self.path / ".lock").open("a")
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}): choose another --run_dir."
            ) from error
        try:
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise InputError(
                f"Another process trains in {self.path}: wait for it, or choose another --run_dir."
            ) from error
        except OSError as error:
            logger.warning("%s cannot be locked (%s): start one process only.", self.path, error.strerror)

    def _clear(self) -> None:
        """Delete what a run writes and nothing else.

        Its flags stay until new ones replace them: should this be cut short, it is still a run's folder.
        """
        for folder in (self.checkpoints, self.tensorboard):
            if folder.is_dir():
                shutil.rmtree(folder)
        for file in (self.summary_file, self.metrics_file, self.model_file, self.plot_file):
            file.unlink(missing_ok=True)

    def read_flags(self) -> dict[str, str]:
        """The flags that the run was started with, by name.

        Raises:
            InputError: the folder holds no run.
        """
        if not self.flagfile.is_file():
            raise InputError(f"{self.path} is not a run directory: it has no {self.flagfile.name}.")
        lines = read_text(self.flagfile).splitlines()
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

    def state_files(self) -> list[Path]:
        """What another process needs to go on with this run: see :mod:`ncen_tf.workers.roll_call`."""
        if not self.goes_on:
            return []
        small = [self.flagfile, self.metrics_file, self.summary_file]
        newest = sorted(self.checkpoints.glob("step-*/*"))
        return [file for file in (*small, *newest) if file.is_file()]

    def read_metrics(self, epochs: int) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl`` for the first ``epochs`` epochs; later ones are to be repeated.

        Raises:
            InputError: a line that is not that of an epoch.
        """
        if not self.metrics_file.exists():
            return []
        history = []
        for number, text in enumerate(read_text(self.metrics_file).splitlines(), start=1):
            where = f"{self.metrics_file}, line {number}"
            line = parse_json(where, text)
            check_content(where, line, _EPOCH)
            history.append(line)
        return [line for line in history if line["epoch"] <= epochs]

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Replace ``metrics.jsonl``."""
        with replacing(self.metrics_file) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in history))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write ``summary.json``, which marks the run as complete."""
        write_json(self.summary_file, summary)
