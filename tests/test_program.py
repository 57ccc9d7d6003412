"""How programs begin and end: flags without a value, output that cannot be delivered."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

TABLES = ("-m", "ncen_tf.tables", "--results=docs/diversity")
HELP = ("-m", "ncen_tf.train", "--help")


@pytest.mark.parametrize("command", [HELP, TABLES])
def test_a_reader_that_has_enough_is_no_error(command: tuple[str, ...]) -> None:
    """As ``| head`` does, but before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        ended = run(command, pipe.fileno())
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_pipe_that_is_not_standard_output_is_named(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "from ncen_tf import program\n"
        "def main():\n    raise BrokenPipeError(32, 'Broken pipe')\n"
        "program.run(main)\n"
    )
    with (tmp_path / "out.txt").open("wb") as out:
        ended = run((str(script),), out.fileno())
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (2, "error: Broken pipe.")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux's device that is always full")
@pytest.mark.parametrize("command", [HELP, TABLES])
def test_a_full_disk_is_one_sentence(command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = run(command, full.fileno())
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.endswith("No space left on device.\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("flag", ["gate", "replay", "junit", "out"])
def test_an_empty_flag_is_refused(flag: str, refuse: Callable[..., None]) -> None:
    refuse("attack", "--target=exports/reference", f"--{flag}=", says=f"--{flag} is empty")


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
