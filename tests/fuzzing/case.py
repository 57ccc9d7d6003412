"""A fuzzed input: the files of a folder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

OUTSIDE, SECRET = "outside", "secret.bin"
"""A file in a folder beside that of a case, which no case may make anyone touch."""
MODEL = "ensemble.onnx"
"""The file of an ONNX case."""
HUGE = 750_000_000
"""Of floats, 3 GB: more than any reader may take, less than a machine may have."""
Files = Mapping[str, bytes]
"""Content by path below the folder."""


@dataclasses.dataclass(frozen=True)
class Case:
    """Files that a reader is shown."""

    files: Files
    must_be_refused: bool = False
    """Whether accepting them is wrong: they ask for something that is never done."""

    def write(self, folder: Path) -> None:
        """Write the files into a folder that is made for them."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def read_files(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
