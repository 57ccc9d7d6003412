"""Show how members' gradients relate: python -m ncen_tf.diagnose --runs=runs/a,runs/b --out=compared.png"""

from pathlib import Path
from typing import Any

from absl import flags

from ncen_tf import program
from ncen_tf.base.errors import InputError

RUNS = flags.DEFINE_list("runs", None, "run directories, finished or not")
OUT = flags.DEFINE_string("out", None, "PNG file (default, for a single run: diagnostics.png in it)")


def read_history(path: Path) -> list[dict[str, Any]]:
    """The finished epochs of a run.

    Raises:
        InputError: no run, or a damaged one.
    """
    from ncen_tf.train.config import TrainingConfig
    from ncen_tf.train.run_directory import RunDirectory

    run = RunDirectory(path)
    return run.read_metrics(TrainingConfig.from_flags(run.read_flags()).epochs)


def main() -> None:
    if not RUNS.value:
        raise InputError("--runs names the run directories to show.")
    paths = [Path(name) for name in RUNS.value]
    if len(paths) > 1 and not OUT.value:
        raise InputError("--out names the PNG file for several runs.")
    from ncen_tf.train.diagnostics import diagnostics_table, write_diagnostics
    from ncen_tf.train.run_directory import RunDirectory

    histories = {str(path): read_history(path) for path in paths}
    out = Path(OUT.value) if OUT.value else RunDirectory(paths[0]).plot_file
    out.parent.mkdir(parents=True, exist_ok=True)
    write_diagnostics(out, histories)
    print(diagnostics_table(histories))
    print(f"\nPlot: {out}")


if __name__ == "__main__":
    program.run(main)
