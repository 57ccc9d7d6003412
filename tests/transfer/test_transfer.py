"""Transfer matrices against attacks and counts written out in NumPy, on linear members."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.objectives import Objective
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import Split
from ncen_tf.data.loading import load_data
from ncen_tf.targets.opening import open_target
from ncen_tf.targets.target import Target
from ncen_tf.transfer.record import Transfer, TransferRow, count_transfer, draw_heat_map
from ncen_tf.transfer.run import build_attacks, measure_transfer, open_members, predict_all
from tests.conftest import Program

Array = npt.NDArray[Any]
SHAPE = (4, 6, 1)
EPS = 0.05


def make_weights(classes: int, count: int, pixels: int) -> list[Array]:
    """Members that share a part, so that attacks transfer in part: each [classes, pixels]."""
    generator = np.random.default_rng(0)
    shared = generator.normal(size=(classes, pixels))
    return [(shared + generator.normal(size=shared.shape)).astype(np.float32) for _ in range(count)]


def write_member(file: Path, weight: Array, shape: tuple[int, int, int]) -> Path:
    """image [N, H, W, C] -> logits [N, classes], the products of centred pixels with the weights."""
    bias = (-0.5 * weight.sum(axis=1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"], transB=1),
        ],
        "linear",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", len(weight)])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


def logits(weight: Array, image: Array) -> Array:
    """[classes], in float64."""
    return weight.astype(np.float64) @ (image.reshape(-1).astype(np.float64) - 0.5)


def momentum_iterative(
    weight: Array, image: Array, label: int, eps: float, steps: int, step_size: float
) -> Array:
    """MI-FGSM (Dong et al., 2018, Algorithm 1; decay 1) on the cross-entropy of one member."""
    start = image.reshape(-1).astype(np.float64)
    moved, momentum = start, np.zeros_like(start)
    for _ in range(steps):
        scores = logits(weight, moved)
        probabilities = np.exp(scores - scores.max())
        probabilities /= probabilities.sum()
        gradient = weight.T.astype(np.float64) @ (probabilities - np.eye(len(weight))[label])
        momentum = momentum + gradient / np.abs(gradient).mean()
        moved = np.clip(moved + step_size * np.sign(momentum), start - eps, start + eps).clip(0, 1)
    return moved


def worst_corner(weight: Array, image: Array, label: int, eps: float) -> Array:
    """With two classes, the corner of the ball where the loss is largest; PGD's full steps reach it."""
    assert len(weight) == 2
    return (image.reshape(-1) + eps * np.sign(weight[1 - label] - weight[label])).clip(0, 1)


class Linear:
    """Three linear members in ONNX files, and images that they classify correctly more often than not."""

    def __init__(self, folder: Path, classes: int) -> None:
        self.weights = make_weights(classes, 3, int(np.prod(SHAPE)))
        self.files = [write_member(folder / f"{i}.onnx", w, SHAPE) for i, w in enumerate(self.weights)]
        self.members: list[Target] = open_members(self.files)
        pixels = np.random.default_rng(1).integers(256, size=(60, *SHAPE)).astype(np.uint8)
        self.images = pixels.astype(np.float32) / 255
        sums = np.sum(self.weights, axis=0)
        self.labels = np.array([np.argmax(logits(sums, image)) for image in self.images], np.int32)
        self.data = Split(pixels, self.labels, "linear", ("a", "b", "c", "d")[:classes])

    def predict(self, attacks: tuple[Attack, ...], folder: Path, **changes: Any) -> tuple[Array, list[Array]]:
        given: dict[str, Any] = {"members": self.members, "data": self.data} | changes
        return predict_all(attacks=attacks, folder=folder, **given)

    def measure(self, attack: Attack, folder: Path) -> TransferRow:
        clean, (adversarial,) = self.predict((attack,), folder)
        return count_transfer(attack.settings(), self.labels, clean, adversarial)


@pytest.fixture
def linear(tmp_path: Path) -> Linear:
    return Linear(tmp_path, classes=4)


def assert_counts(row: TransferRow, linear: Linear, attack: Callable[[Array, Array, int], Array]) -> None:
    """Count every cell again, by the definitions alone, one image at a time."""
    shares = np.zeros((3, 3))
    for i, source in enumerate(linear.weights):
        for j, shown_to in enumerate(linear.weights):
            counts = {"aae": [0, 0], "accuracy": [0, 0], "transfer_rate": [0, 0]}
            for image, label in zip(linear.images, linear.labels, strict=True):
                adversarial = attack(source, image, label)
                source_right = np.argmax(logits(source, image)) == label
                right = np.argmax(logits(shown_to, image)) == label
                source_right_after = np.argmax(logits(source, adversarial)) == label
                right_after = np.argmax(logits(shown_to, adversarial)) == label
                counts["accuracy"][1] += 1
                counts["accuracy"][0] += right_after
                if right:
                    counts["aae"][1] += 1
                    counts["aae"][0] += right_after
                if right and source_right and not source_right_after:
                    counts["transfer_rate"][1] += 1
                    counts["transfer_rate"][0] += not right_after
            for name, expected in counts.items():
                cell = getattr(row, name)[i][j]
                assert [cell.count, cell.total] == expected, (name, i, j)
            shares[i, j] = counts["aae"][0] / counts["aae"][1]
    assert 0 < shares.min() < shares.max() < 1  # otherwise the comparison shows little
    own = np.eye(3, dtype=bool)
    assert row.summary.mean_diagonal == pytest.approx(shares[own].mean())
    assert row.summary.mean_off_diagonal == pytest.approx(shares[~own].mean())
    assert row.summary.difference == pytest.approx(shares[~own].mean() - shares[own].mean())


