"""A cell's folder: how far its stages got, and the record when all are done."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ncen_tf.export.manifest import Manifest
from ncen_tf.base.files import write_json
from ncen_tf.untrusted.input_files import NUMBER, check_content, read_json
from ncen_tf.sweep.record import read_record, write_record
from ncen_tf.sweep.stages import Stage
from ncen_tf.train.config import TrainingConfig
from ncen_tf.train.run_directory import RunDirectory

_STAGES = {str: {"arguments": [str], "finished": bool, "seconds": NUMBER}}


class CellDirectory:
    """``run/``, ``export/``, ``reports/SUITE/``, ``log.txt``, ``stages.json`` and ``result.json``.

    ``stages.json`` tells of each stage what arguments it was last started with, whether it finished, and
    how many seconds it took, interrupted attempts included. ``result.json`` is there when all stages have
    finished; the other files may then be deleted, and are made again if a stage is added later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "log.txt"
        self.result = path / "result.json"
        self._stages_file = path / "stages.json"

    def config(self) -> TrainingConfig | None:
        """What the folder's run was asked to do, ``None`` before it was started.

        Raises:
            InputError: flags that are not those of a run, or a damaged record.
        """
        if self.result.is_file():
            return TrainingConfig.from_flags(read_record(self.result)["run"]["flags"])
        run = RunDirectory(self.path / "run")
        return TrainingConfig.from_flags(run.read_flags()) if run.flagfile.is_file() else None

    def pending(self, stages: Sequence[Stage]) -> list[Stage]:
        """The stages to run: not finished, finished with other arguments, or made from such a stage."""
        reports = read_record(self.result)["reports"] if self.result.is_file() else None
        left = self._left(stages, reports, files_needed=reports is None)
        # A record does without the files that it was made from; what is to run now does not.
        return self._left(stages, reports, files_needed=True) if left else left

    def _left(
        self, stages: Sequence[Stage], reports: Collection[str] | None, files_needed: bool
    ) -> list[Stage]:
        known = self._read_stages()
        pending: list[Stage] = []
        for stage in stages:
            entry = known.get(stage.name, {})
            finished = entry.get("finished", False) and (not files_needed or stage.output.is_file())
            # The record may be of a grid without this suite.
            finished = finished and (stage.program != "attack" or reports is None or stage.name in reports)
            # The run's settings belong to the folder: config() tells them.
            same = stage.program == "train" or entry.get("arguments") == stage.identity
            stale = any(earlier.program != "attack" for earlier in pending)
            if not (finished and same) or stale:
                pending.append(stage)
        return pending

    def begin(self, pending: Sequence[Stage]) -> None:
        """Take back what the folder says about stages that are to run, and the record made from them."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.result.unlink(missing_ok=True)
        known = self._read_stages()
        if any(stage.program != "attack" for stage in pending):  # reports of another export, in no grid now
            kept = {"train", "export", *(stage.name for stage in pending)}
            known = {name: entry for name, entry in known.items() if name in kept}
        for stage in pending:
            entry = known.get(stage.name, {})
            seconds = entry["seconds"] if entry.get("arguments") == stage.identity else 0.0
            known[stage.name] = {"arguments": stage.identity, "finished": False, "seconds": seconds}
        write_json(self._stages_file, known)

    def book(self, stage: str, seconds: float, finished: bool) -> None:
        """Add an attempt at a stage that has begun."""
        known = self._read_stages()
        known[stage]["seconds"] += seconds
        known[stage]["finished"] = finished
        write_json(self._stages_file, known)

    def write_record(self, stages: Sequence[Stage]) -> dict[str, Any]:
        """Gather what the finished stages left in ``result.json``.

        Raises:
            InputError: a file is missing or damaged.
        """
        outputs = {stage.name: stage.output for stage in stages}
        summary, manifest = read_json(outputs.pop("train")), Manifest.read(outputs.pop("export"))
        onnx = manifest.files.get("ensemble.onnx")
        known = self._read_stages()
        record = {
            "name": self.path.name,
            "run": summary,
            "export": {**manifest.accuracy.model_dump(), "sha256": onnx.sha256 if onnx else None},
            "reports": {suite: read_json(file) for suite, file in outputs.items()},
            "seconds": {stage.name: round(known[stage.name]["seconds"], 1) for stage in stages},
        }
        write_record(self.result, record)
        return record

    def _read_stages(self) -> dict[str, Any]:
        if not self._stages_file.is_file():
            return {}
        stages: dict[str, Any] = read_json(self._stages_file)
        check_content(str(self._stages_file), stages, _STAGES)
        return stages
