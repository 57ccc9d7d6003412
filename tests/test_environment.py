"""What is set up before TensorFlow is imported."""

import os
import subprocess
import sys

import pytest

from ncen_tf.base import environment
from tests.conftest import ROOT

BIASED_SHORTCUT = """
import keras
import numpy as np
import ncen_tf
from keras import layers

keras.utils.set_random_seed(0)

def build() -> keras.Model:
    images = keras.Input((5, 5, 3))
    features = layers.Conv2D(3, 3, padding="same", bias_initializer="random_normal")(images)
    features = layers.LeakyReLU(0.1)(layers.Add()([features, images]))
    return keras.Model(images, layers.Dense(2)(layers.Flatten()(features)))

member = build()
x = np.random.default_rng(0).random((2, 5, 5, 3), np.float32)
target = ncen_tf.open_target(ncen_tf.Ensemble([member, build()]) if ENSEMBLE else member)
np.testing.assert_allclose(target.logits(x)[:, 0], member(x), atol=1e-4)
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


@pytest.mark.parametrize("ensemble", [False, True])
def test_with_onednn_leaky_relu_keeps_its_slope(ensemble: bool) -> None:
    """TensorFlow fuses a biased convolution, an addition and LeakyReLU into a kernel with another slope."""
    done = subprocess.run(
        [sys.executable, "-c", BIASED_SHORTCUT.replace("ENSEMBLE", str(ensemble))],
        cwd=ROOT,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
