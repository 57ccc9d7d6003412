"""The programs that take a cell from flags to reports, one after another."""

import dataclasses
import sys
from pathlib import Path

from ncen_tf.sweep.cells import Cell
from ncen_tf.sweep.suites import SuitePlan


@dataclasses.dataclass(frozen=True)
class Stage:
    """One program of a cell."""

    name: str
    """``train``, ``export`` or the suite's name."""
    program: str
    arguments: tuple[str, ...]
    """Flags that its outcome depends on."""
    places: tuple[str, ...]
    """Flags that say where it reads and writes."""
    output: Path
    """The file that it writes last."""
    reads: str = ""
    """Hex digest of a file that its outcome depends on too."""

    @property
    def identity(self) -> list[str]:
        """What its outcome depends on, besides the stages before it."""
        return [*self.arguments, *([self.reads] if self.reads else [])]

    def command(self, location: tuple[str, ...]) -> list[str]:
        """The command line; ``location`` are flags that say where datasets are."""
        module = f"ncen_tf.{self.program}"
        return [sys.executable, "-m", module, *self.arguments, *self.places, *location]


def make_stages(cell: Cell, folder: Path, export: tuple[str, ...], suites: list[SuitePlan]) -> list[Stage]:
    """Train, export, and an attack for each suite, in this order.

    Args:
        cell: what to train.
        folder: of the cell.
        export: further flags of ncen_tf.export.
        suites: what to attack with.
    """
    run, exported = folder / "run", folder / "export"
    stages = [
        Stage("train", "train", cell.arguments, (f"--run_dir={run}",), run / "summary.json"),
        Stage(
            "export",
            "export",
            export,
            (f"--run={run}", f"--out={exported}", "--overwrite"),
            exported / "manifest.json",
        ),
    ]
    for suite in suites:
        target = run if suite.on_run else exported
        report = folder / "reports" / suite.name
        stages.append(
            Stage(
                suite.name,
                "attack",
                (f"--suite={suite.suite}", f"--dataset={cell.config.dataset}", *suite.arguments),
                (f"--target={target}", f"--out={report}"),
                report / "report.json",
                suite.content,
            )
        )
    return stages
