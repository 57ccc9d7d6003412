"""Grids as files, and train's flags ready to be read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags

WriteGrid = Callable[[str], Path]

TINY = """
--dataset=fashion_mnist_sample
--architecture=resnet8,resnet8
--regularizer=none
--test_examples=20
--batch_size=9
--epochs=1
--checkpoint_every=1
"""


@pytest.fixture(autouse=True)
def _parsed_flags() -> None:
    """As in a program; train's flags are defined later, with their defaults."""
    flags.FLAGS.mark_as_parsed()


@pytest.fixture
def write_grid(tmp_path: Path) -> WriteGrid:
    def write(text: str) -> Path:
        file = tmp_path / "grid.cfg"
        file.write_text(text)
        return file

    return write
