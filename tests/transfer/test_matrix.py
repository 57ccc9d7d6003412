"""The matrix against attacks and counts written out in NumPy, on linear members."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.attack.attack import Attack
from ncen_tf.attack.result_files import read_adversarials
from ncen_tf.attack.runner import replay
from ncen_tf.base.errors import InputError
from ncen_tf.targets.target import Target
from ncen_tf.transfer.attacks import build_attacks
from ncen_tf.transfer.heat_map import draw_heat_map
from ncen_tf.transfer.members import open_members
from ncen_tf.transfer.record import build_transfer, read_transfer, write_transfer
from ncen_tf.transfer.run import run_transfer
from ncen_tf.transfer.table import format_transfer
from tests.transferability import linear_members
from tests.transfer.linear_members import Array, logits, worst_corner, write_member

SHAPE = (3, 4, 2)
EPS = 0.05


def members_and_examples(folder: Path, classes: int) -> tuple[list[Array], list[Target], Array, Array]:
    """Three members, and images in [0, 1] whose labels the members get right more often than not."""
    weights = linear_members.weights(classes, 3, int(np.prod(SHAPE)))
    files = [write_member(folder / f"{i}.onnx", weight, SHAPE) for i, weight in enumerate(weights)]
    images = np.random.default_rng(1).uniform(size=(60, *SHAPE)).astype(np.float32)
    labels = np.array([np.argmax(logits(np.sum(weights, axis=0), image)) for image in images], np.int32)
    return weights, open_members(files), images, labels


def measured(
    members: list[Target], images: Array, labels: Array, attacks: tuple[Attack, ...], folder: Path
) -> dict[str, Any]:
    result = run_transfer(members, images, labels, attacks, folder=folder)
    return build_transfer(members, attacks, result, dataset="none", seed=0, batch_size=64)


def brute_force(
    weights: list[Array], images: Array, labels: Array, attack: Callable[[Array, Array, int], Array]
) -> dict[str, Any]:
    """(count, total) of every cell, by the definitions alone."""
    tables: dict[str, Any] = {"aae": [], "accuracy": [], "transfer_rate": []}
    for source in weights:
        rows: dict[str, list[tuple[int, int]]] = {measure: [] for measure in tables}
        for shown_to in weights:
            counts = {measure: [0, 0] for measure in tables}
            for image, label in zip(images, labels, strict=True):
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
            for measure, (count, total) in counts.items():
                rows[measure].append((count, total))
        for measure, row in rows.items():
            tables[measure].append(row)
    return tables


def assert_counts(row: dict[str, Any], expected: dict[str, Any]) -> None:
    for measure, table in expected.items():
        found = [[(cell["count"], cell["total"]) for cell in cells] for cells in row[measure]]
        assert found == table, measure
    shares = np.array(expected["aae"])[..., 0] / np.array(expected["aae"])[..., 1]
    assert 0 < shares.min() < shares.max() < 1  # otherwise the comparison shows little
    off_diagonal = sum(shares[i][j] for i in range(3) for j in range(3) if i != j) / 6
    summary = row["summary"]
    assert summary["mean_diagonal"] == pytest.approx(sum(shares[i][i] for i in range(3)) / 3)
    assert summary["mean_off_diagonal"] == pytest.approx(off_diagonal)
    assert summary["difference"] == pytest.approx(off_diagonal - summary["mean_diagonal"])


def test_pgd_matrix_is_that_of_the_worst_corners(tmp_path: Path) -> None:
    weights, members, images, labels = members_and_examples(tmp_path, classes=2)
    transfer = measured(members, images, labels, build_attacks(["pgd"], EPS, 5), tmp_path / "images")
    expected = brute_force(weights, images, labels, lambda w, x, y: worst_corner(w, x, y, EPS))
    assert_counts(transfer["attacks"][0], expected)


def test_momentum_iterative_matrix_is_that_of_numpy(tmp_path: Path) -> None:
    weights, members, images, labels = members_and_examples(tmp_path, classes=4)
    attacks = build_attacks(["mi_fgsm"], EPS, 8)
    transfer = measured(members, images, labels, attacks, tmp_path / "images")
    expected = brute_force(
        weights, images, labels, lambda w, x, y: linear_members.momentum_iterative(w, x, y, EPS, 8, 0.01)
    )
    assert_counts(transfer["attacks"][0], expected)


def test_the_batch_size_changes_nothing(tmp_path: Path) -> None:
    _, members, images, labels = members_and_examples(tmp_path, classes=2)
    attacks = build_attacks(["pgd", "mi_fgsm"], EPS, 6)
    small, large = (
        run_transfer(members, images, labels, attacks, folder=tmp_path / str(size), batch_size=size)
        for size in (7, 60)
    )
    np.testing.assert_array_equal(small.clean, large.clean)
    np.testing.assert_array_equal(small.adversarial, large.adversarial)


def test_the_kept_images_replay_to_the_same_predictions(tmp_path: Path) -> None:
    _, members, images, labels = members_and_examples(tmp_path, classes=4)
    result = run_transfer(
        members, images, labels, build_attacks(["mi_fgsm"], EPS, 8), folder=tmp_path / "images"
    )
    replayed = {
        np.array(
            [replay(member, read_adversarials(file)).attacks[0].predictions for member in members]
        ).tobytes()
        for file in (tmp_path / "images").iterdir()
    }
    assert replayed == {row.tobytes() for row in result.adversarial[0]}


def test_map_and_table_show_the_cells(tmp_path: Path) -> None:
    _, members, images, labels = members_and_examples(tmp_path, classes=4)
    attacks = build_attacks(["pgd", "mi_fgsm"], EPS, 4)
    transfer = measured(members, images, labels, attacks, tmp_path / "images")
    table = [line.split() for line in format_transfer(transfer).splitlines()]
    panels = draw_heat_map(transfer).axes[:2]
    for panel, row in zip(panels, transfer["attacks"], strict=True):
        texts = {text.get_position(): text.get_text() for text in panel.texts}
        for i, cells in enumerate(row["aae"]):
            for j, cell in enumerate(cells):
                assert texts[j, i] == f"{100 * cell['value']:.1f}"  # x is the column, y the row
            shares = [f"{100 * cell['value']:.2f}" for cell in cells]
            assert ["made", "on", str(i), *(word for share in shares for word in (share, "%"))] in table


def test_members_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    weight = linear_members.weights(4, 1, 24)[0]
    first = write_member(tmp_path / "first.onnx", weight, SHAPE)
    narrow = write_member(tmp_path / "narrow.onnx", weight, (4, 3, 2))
    fewer = write_member(tmp_path / "fewer.onnx", weight[:3], SHAPE)
    with pytest.raises(InputError, match="is a single member"):
        open_members([first])
    with pytest.raises(InputError, match=r"first\.onnx takes \(3, 4, 2\).*narrow\.onnx takes \(4, 3, 2\)"):
        open_members([first, narrow])
    with pytest.raises(InputError, match=r"knows 4 classes.*fewer\.onnx .* knows 3 classes"):
        open_members([first, fewer])


def test_a_member_that_is_never_right_is_refused(tmp_path: Path) -> None:
    weights, members, images, labels = members_and_examples(tmp_path, classes=2)
    useless = write_member(tmp_path / "useless.onnx", -1000 * np.sum(weights, axis=0), SHAPE)
    members += open_members([useless, useless])[:1]
    with pytest.raises(InputError, match=r"useless\.onnx classifies none of the 60 clean images right"):
        run_transfer(members, images, labels, build_attacks(["pgd"], EPS, 2), folder=tmp_path / "images")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["pgd", "apgd"], EPS, 5), "some of pgd, mi_fgsm; got 'apgd'"),
        (([], EPS, 5), "none was given"),
        ((["pgd"], -0.1, 5), "eps is a finite number above 0"),
        ((["mi_fgsm"], EPS, 0), "steps is a finite number above 0"),
        ((["pgd"], EPS, 5, 0.0), "step_size is a finite number above 0"),
        ((["pgd"], EPS, 5, 0.1), "step_size is at most eps"),
    ],
)
def test_impossible_attacks_are_refused(arguments: tuple[Any, ...], says: str) -> None:
    with pytest.raises(InputError, match=says):
        build_attacks(*arguments)


def test_what_is_written_is_read_and_what_is_damaged_is_refused(tmp_path: Path) -> None:
    _, members, images, labels = members_and_examples(tmp_path, classes=4)
    transfer = measured(members, images, labels, build_attacks(["mi_fgsm"], EPS, 4), tmp_path / "images")
    file = tmp_path / "transfer.json"
    write_transfer(file, transfer)
    assert read_transfer(file) == transfer
    with pytest.raises(InputError, match="cannot be read"):
        read_transfer(tmp_path / "none.json")

    def refused(says: str, **changes: Any) -> None:
        write_transfer(file, transfer | {"attacks": [transfer["attacks"][0] | changes]})
        with pytest.raises(InputError, match=says):
            read_transfer(file)

    aae = transfer["attacks"][0]["aae"]
    refused("aae is not a table of 3 x 3", aae=aae[:2])
    refused("aae is not a table of 3 x 3", aae=[aae[0], aae[1], aae[2][:2]])
    refused(
        r"aae\[2\]\[1\].value has the wrong type",
        aae=[*aae[:2], [aae[2][0], aae[2][1] | {"value": None}, {}]],
    )
    refused("summary.difference is missing", summary={"mean_diagonal": 0.1, "mean_off_diagonal": 0.2})
    write_transfer(file, transfer | {"format": 2})
    with pytest.raises(InputError, match="no transfer file of format 1"):
        read_transfer(file)
