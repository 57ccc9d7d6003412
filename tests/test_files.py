"""Files appear whole or not at all, and what a killed process leaves does not stay."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.base.files import replacing, replacing_directory
from tests.conftest import ROOT

WRITER = """
import sys
from pathlib import Path
from ncen_tf.base.files import replacing, replacing_directory
place = Path(sys.argv[1])
with replacing(place / "file.txt") as file, replacing_directory(place / "folder") as folder:
    file.write_text("half")
    (folder / "part").write_text("half")
    print("writing", flush=True)
    sys.stdin.readline()
"""


def writer(place: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of writing ``file.txt`` and ``folder``."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(place)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def write_both(place: Path, text: str) -> None:
    with replacing(place / "file.txt") as file, replacing_directory(place / "folder") as folder:
        file.write_text(text)
        (folder / "part").write_text(text)


def content(place: Path) -> dict[str, str]:
    return {str(path.relative_to(place)): path.read_text() for path in place.rglob("*") if path.is_file()}


def test_the_next_attempt_removes_what_a_killed_process_left_and_nothing_else(tmp_path: Path) -> None:
    killed = writer(tmp_path)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    (tmp_path / f".{killed.pid}.folder.old").mkdir()
    mine = [f".{killed.pid}.folder.tar", f".{killed.pid}.other", ".5.notes", ".file.txt"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    assert len(content(tmp_path)) == 2 + len(mine)
    write_both(tmp_path, "whole")
    assert content(tmp_path) == {"file.txt": "whole", "folder/part": "whole"} | dict.fromkeys(mine, "mine")
    assert not list(tmp_path.glob("*.old"))


def test_a_process_at_work_is_left_alone(tmp_path: Path) -> None:
    other = writer(tmp_path)
    write_both(tmp_path, "whole")
    other.communicate("\n")
    assert other.returncode == 0
    assert content(tmp_path) == {"file.txt": "half", "folder/part": "half"}


def test_a_process_with_the_number_of_the_killed_one_can_write(tmp_path: Path) -> None:
    """In a container each start may have the same number."""
    write_both(tmp_path, "old")
    with replacing_directory(tmp_path / "folder") as folder:
        pass
    left = folder.with_name(f"{folder.name}.old")
    for place in (folder, left):
        place.mkdir()
        (place / "part").write_text("half")
    write_both(tmp_path, "new")
    assert content(tmp_path) == {"file.txt": "new", "folder/part": "new"}


@pytest.mark.parametrize("path", [".", "/"])
def test_a_path_without_a_name_is_refused(path: str) -> None:
    for write in (replacing, replacing_directory):
        with pytest.raises(InputError, match="has no name"), write(Path(path)):
            pass


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write_both(tmp_path, "old")
    with pytest.raises(ZeroDivisionError), replacing_directory(tmp_path / "folder") as folder:
        (folder / "part").write_text(str(1 / 0))
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file.txt") as file:
        file.write_text(str(1 / 0))
    assert content(tmp_path) == {"file.txt": "old", "folder/part": "old"}


def test_symbolic_links_are_written_through(tmp_path: Path) -> None:
    volume, place = tmp_path / "volume", tmp_path / "place"
    for folder in (volume, place):
        folder.mkdir()
    (place / "file.txt").symlink_to(volume / "new.txt")
    (place / "folder").symlink_to("../volume/kept")
    for text in ("first", "second"):
        write_both(place, text)
        assert content(volume) == {"new.txt": text, "kept/part": text}
        assert all(entry.is_symlink() for entry in place.iterdir())
