"""Train, export and attack a grid of runs.

python -m ncen_tf.sweep --grid=configs/grids/smoke.toml --out=sweeps/smoke

A grid is a TOML file. Its settings of training are the flags of ncen_tf.train; a list means several values,
and the cells of the grid are all combinations. A setting that is a list itself is written with commas:

    dataset = "fashion_mnist"
    architecture = "resnet20,resnet20,resnet20"
    seed = [0, 1]

    [[train]]
    regularizer = ["none", "nce"]

    [[train]]
    regularizer = "nce"
    lambda_norm = -0.02

    [[attack]]
    suite = "paper"
    examples = 200

Settings above the first table belong to every [[train]] table, which may replace them. [export] holds
formats, opset, members and precisions; each [[attack]] is a suite, with name, norm, objective, examples,
batch_size, seed and check_gradients. Ctrl-C saves, and the same command continues. With --ray, the
workers of a Ray cluster run the cells.
"""

from pathlib import Path

from pydantic import Field

import ncen_tf
from ncen_tf import program
from ncen_tf.base.environment import enable_onednn
from ncen_tf.base.ray_cluster import RayFlags

CELLS_FAILED = 1


class Flags(RayFlags):
    """Flags of the program."""

    grid: Path = Field(description="Grid file, such as configs/grids/smoke.toml")
    out: Path | None = Field(
        default=None, description="Folder of the sweep (default: sweeps/NAME of the grid)"
    )
    processes: int = Field(
        default=1,
        ge=1,
        description="Number of cells at a time on this machine, each on its own share of the cores",
    )
    dry_run: bool = Field(
        default=False, description="List of the cells and how far they are, instead of a run"
    )
    data_dir: Path | None = Field(default=None, description="Folder of tensorflow-datasets")
    archive_dir: Path | None = Field(default=None, description="Folder with the archives of datasets")


def main(flags: Flags) -> int | None:
    enable_onednn()  # for the processes of the cells
    out = flags.out or Path("sweeps") / flags.grid.stem
    sweep = ncen_tf.Sweep(flags.grid, out, data_dir=flags.data_dir, archive_dir=flags.archive_dir)
    print(sweep.describe(), flush=True)
    if flags.dry_run:
        return None
    print(f"Logs: {out / 'cells'}/*/log.txt", flush=True)
    records = sweep.run(flags.processes, ray=flags.ray, ray_cpus=flags.ray_cpus, ray_gpus=flags.ray_gpus)
    print(f"\n{sweep.summary(records)}")
    if sweep.interrupted:
        print("Interrupted; what was running is saved. The same command continues.")
        return program.INTERRUPTED
    return CELLS_FAILED if sweep.failures else None


if __name__ == "__main__":
    program.run(Flags, main)
