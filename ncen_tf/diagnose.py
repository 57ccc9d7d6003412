"""Show how members' gradients relate: python -m ncen_tf.diagnose --runs=runs/a,runs/b --out=compared.png"""

from pathlib import Path

from pydantic import Field

import ncen_tf
from ncen_tf import program
from ncen_tf.base.errors import InputError
from ncen_tf.base.settings import Settings


class Flags(Settings):
    """What to show, and where."""

    runs: tuple[Path, ...] = Field(default=(), description="Run directories, finished or not")
    out: Path | None = Field(
        default=None, description="PNG file (default, for a single run: diagnostics.png in it)"
    )


def main(flags: Flags) -> None:
    """Print the last epoch of each run and plot all epochs."""
    if not flags.runs:
        raise InputError("`runs` must name the run directories to show.")
    if len(flags.runs) > 1 and not flags.out:
        raise InputError("`out` must name the PNG file for several runs.")
    out = flags.out or flags.runs[0] / "diagnostics.png"
    print(ncen_tf.diagnose_runs(flags.runs, out))
    print(f"\nPlot: {out}")


if __name__ == "__main__":
    program.run(Flags, main)
