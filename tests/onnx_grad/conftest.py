"""Random numbers of a test that do not depend on the tests before it."""

import numpy as np
import pytest

from tests.onnx_grad import graphs, harness


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    for generator in (graphs.RNG, harness.RNG):
        generator.bit_generator.state = np.random.default_rng(0).bit_generator.state
