"""Functions of a user's module, by name."""

from pathlib import Path

import numpy as np
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.targets.opening import open_target

MODULE = """
import numpy as np
limit = 0.5
def brightness(images):
    mean = images.mean(axis=(1, 2, 3))
    return np.stack([limit - mean, mean - limit], axis=1)
"""


def test_a_function_is_found_by_module_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_brightness.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    target = open_target("own_brightness:brightness", image_shape=(4, 4, 1), differentiable=False)
    assert target.description == "own_brightness:brightness"
    images = np.stack([np.zeros((4, 4, 1)), np.ones((4, 4, 1))]).astype(np.float32)
    np.testing.assert_array_equal(target.logits(images)[:, 0], [[0.5, -0.5], [-0.5, 0.5]])
    for name, says in (
        ("own_brightness:nothing", "cannot be imported: AttributeError"),
        ("no_such_module:f", "cannot be imported: ModuleNotFoundError"),
        ("own_brightness:limit", "is a float, not a function"),
    ):
        with pytest.raises(InputError, match=says):
            open_target(name, image_shape=(4, 4, 1), differentiable=False)
    with pytest.raises(InputError, match="`suite`=blackbox"):
        open_target("own_brightness:brightness", image_shape=(4, 4, 1))
