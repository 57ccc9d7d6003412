"""A generator for made-up numbers."""

import numpy as np
import pytest

from tests.tables.records import Rng


@pytest.fixture
def rng() -> Rng:
    return np.random.default_rng(0)
