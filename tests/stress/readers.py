"""The reader of each kind of file: a program, or the function of the library that reads it."""

import importlib
import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import keras  # noqa: F401  # imported before processes are forked, like the others
import onnxruntime  # noqa: F401
import tensorflow  # noqa: F401

from ncen_tf.attack.suites import load_suite
from ncen_tf.base.errors import InputError
from ncen_tf.report.gate import check_gate, read_gate
from ncen_tf.report.report import read_report
from ncen_tf.report.table import format_table
from ncen_tf.sweep.cells import make_cells
from ncen_tf.sweep.grid import read_grid

Reader = Callable[[Path], Any]
ATTACK = "attack --dataset=fashion_mnist_sample --num_examples=10 --suite=quick --out={0}/out"
TARGETS = {
    "onnx": "ensemble.onnx",
    "keras": "ensemble.keras",
    "saved_model": "",
    "run": "",
    "checkpoint": "",
    "export": "",
}
"""File in the folder that is attacked, or the folder itself."""


def program(command: str, codes: tuple[int, ...] = (0,)) -> Reader:
    """Make a reader that runs a program in this process, which it uses up.

    Args:
        command: Name and flags; {0} is the folder of the case.
        codes: Exit codes that mean that the files were accepted.
    """

    def read(folder: Path) -> None:
        name, *arguments = command.format(folder).split()
        module: Any = importlib.import_module(f"ncen_tf.{name}.__main__")
        sys.argv = [name, *arguments]
        said = io.StringIO()
        code: Any = 0
        with redirect_stderr(said):
            try:
                module.program.run(module.main)
            except SystemExit as end:
                code = end.code or 0
        errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
        if code == 2 and len(errors) == 1 and "Traceback" not in said.getvalue():
            raise InputError(errors[0])
        assert code in codes, f"exit code {code}: {said.getvalue()[-300:]}"

    return read


def _gate(folder: Path) -> None:
    check_gate(read_gate(folder / "gate.toml"), read_report(folder / "report.json"), 0.5)


def _report(folder: Path) -> None:
    format_table(read_report(folder / "report.json")).encode()


READERS: dict[str, Reader] = {
    **{kind: program(f"{ATTACK} --target={{0}}/{file}") for kind, file in TARGETS.items()},
    "adversarials": program(ATTACK + " --target={0}/ensemble.onnx --replay={0}/adversarials.npz"),
    "finished": program(ATTACK + " --target={0}/ensemble.onnx"),
    "suite": lambda folder: load_suite(str(folder / "suite.toml"), "fashion_mnist"),
    "gate": _gate,
    "report": _report,
    "grid": lambda folder: make_cells(read_grid(folder / "grid.cfg")),
    "records": program("tables --records={0} --format=markdown"),
}