def test_pgd_matrix_is_that_of_the_worst_corners(tmp_path: Path) -> None:
    linear = Linear(tmp_path, classes=2)
    row = linear.measure(build_attacks(["pgd"], EPS, 5)[0], tmp_path / "images")
    assert_counts(row, linear, lambda w, x, y: worst_corner(w, x, y, EPS))


def test_momentum_iterative_matrix_is_that_of_numpy(linear: Linear, tmp_path: Path) -> None:
    row = linear.measure(build_attacks(["mi_fgsm"], EPS, 8)[0], tmp_path / "images")
    assert_counts(row, linear, lambda w, x, y: momentum_iterative(w, x, y, EPS, 8, step_size=0.01))


def test_the_batch_size_changes_nothing(tmp_path: Path) -> None:
    linear = Linear(tmp_path, classes=2)
    attacks = build_attacks(["pgd", "mi_fgsm"], EPS, 6)
    small, large = (linear.predict(attacks, tmp_path / str(size), batch_size=size) for size in (7, 60))
    np.testing.assert_array_equal(small[0], large[0])
    np.testing.assert_array_equal(small[1], large[1])


def test_record_table_and_map_hold_the_same_cells(linear: Linear, tmp_path: Path) -> None:
    transfer = measure_transfer(linear.files, linear.data, tmp_path / "out", eps=EPS, steps=4)
    assert [row.attack for row in transfer.attacks] == ["PGD", "MI-FGSM"]
    transfer.save(tmp_path / "out")
    assert Transfer.read(tmp_path / "out" / "transfer.json") == transfer
    assert (tmp_path / "out" / "transfer.png").read_bytes().startswith(b"\x89PNG")
    table = [line.split() for line in str(transfer).splitlines()]
    for panel, row in zip(draw_heat_map(transfer).axes, transfer.attacks, strict=False):
        texts = {text.get_position(): text.get_text() for text in panel.texts}
        for i, cells in enumerate(row.aae):
            values = [100 * (cell.value or 0.0) for cell in cells]
            assert [texts[j, i] for j in range(3)] == [f"{value:.1f}" for value in values]  # x is the column
            assert ["made", "on", str(i), *(word for v in values for word in (f"{v:.2f}", "%"))] in table


def test_members_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    weight = make_weights(4, 1, 24)[0]
    first = write_member(tmp_path / "first.onnx", weight, SHAPE)
    narrow = write_member(tmp_path / "narrow.onnx", weight, (6, 4, 1))
    fewer = write_member(tmp_path / "fewer.onnx", weight[:3], SHAPE)
    with pytest.raises(InputError, match="is a single member"):
        open_members([first])
    with pytest.raises(InputError, match=r"first\.onnx takes \(4, 6, 1\).*narrow\.onnx takes \(6, 4, 1\)"):
        open_members([first, narrow])
    with pytest.raises(InputError, match=r"knows 4 classes.*fewer\.onnx .* knows 3 classes"):
        open_members([first, fewer])


