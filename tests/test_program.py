"""How programs read flags and end: help, fractions, errors, output that cannot be delivered."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("flag", ["--help", "--eps=0.2"])
def test_a_reader_that_has_enough_is_no_error(flag: str, script: Path) -> None:
    """As ``| head`` does, but before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        ended = run((str(script), flag), pipe.fileno())
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's device that is always full")
@pytest.mark.parametrize("flag", ["--help", "--eps=0.2"])
def test_a_full_disk_is_one_sentence(flag: str, script: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = run((str(script), flag), full.fileno())
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.endswith("No space left on device.\n")
    assert ended.stderr.count("\n") == 1


SCRIPT = """
from typing import Annotated, Literal
from pydantic import Field
from ncen_tf import program
from ncen_tf.base.errors import InputError, LostWorkerError
from ncen_tf.base.settings import Settings, settings

@settings
class Ball:
    radius: float = Field(default=0.5, gt=0, description="Radius", json_schema_extra={"flag": "ball_radius"})
    name: Literal["ball"] = "ball"

@settings
class Box:
    sides: int = Field(default=6, ge=4, le=20, description="Number of sides")
    name: Literal["box"] = "box"

class Flags(Settings):
    eps: float = Field(default=0.1, ge=0, description="Perturbation bound")
    names: tuple[str, ...] = Field(default=(), description="Names")
    shape: Annotated[Ball | Box, Field(discriminator="name")] | None = Field(
        default=None, description="Shape"
    )
    end: Literal["well", "badly", "lost", "interrupted"] = Field(default="well", description="End")

def main(flags):
    print(flags)
    if flags.end == "badly":
        raise InputError("`eps` and `shape.box.sides` do not go together, `other` does.")
    if flags.end == "lost":
        raise LostWorkerError("A worker is lost.")
    if flags.end == "interrupted":
        raise KeyboardInterrupt("It is saved.")

program.run(Flags, main)
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("script") / "shapes.py"
    file.write_text(SCRIPT)
    return file


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--eps=8/255", "--names=a,b"], 0, "eps=0.03137254901960784 names=('a', 'b') shape=None"),
        (["--shape=box", "--sides=8"], 0, "shape=Box(sides=8, name='box')"),
        (["--shape=ball", "--sides=8"], 0, "shape=Ball(radius=0.5, name='ball')"),
        (["--shape=box", "--sides=2"], 2, "error: --sides must be greater than or equal to 4, got 2."),
        (["--shape=ball", "--ball_radius=0"], 2, "error: --ball_radius must be greater than 0"),
        (["--eps=1/0"], 2, "error: flag --eps=1/0: division by zero"),
        (["--eps=x"], 2, "error: flag --eps=x: could not convert"),
        (["--names="], 2, "error: --names is empty"),
        (["--end=never"], 2, "error: flag --end=never"),
        (["--side=3"], 2, "error: Unknown command line flag 'side'"),
        (["rest"], 2, "error: Unexpected argument 'rest'"),
        (["--end=badly"], 2, "error: --eps and --sides do not go together, `other` does."),
        (["--end=lost"], 75, "error: A worker is lost."),
        (["--end=interrupted"], 130, "Interrupted. It is saved."),
        (["--help"], 0, "Number of sides (at least 4 and at most 20; default: 6)"),
    ],
)
def test_flags_of_a_settings_class(script: Path, arguments: list[str], code: int, says: str) -> None:
    ended = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert says in ended.stdout + ended.stderr
    assert ended.returncode == code
    assert "Traceback" not in ended.stderr


def test_flags_are_read_from_a_file(script: Path, tmp_path: Path) -> None:
    (tmp_path / "flags.cfg").write_text("# comment\n--eps=0.5\n--shape=ball\n")
    ended = subprocess.run(
        [sys.executable, str(script), f"--flagfile={tmp_path / 'flags.cfg'}", "--eps=0.25"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "eps=0.25 names=() shape=Ball(radius=0.5, name='ball')" in ended.stdout


def run(command: tuple[str, ...], stdout: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
