"""Images brought to one size, beside PIL, torch and tf.image.resize."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ncen_tf.base.errors import InputError
from ncen_tf.data.sizing import Resize, Sizing

FLOATS = np.random.default_rng(0).random((2, 24, 16, 3), np.float32)
PIXELS = np.round(FLOATS * 255).astype(np.uint8)


@pytest.mark.parametrize(("resize", "mode"), [("antialias", "bilinear"), ("bicubic", "bicubic")])
def test_antialiasing_is_that_of_torch(resize: Resize, mode: str) -> None:
    torch = pytest.importorskip("torch")
    images = FLOATS[:, 4:20]
    scaled = torch.nn.functional.interpolate(
        torch.tensor(images.transpose(0, 3, 1, 2)), (6, 6), mode=mode, antialias=True
    )
    expected = scaled.numpy().transpose(0, 2, 3, 1).clip(0, 1)
    sizing = Sizing(image_size=(6,), resize=resize)
    np.testing.assert_allclose(sizing.fit_arrays(images), expected, atol=1e-5)
    np.testing.assert_allclose(sizing.fit_arrays(PIXELS[:, 4:20]), 255 * expected, atol=1.5)


def test_bilinear_is_that_of_tensorflow_at_the_centre() -> None:
    expected = tf.image.resize(FLOATS[:, 4:20], (6, 6)).numpy()
    fitted = Sizing(image_size=(6,), resize="bilinear").fit_arrays(FLOATS)
    np.testing.assert_allclose(fitted, expected, atol=1e-5)


def test_a_crop_keeps_the_centre() -> None:
    sizing = Sizing(image_size=(12, 8), crop_fraction=0.5)
    np.testing.assert_array_equal(sizing.fit_arrays(PIXELS), PIXELS[:, 6:18, 4:12])
    image = Image.fromarray(PIXELS[0])
    np.testing.assert_array_equal(np.asarray(sizing.fit(image)), PIXELS[0, 6:18, 4:12])
    assert Sizing().fit_arrays(PIXELS) is PIXELS


def test_impossible_sizes_are_refused() -> None:
    for settings, says in (
        ({"image_size": (3, 3, 3)}, "one or two numbers above 0"),
        ({"resize": "bicubic"}, "need an `image_size`"),
    ):
        with pytest.raises(InputError, match=says):
            Sizing(**settings)
