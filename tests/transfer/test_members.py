"""A member is the same whatever file it comes from."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ncen_tf.attack.objectives import Objective
from ncen_tf.data.dataset import load_data
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target
from ncen_tf.transfer.attacks import build_attacks
from ncen_tf.transfer.members import open_members
from ncen_tf.transfer.run import Images, Labels, run_transfer


@pytest.fixture
def examples() -> tuple[Images, Labels]:
    test = load_data("fashion_mnist_sample", test_examples=60).test
    return (test.images / 255).astype(np.float32), test.labels


def paths(kind: str, run: Path, export: Path) -> list[Path]:
    files = [export / "members" / f"member_{index}.onnx" for index in (0, 1)]
    known = {"run": [run], "keras": [run / "ensemble.keras"], "export": [export], "files": files}
    return known.get(kind) or [export / kind]


def loss_gradient(objective: Objective, images: Images, labels: Labels) -> Images:
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, objective(x))
    return np.asarray(tape.gradient(loss, x))


@pytest.mark.parametrize("kind", ["run", "keras", "saved_model", "ensemble.onnx", "export", "files"])
def test_logits_and_gradients_are_the_members_own(
    kind: str, tiny_run: Path, tiny_export: Path, examples: tuple[Images, Labels]
) -> None:
    images, labels = examples[0][:9], examples[1][:9]
    ensemble: Target = open_target(tiny_run).target
    members = open_members(paths(kind, tiny_run, tiny_export))
    assert len(members) == 2
    for index, member in enumerate(members):
        assert (member.members, member.classes, member.image_shape) == (1, 10, (28, 28, 1))
        x = tf.constant(images)
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = ensemble.member_logits(x)[:, index]
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        expected = tape.gradient(loss, x).numpy()
        assert np.abs(member.member_logits(images)[:, 0] - logits).max() < 1e-4
        gradient = loss_gradient(Objective(member, "ensemble"), images, labels)
        assert np.linalg.norm(gradient - expected) < 1e-4 * np.linalg.norm(expected)


def test_run_and_exported_members_give_one_matrix(
    tiny_run: Path, tiny_export: Path, examples: tuple[Images, Labels], tmp_path: Path
) -> None:
    attacks = build_attacks(["pgd", "mi_fgsm"], 0.03, 5, 0.01)
    results = [
        run_transfer(
            open_members(paths(kind, tiny_run, tiny_export)), *examples, attacks, folder=tmp_path / kind
        )
        for kind in ("run", "export", "ensemble.onnx")
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(other.clean, results[0].clean)
        # Rounding turns the sign of gradients that are nearly zero, and with it a close decision.
        assert np.mean(np.array(other.adversarial) == results[0].adversarial) > 0.98
