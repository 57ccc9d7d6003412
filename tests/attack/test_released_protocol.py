"""Protocol ``released``: batch statistics, its fixed settings, and the batches that it sees."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ncen_tf.attack.runner import run_suite
from ncen_tf.attack.suites import Suite, load_suite
from ncen_tf.base.errors import InputError
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.tensorflow_targets import KerasTarget, open_run
from tests.attack.helpers import softmax
from tests.conftest import Program


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(count, 28, 28, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def released(tiny_run: Path) -> KerasTarget:
    return open_run(tiny_run, batch_statistics=True)


def test_batch_statistics_are_those_of_training_mode(released: KerasTarget, tiny_run: Path) -> None:
    ensemble = open_run(tiny_run).keras_model
    before = ensemble.get_weights()
    batch = images(8)
    found = released.logits(batch)
    np.testing.assert_allclose(found, ensemble.member_logits(batch, training=True), atol=1e-5)
    assert np.abs(found - ensemble.member_logits(batch, training=False)).max() > 1e-3
    for weight, trained in zip(released.keras_model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, trained)


def test_an_answer_depends_on_its_batch(released: KerasTarget, tiny_run: Path) -> None:
    one = images(1)
    batches = [np.concatenate([one, images(7, seed)]) for seed in (1, 2)]
    first, second = (released.logits(batch)[0] for batch in batches)
    assert np.abs(first - second).max() > 1e-4
    alone = open_run(tiny_run)
    first, second = (alone.logits(batch)[0] for batch in batches)
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_the_last_batch_is_filled_with_other_images(released: KerasTarget) -> None:
    """11 images in batches of 8: the last batch is images 8, 9, 10, 0, 1, 2, 3, 4."""
    examples, labels = images(11), np.zeros(11, np.int32)
    suite = Suite(name="none", attacks=(), objective="stacked_softmax", batch_size=8)
    result = run_suite(released, examples, labels, suite)
    batches = [np.arange(8), np.array([8, 9, 10, 0, 1, 2, 3, 4])]
    logits = [released.logits(examples[batch]) for batch in batches]
    predicted = [softmax(z.astype(float)).mean(axis=1).argmax(axis=1) for z in logits]
    np.testing.assert_array_equal(result.clean_predictions, [*predicted[0], *predicted[1][:3]])


def test_same_attacks_as_the_papers_text(tiny_export: Path) -> None:
    paper, released = (load_suite(name, (32, 32, 3)) for name in ("paper", "released"))
    assert paper.attacks == released.attacks
    assert paper.with_choices(objective="ensemble", batch_size=7).objective == "ensemble"
    assert released.with_choices(batch_size=64) == released
    for choices, says in (
        ({"objective": "ensemble"}, "`objective`=stacked_softmax"),
        ({"batch_size": 32}, "`batch_size`=64"),
    ):
        with pytest.raises(InputError, match=f"'released' is measured with {says}"):
            released.with_choices(**choices)
    for file in (tiny_export, tiny_export / "ensemble.onnx", tiny_export / "saved_model"):
        with pytest.raises(InputError, match="cannot be measured with batch statistics"):
            open_target(file, batch_statistics=True)


def test_program_refuses_exports_and_other_settings(
    refuse: Callable[..., None], run_program: Program, tiny_run: Path, tiny_export: Path
) -> None:
    refuse("attack", f"--target={tiny_export}", "--suite=released", says="to the run directory")
    refuse(
        "attack",
        f"--target={tiny_run}",
        "--suite=released",
        "--objective=ensemble",
        says="leave it out",
    )
