"""What a grid attacks with and how it exports, checked before anything is trained."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from absl import flags

from ncen_tf.data.datasets import DATASETS
from ncen_tf.base.errors import InputError
from ncen_tf.base.files import sha256
from ncen_tf.sweep.cells import flag_as_name
from ncen_tf.sweep.grid import Grid, Section

if TYPE_CHECKING:
    from ncen_tf.attack.attack import Norm
    from ncen_tf.attack.losses import ObjectiveName
    from ncen_tf.attack.suites import Suite

# What these stand for would not be in a cell's record, nor noticed when it changes.
_OF_ABSL = ("flagfile", "undefok", "help", "helpfull", "helpshort", "helpxml", "only_check_args")
# The sweep decides what is read and written.
_RESERVED = {
    "export": ("run", "out", "verify", "overwrite", "data_dir", "archive_dir"),
    "attack": ("target", "dataset", "out", "replay", "junit", "data_dir", "archive_dir"),
}


@dataclasses.dataclass(frozen=True)
class SuitePlan:
    """One suite that every cell is attacked with."""

    name: str
    """Of its folder and its entry in records."""
    suite: str
    """As ncen_tf.attack takes it."""
    arguments: tuple[str, ...]
    """Further flags of ncen_tf.attack."""
    content: str
    """Hex digests of the files that it reads, its own and a gate; empty for a suite of the package alone."""
    on_run: bool
    """Attack the run, not its export: the suite needs batch statistics, which an export has folded away."""


def export_arguments(grid: Grid) -> tuple[str, ...]:
    """The grid's flags of ncen_tf.export.

    Raises:
        InputError: a flag or value that ncen_tf.export does not take; the line is named.
    """
    return _checked_arguments(grid.file, grid.export, "export")


def suite_plans(grid: Grid, datasets: Iterable[str]) -> list[SuitePlan]:
    """The suites of all ``[attack]`` sections.

    Args:
        grid: whose sections.
        datasets: that the grid's cells train on, at least one; a suite must know each one's radii.

    Raises:
        InputError: a flag or value that ncen_tf.attack does not take, an unknown suite, a choice
            that a suite's protocol does not leave, a gate for what is not measured, or a suite named twice;
            the line is named.
    """
    plans: dict[str, SuitePlan] = {}
    for section in grid.attack:
        if "suite" not in section.settings:
            raise InputError(f"{grid.file}, line {section.line}: [attack] needs --suite=NAME | NAME.")
        settings = dict(section.settings)
        suites = settings.pop("suite")
        where = f"{grid.file}, line {suites.line}"
        arguments = _checked_arguments(grid.file, Section(section.line, settings), "attack")
        chosen = {name: setting.values[0] for name, setting in settings.items()}
        gates = [chosen["gate"]] if "gate" in chosen else []
        for suite in suites.values:
            name = flag_as_name(Path(suite).stem if suite.endswith(".toml") else suite)
            if name in (*plans, "train", "export"):
                raise InputError(f"{where}: a suite named {name} is there already; reports need own names.")
            try:
                loaded = [_planned_suite(suite, dataset, chosen) for dataset in datasets]
            except InputError as error:
                raise InputError(f"{where}: {error}") from error
            files = [suite] if suite.endswith(".toml") else []
            content = " ".join(sha256(Path(file)) for file in [*files, *gates])
            plans[name] = SuitePlan(name, suite, arguments, content, on_run=loaded[0].batch_statistics)
    return list(plans.values())


def _planned_suite(name: str, dataset: str, chosen: Mapping[str, str]) -> Suite:
    """The suite that ncen_tf.attack will run: what it would refuse is refused now, not after the training."""
    from ncen_tf.attack.suites import load_suite
    from ncen_tf.data.dataset import images_per_class
    from ncen_tf.report.gate import Gate
    from ncen_tf.report.results import RecordedAccuracy

    integer = flags.IntegerParser().parse
    suite = load_suite(name, dataset).with_choices(
        objective=cast("ObjectiveName", chosen.get("objective")),
        batch_size=integer(chosen["batch_size"]) if "batch_size" in chosen else None,
        norm=cast("Norm", chosen.get("norm")),
        check_gradients=flags.BooleanParser().parse(chosen["check_gradients"])
        if "check_gradients" in chosen
        else None,
    )
    if examples := integer(chosen.get("num_examples", "0")):
        images_per_class(examples, len(DATASETS[dataset].class_names))
    if "gate" in chosen:
        planned = [(attack.name, attack.eps) for attack in suite.attacks]
        # That of an export is not known yet.
        recorded = None if suite.batch_statistics else RecordedAccuracy(value=0.0, examples=examples)
        Gate.read(chosen["gate"]).require_measured(
            planned, examples, recorded, gradients_checked=suite.check_gradients
        )
    return suite


def _checked_arguments(file: Path, section: Section, program: str) -> tuple[str, ...]:
    for name, setting in section.settings.items():
        where = f"{file}, line {setting.line}"
        if name in _OF_ABSL:
            raise InputError(f"{where}: --{name} has no place in a grid; write out the flags that are meant.")
        if name in _RESERVED[program]:
            raise InputError(f"{where}: --{name} is set by the sweep itself; leave it out.")
        if len(setting.values) > 1:
            raise InputError(f"{where}: --{name} takes one value; several are for [train] and --suite.")
    arguments = tuple(f"--{name}={setting.values[0]}" for name, setting in section.settings.items())
    if arguments:
        # In its own process: programs define flags of the same names.
        command = [sys.executable, "-m", f"ncen_tf.{program}", *arguments, "--only_check_args"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            message = done.stderr.strip().splitlines()[-1].removeprefix("error: ")
            named = [name for name in re.findall(r"'(\w+)'|--(\w+)", message) for name in name if name]
            lines = [section.settings[name].line for name in named if name in section.settings]
            raise InputError(f"{file}, line {(lines or [section.line])[0]}: {message}")
    return arguments
