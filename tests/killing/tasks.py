"""What is killed: four programs on so few images that most of their time is start-up and saving."""

import dataclasses
import sys
from pathlib import Path

NEEDS: dict[str, tuple[str, ...]] = {
    "train": (),
    "export": ("train",),
    "attack": ("train", "export"),
    "sweep": (),
}
"""Programs, and those whose undisturbed output each works on."""
SHARES = {"train": 2, "export": 2, "attack": 2, "sweep": 1}
"""Of the kills; a start of sweep takes as long as three others."""

_TRAINING = (
    "--dataset=fashion_mnist_sample",
    "--architecture=resnet8,resnet8",
    "--regularizer=none",
    "--train_examples=40",
    "--test_examples=20",
    "--batch_size=9",
    "--checkpoint_every=2",
    "--deterministic=true",
)
_SUITE = """
[[attack]]
name = "FGSM"
eps = 0.1
[[attack]]
name = "PGD"
eps = 0.1
steps = 5
step_size = 0.03
[[attack]]
name = "Square"
eps = 0.1
queries = 20
"""
_GRID = """
[export]
--formats=onnx
[attack]
--suite=quick
--num_examples=20
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """A command that is the same at every start, and the folder below which it writes."""

    program: str
    arguments: tuple[str, ...]
    out: Path

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-m", f"ncen_tf.{self.program}", *self.arguments]

    @property
    def undisturbed(self) -> Path:
        """Where the output of a start that nothing disturbed is kept."""
        return self.out.with_name("undisturbed")


def make_tasks(folder: Path) -> dict[str, Task]:
    """The tasks by program, their inputs written below ``folder``."""
    suite, grid = folder / "suite.toml", folder / "grid.cfg"
    suite.write_text(_SUITE)
    grid.write_text("\n".join((*_TRAINING, "--epochs=1")) + _GRID)
    outs = {program: folder / program / "out" for program in NEEDS}
    run, export = (
        outs["train"].with_name("undisturbed") / "run",
        outs["export"].with_name("undisturbed") / "export",
    )
    tasks: dict[str, tuple[str, ...]] = {
        "train": (*_TRAINING, "--epochs=2", f"--run_dir={outs['train'] / 'run'}"),
        "export": (f"--run={run}", f"--out={outs['export'] / 'export'}"),
        "attack": (
            f"--target={export}",
            f"--out={outs['attack'] / 'report'}",
            "--dataset=fashion_mnist_sample",
            f"--suite={suite}",
            "--num_examples=20",
            "--save_adversarials",
        ),
        "sweep": (f"--grid={grid}", f"--out={outs['sweep'] / 'sweep'}"),
    }
    # A kill after the export took its place, but before the program ended, leaves a whole export.
    tasks["export"] += ("--overwrite",)
    return {program: Task(program, arguments, outs[program]) for program, arguments in tasks.items()}
