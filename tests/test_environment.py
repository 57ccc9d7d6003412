"""What is set up before TensorFlow is imported."""

import os
import subprocess
import sys

import pytest

from ncen_tf.base import environment
from tests.conftest import ROOT

BIASED_SHORTCUT = """
import numpy as np
import tensorflow as tf
from ncen_tf.train.config import TrainConfig
from ncen_tf.train.devices import set_up_devices

set_up_devices(TrainConfig())
generator = np.random.default_rng(0)
x, kernel, bias = (tf.constant(generator.normal(size=s), tf.float32) for s in ((2, 5, 5, 8), (3, 3, 8, 8), 8))

def activate(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.leaky_relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias) + x, 0.1)

np.testing.assert_allclose(tf.function(activate)(x), activate(x), atol=1e-4)
"""


@pytest.mark.parametrize(
    ("flags", "before", "expected"),
    [
        ({"avx2"}, None, "1"),
        ({"avx2"}, "0", "0"),
        ({"avx2", "avx512f"}, None, None),
        (set(), None, None),
    ],
)
def test_onednn_is_enabled_on_processors_with_avx2_only(
    flags: set[str], before: str | None, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "TF_ENABLE_ONEDNN_OPTS"
    monkeypatch.setenv(name, before or "")  # so that it is as before after the test
    if before is None:
        del os.environ[name]
    monkeypatch.setattr(environment, "processor_flags", lambda: frozenset(flags))
    environment.enable_onednn()
    assert os.environ.get(name) == expected


def test_training_with_onednn_keeps_the_slope_of_leaky_relu() -> None:
    """TensorFlow fuses a biased convolution, an addition and LeakyReLU into a kernel with another slope."""
    done = subprocess.run(
        [sys.executable, "-c", BIASED_SHORTCUT],
        cwd=ROOT,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
