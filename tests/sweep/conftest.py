"""Grids as files."""

from collections.abc import Callable
from pathlib import Path

import pytest

WriteGrid = Callable[[str], Path]

TINY = """
dataset = "fashion_mnist_sample"
architecture = "resnet8,resnet8"
regularizer = "none"
test_examples = 20
batch_size = 9
epochs = 1
checkpoint_every = 1
"""


@pytest.fixture
def write_grid(tmp_path: Path) -> WriteGrid:
    def write(text: str) -> Path:
        file = tmp_path / "grid.toml"
        file.write_text(text)
        return file

    return write
