"""One call from a classifier to a report: what it takes and refuses, and that it needs no TensorFlow."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

import ncen_tf
from ncen_tf.attack.iterative import MomentumIterative, RandomStartPgd
from ncen_tf.attack.square import Square
from ncen_tf.attack.suites import Suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from tests.attack.helpers import LinearTarget, images_and_predictions
from tests.conftest import ROOT

Array = npt.NDArray[np.float32]

STEP = MomentumIterative(eps=0.3, steps=1, step_size=0.3)
GRADIENTS = Suite(name="gradients", attacks=(STEP, RandomStartPgd(eps=0.3, steps=3, step_size=0.1)))
QUERIES = Suite(name="queries", attacks=(Square(eps=0.3, queries=20),))


@pytest.fixture
def data(linear: LinearTarget) -> Split:
    """Uint8 images that the target classifies correctly, nearly all of them."""
    images, labels = images_and_predictions(linear, 40)
    return Split(np.rint(images * 255).astype(np.uint8), labels, "mine", tuple("abcde"))


def dense(linear: LinearTarget, member: int, last: str | None = None, dtype: str = "float32") -> keras.Model:
    layers = keras.layers
    output = layers.Dense(5, activation=last, dtype=dtype)
    model = keras.Sequential([keras.Input((4, 3, 1)), layers.Flatten(), output])
    output.set_weights([linear.weights[member], linear.bias])
    return model


def test_a_target_a_function_and_a_keras_model_agree(linear: LinearTarget, data: Split) -> None:
    ensemble = ncen_tf.Ensemble([dense(linear, member) for member in range(3)])
    reports = [ncen_tf.evaluate(target, data, suite=QUERIES) for target in (linear, linear.logits, ensemble)]
    assert len({report.model_dump_json(include={"clean_accuracy", "worst_case"}) for report in reports}) == 1
    assert [report.target.members for report in reports] == [3, 3, 3]
    assert reports[0].attacks[0].queries > 0
    assert (reports[0].dataset, reports[0].protocol) == ("mine", "queries")
    by_gradients = [ncen_tf.evaluate(target, data, suite=GRADIENTS) for target in (linear, ensemble)]
    counts = [[row.robust_accuracy.count for row in report.attacks] for report in by_gradients]
    assert counts[0] == counts[1]
    assert counts[0][0] < reports[0].clean_accuracy.count


def test_data_may_be_arrays_a_dataset_or_a_source(linear: LinearTarget, data: Split, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", images=data.images, labels=data.labels)
    pair = (data.images, data.labels)
    loaded = ncen_tf.load_data(pair, test_fraction=1.0)
    sources = [data, pair, loaded, tmp_path / "mine.npz", tf.data.Dataset.from_tensor_slices(pair).batch(7)]
    reports = [ncen_tf.evaluate(linear, source, suite=QUERIES, examples=10) for source in sources]
    assert [report.dataset for report in reports] == ["mine", "arrays", "arrays", "mine", "tf.data"]
    rest = [report.model_dump_json(include={"clean_accuracy", "worst_case"}) for report in reports]
    assert rest.count(rest[0]) == 5


def test_softmax_at_the_end_is_taken_for_probabilities(linear: LinearTarget, data: Split) -> None:
    plain, softmax = (
        ncen_tf.evaluate(dense(linear, 0, last), data, suite=GRADIENTS, allow_low_accuracy=True)
        for last in (None, "softmax")
    )
    assert (plain.target.gives_logits, softmax.target.gives_logits) == (True, True)
    assert [report.target.signatures[0].output for report in (plain, softmax)] == [
        "logits",
        "logits before the Softmax",
    ]
    for one, other in zip(plain.attacks, softmax.attacks, strict=True):
        assert abs(one.robust_accuracy.count - other.robust_accuracy.count) <= 1
    probabilities = dense(linear, 0, "softmax")
    by_queries = ncen_tf.evaluate(
        lambda x: probabilities(x).numpy(), data, suite=QUERIES, allow_low_accuracy=True
    )
    assert not by_queries.target.gives_logits


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_logits_of_other_precisions_work(dtype: str, linear: LinearTarget, data: Split) -> None:
    single, half = (
        ncen_tf.evaluate(dense(linear, 0, dtype=d), data, suite=GRADIENTS, allow_low_accuracy=True)
        for d in ("float32", dtype)
    )
    assert abs(single.clean_accuracy.count - half.clean_accuracy.count) <= 2
    assert half.attacks[1].gradients == 40 * 3
    if dtype != "bfloat16":
        by_function = ncen_tf.evaluate(lambda x: linear.logits(x).astype(dtype), data, suite=QUERIES)
        assert by_function.clean_accuracy.count >= 35


def test_what_has_no_gradient_is_refused_in_one_sentence(linear: LinearTarget, data: Split) -> None:
    layers = keras.layers
    steps = layers.Discretization(bin_boundaries=[0.2, 0.4, 0.6, 0.8])
    stepwise = keras.Sequential(
        [keras.Input((4, 3, 1)), steps, layers.Rescaling(0.25), layers.Flatten(), layers.Dense(5)]
    )
    for target in (stepwise, linear.logits, lambda x: stepwise(x).numpy()):
        with pytest.raises(InputError, match=r"has no gradient.*`suite`=blackbox"):
            ncen_tf.evaluate(target, data, suite=GRADIENTS)
        report = ncen_tf.evaluate(target, data, suite=QUERIES, allow_low_accuracy=True)
        assert report.attacks[0].gradients == 0


def test_the_suite_decides_and_examples_are_balanced(linear: LinearTarget, data: Split) -> None:
    data = Split(data.images, np.arange(40, dtype=np.int32) % 5, "mine", data.class_names)
    some = ncen_tf.evaluate(linear, data, suite=QUERIES, examples=5)
    assert some.examples == 5
    few = QUERIES.model_copy(update={"examples": 10})
    assert ncen_tf.evaluate(linear, data, suite=few).examples == 10
    with pytest.raises(InputError, match="`allow_low_accuracy`"):  # these labels are not the target's
        ncen_tf.evaluate(linear, data, suite=few, examples=0)
    allowed: dict[str, Any] = {"allow_low_accuracy": True}
    assert ncen_tf.evaluate(linear, data, suite=few, examples=0, **allowed).examples == 40
    assert ncen_tf.evaluate(linear, data, suite=GRADIENTS, **allowed).objective == "member_average"
    ensemble = ncen_tf.evaluate(linear, data, suite=GRADIENTS, objective="ensemble", **allowed)
    assert ensemble.objective == "ensemble"
    for options, says in (
        ({"suite": QUERIES, "eps": 0.1}, "`eps` is stated by the attacks"),
        ({"suite": "strict", "eps": 0.1}, "`eps` bounds one norm.*: set `norm`"),
        ({"suite": "quick", "eps": 8}, "8/255 = 0.03137"),
        ({"suite": "quick", "eps": -1}, "`eps` must be greater than 0, got -1"),
        ({"suite": QUERIES, "norm": "L2"}, "no attack in L2"),
        ({"suite": QUERIES, "seed": -1}, "`seed`"),
        ({"suite": QUERIES, "batch_size": 0}, "`batch_size`"),
        ({"suite": QUERIES, "save_adversarials": True}, "set `out`"),
        ({"suite": QUERIES, "gate": ncen_tf.Gate(agreement=0.1)}, "needs a target with a recorded"),
    ):
        with pytest.raises(InputError, match=says):
            ncen_tf.evaluate(linear, data, **options)


def test_an_evaluation_resumes_and_its_images_are_replayed(
    linear: LinearTarget, data: Split, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ncen_tf")
    for resumed in (0, 1):
        report = ncen_tf.evaluate(linear, data, suite=QUERIES, out=tmp_path, save_adversarials=True)
        assert caplog.text.count("finished by an earlier run") == resumed
    (file,) = (tmp_path / "adversarials").iterdir()
    again = ncen_tf.evaluate_saved(linear, file)
    assert (again.dataset, again.examples) == ("mine", 40)
    assert again.attacks[0].robust_accuracy == report.attacks[0].robust_accuracy
    assert again.protocol == f"replay of {file.name}"


def test_strict_on_an_onnx_file_does_without_tensorflow() -> None:
    code = (
        "import dataclasses, sys, ncen_tf\n"
        "suite = ncen_tf.load_suite('strict', (28, 28, 1)).with_choices(norm='Linf')\n"
        "def cheap(attack):\n"
        "    budgets = ('steps', 'restarts', 'queries')\n"
        "    few = {f.name: 2 for f in dataclasses.fields(attack) if f.name in budgets}\n"
        "    return dataclasses.replace(attack, **few)\n"
        "suite = suite.model_copy(update={'attacks': tuple(map(cheap, suite.attacks))})\n"
        "data = ncen_tf.load_data('fashion_mnist_sample').test\n"
        "report = ncen_tf.evaluate('exports/reference', data, suite=suite, examples=10)\n"
        "assert report.masked_gradients and report.attacks[0].gradients > 0, report\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