def test_a_member_that_is_never_right_is_refused(tmp_path: Path) -> None:
    linear = Linear(tmp_path, classes=2)
    useless = write_member(tmp_path / "useless.onnx", -1000 * np.sum(linear.weights, axis=0), SHAPE)
    members = [*linear.members, *open_members([useless, useless])]
    with pytest.raises(InputError, match=r"useless\.onnx classifies none of the 60 clean images correctly"):
        linear.predict(build_attacks(["pgd"], EPS, 2), tmp_path / "images", members=members)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["pgd", "pdg"], EPS, 5), "must list some of .*; got 'pdg'"),
        (([], EPS, 5), "none was given"),
        ((["pgd"], -0.1, 5), "`eps` must be greater than 0"),
    ],
)
def test_impossible_attacks_are_refused(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        build_attacks(*arguments)


def test_names_of_attacks_are_those_of_the_registry() -> None:
    attacks = build_attacks(["PGD", "pgd", "mi-fgsm", "FGSM", "apgd-ce"], EPS, 3)
    settings = [attack.settings() for attack in attacks]
    assert [one["attack"] for one in settings] == ["PGD", "MI-FGSM", "FGSM", "APGD-CE"]
    assert [one.get("step_size") for one in settings[:2]] == [EPS, 0.01]
    assert [one.get("steps") for one in settings] == [3, 3, None, 3]


def test_an_interrupted_run_continues_with_the_next_attack(
    linear: Linear, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attacks = build_attacks(["pgd", "mi_fgsm"], EPS, 3)
    uninterrupted = linear.predict(attacks, tmp_path / "other")
    kind = type(attacks[1])
    original = kind.__call__

    def interrupt(self: Attack, objective: Objective, *args: Any) -> Any:
        if objective.target is linear.members[1]:
            raise KeyboardInterrupt
        return original(self, objective, *args)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            linear.predict(attacks, tmp_path / "images")
    damaged = next((tmp_path / "images").glob("PGD*"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    with caplog.at_level(logging.INFO, "ncen_tf"):
        resumed = linear.predict(attacks, tmp_path / "images")
    assert caplog.text.count("made by an earlier run") == 2  # of three: one was damaged
    np.testing.assert_array_equal(resumed[1], uninterrupted[1])


def test_images_are_used_again_only_where_nothing_changed(
    linear: Linear, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def reused(eps: float = EPS, **changes: Any) -> int:
        caplog.clear()
        with caplog.at_level(logging.INFO, "ncen_tf"):
            linear.predict(build_attacks(["pgd"], eps, 3), tmp_path / "images", **changes)
        return caplog.text.count("made by an earlier run")

    assert reused(members=linear.members[:2]) == 0
    assert reused() == 2  # a further member, the same images of the others
    assert reused(data=dataclasses.replace(linear.data, images=linear.data.images // 2 + 64)) == 0
    assert reused(eps=EPS / 2) == 0
    assert reused(seed=1) == 0


def paths(kind: str, run: Path, export: Path) -> list[Path]:
    files = [export / "members" / f"member_{index}.onnx" for index in (0, 1)]
    known = {"run": [run], "keras": [run / "ensemble.keras"], "export": [export], "files": files}
    return known.get(kind) or [export / kind]


@pytest.mark.parametrize("kind", ["run", "keras", "saved_model", "ensemble.onnx", "export", "files"])
def test_logits_and_gradients_are_the_members_own(kind: str, tiny_run: Path, tiny_export: Path) -> None:
    test = load_data("fashion_mnist_sample", test_examples=20).test
    images, labels = test.float_images(), test.labels
    logits, pull_back = open_target(tiny_run).linearize(images)
    members = open_members(paths(kind, tiny_run, tiny_export))
    assert len(members) == 2
    for index, member in enumerate(members):
        assert (member.members, member.classes, tuple(member.image_shape)) == (1, 10, (28, 28, 1))
        assert np.abs(member.logits(images)[:, 0] - logits[:, index]).max() < 1e-4
        slopes = np.exp(logits[:, index] - logits[:, index].max(1, keepdims=True))
        slopes /= slopes.sum(1, keepdims=True)
        slopes[np.arange(len(labels)), labels] -= 1
        cotangent = np.zeros_like(logits)
        cotangent[:, index] = slopes
        expected = pull_back(cotangent)
        _, gradient = Objective(member, "ensemble").loss_and_gradient(images, labels)
        assert np.linalg.norm(gradient - expected) < 1e-4 * np.linalg.norm(expected)


QUICK = ("--dataset=fashion_mnist_sample", "--num_examples=20", "--steps=2")


def test_record_map_and_table(tiny_export: Path, tmp_path: Path, run_program: Program) -> None:
    out = tmp_path / "out"
    done = run_program("transfer", f"--target={tiny_export}", *QUICK, f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "made on 1" in done.stdout
    assert "mean AAE off the diagonal" in done.stdout
    transfer = Transfer.read(out / "transfer.json")
    assert [(row.attack, row.eps) for row in transfer.attacks] == [("PGD", 0.05), ("MI-FGSM", 0.05)]
    assert transfer.attacks[0].settings == {"steps": 2, "step_size": 0.05}
    assert [m.description[-13:] for m in transfer.members] == ["member_0.onnx", "member_1.onnx"]
    assert (out / "transfer.png").read_bytes().startswith(b"\x89PNG")
    files = ",".join(str(file) for file in sorted((tiny_export / "members").iterdir()))
    again = run_program("transfer", f"--targets={files}", *QUICK, f"--out={out}")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("made by an earlier run") == 4
    assert Transfer.read(out / "transfer.json") == transfer


def test_bad_input_is_refused(tiny_export: Path, refuse: Callable[..., None]) -> None:
    target = f"--target={tiny_export}"
    member = tiny_export / "members" / "member_0.onnx"
    refuse("transfer", *QUICK, says="--target")
    refuse("transfer", target, f"--targets={member}", *QUICK, says="--target")
    refuse("transfer", "--targets=none.onnx", "--dataset=none", says="none.onnx does not exist")
    refuse("transfer", target, *QUICK, "--attacks=pgd,pdg", says="--attacks must list some of")
    refuse("transfer", target, *QUICK, "--num_examples=-1", says="--num_examples")
    refuse("transfer", f"--target={member}", *QUICK, says="several models with --targets")
