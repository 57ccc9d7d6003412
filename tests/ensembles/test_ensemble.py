"""Structures, the ensemble's prediction, and files that Keras loads in safe mode."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ncen_tf import NCE, build_ensemble
from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.structures import parse_architecture, structure_architecture


@pytest.mark.parametrize(
    ("structure", "members", "depths"),
    [
        ("Ensemble1", 3, [20, 20, 20]),
        ("Ensemble2", 4, [26] * 4),
        ("Ensemble3", 5, [32] * 5),
        ("Ensemble4", 3, [20, 26, 32]),
        ("Ensemble4", 4, [20, 20, 26, 32]),
        ("Ensemble4", 5, [20, 20, 26, 26, 32]),
    ],
)
def test_structures_of_the_paper(structure: str, members: int, depths: list[int]) -> None:
    assert structure_architecture(structure, members) == tuple(f"resnet{depth}" for depth in depths)


def test_unknown_structures_and_members_are_refused() -> None:
    with pytest.raises(InputError, match="Ensemble5"):
        structure_architecture("Ensemble5", 3)
    with pytest.raises(InputError, match="3, 4 or 5"):
        structure_architecture("Ensemble1", 2)
    for names in (["resnet20"], ["resnet20", "resnet19"], ["resnet20", "vgg16"], ["resnet2", "resnet8"]):
        with pytest.raises(InputError, match="--architecture"):
            parse_architecture(names)


def test_prediction_is_the_mean_of_the_members_softmax() -> None:
    ensemble = build_ensemble(["resnet8", "resnet14"], (28, 28, 1), seed=2)
    images = np.random.default_rng(0).uniform(size=(3, 28, 28, 1)).astype(np.float32)
    expected = []
    for member in ensemble.members:
        scores = np.exp(member(images, training=False).numpy())
        expected.append(scores / scores.sum(1, keepdims=True))
    np.testing.assert_allclose(ensemble.predict_probabilities(images), np.mean(expected, 0), atol=1e-6)
    assert ensemble(images).shape == (3, 2, 10)


def test_compile_fit_save_and_load_as_in_a_notebook(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    images = generator.uniform(size=(40, 28, 28, 1)).astype(np.float32)
    labels = generator.integers(0, 10, 40)
    ensemble = build_ensemble(["resnet8"] * 2, (28, 28, 1), seed=0)
    ensemble.compile("adam", NCE(0.1, -0.2, "released"), ce_on="probabilities")
    history = ensemble.fit(images, labels, batch_size=16, epochs=2, verbose=0).history
    assert set(history) == {"loss", "ce", "l_cos", "l_norm", "accuracy"}
    parts = [history[name][1] for name in ("ce", "l_cos", "l_norm")]
    assert history["loss"][1] == pytest.approx(parts[0] + 0.1 * parts[1] - 0.2 * parts[2], abs=1e-5)
    file = tmp_path / "ensemble.keras"
    ensemble.save(file)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "logits.npy", ensemble.predict(images, verbose=0))
    # A fresh process that knows nothing but `import ncen_tf`, with Keras's safe mode on.
    script = (
        "import keras, ncen_tf, numpy as np\n"
        f"e = keras.saving.load_model({str(file)!r}, safe_mode=True)\n"
        f"x = np.load({str(tmp_path / 'images.npy')!r})\n"
        f"assert np.abs(e.predict(x, verbose=0) - np.load({str(tmp_path / 'logits.npy')!r})).max() < 1e-6\n"
        "assert e.regularizer == ncen_tf.NCE(0.1, -0.2, 'released'), e.regularizer\n"
        "assert e.ce_on == 'probabilities'\n"
        "e.fit(x, np.zeros(len(x)), verbose=0)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=200)


def test_mixed_precision_keeps_logits_and_statistics_in_float32() -> None:
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        ensemble = build_ensemble(["resnet8"] * 2, (28, 28, 1), seed=0)
    finally:
        keras.config.set_dtype_policy("float32")
    ensemble.compile("adam", NCE())
    images = tf.random.stateless_uniform([8, 28, 28, 1], [0, 0])
    logs = ensemble.train_step((images, tf.range(8)))
    assert all(np.isfinite(float(value)) for value in logs.values())
    assert ensemble(images).dtype == tf.float32
    convolution, normalization = ensemble.members[0].layers[1:3]
    assert convolution.compute_dtype == "bfloat16"
    assert normalization.moving_variance.dtype == "float32"
    # statistics taken in bfloat16 would be off by about 1 part in 256
    x = tf.cast(convolution(images), tf.float32)
    fresh = type(normalization)()
    fresh(x, training=True)
    expected = 0.1 * tf.math.reduce_variance(x, [0, 1, 2]) + 0.9
    np.testing.assert_allclose(fresh.moving_variance, expected, rtol=1e-5)
