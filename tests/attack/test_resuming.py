"""Finished attacks are kept and taken up again, exactly where nothing has changed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncen_tf
from ncen_tf.attack.attack import Attack
from ncen_tf.attack.result_files import BatchFiles, read_result, write_result
from ncen_tf.attack.results import AttackedBatch, AttackResult
from tests.attack.helpers import Examples
from tests.attack.helpers import FGSM, PGD, first, run
from tests.attack.helpers import KerasTarget


def assert_same(one: AttackResult, other: AttackResult) -> None:
    for field in dataclasses.fields(AttackResult):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@pytest.fixture
def gradient_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the attacks that were called."""
    called: list[str] = []
    for attack in (type(FGSM), type(PGD)):
        original = attack.__call__

        def counting(self: Attack, *args: Any, original: Any = original) -> Any:
            called.append(self.name)
            return original(self, *args)

        monkeypatch.setattr(attack, "__call__", counting)
    return called


def test_a_second_run_attacks_nothing(
    target: KerasTarget, examples: Examples, tmp_path: Path, gradient_calls: list[str]
) -> None:
    before = run(target, first(examples, 8), FGSM, PGD, state_dir=tmp_path)
    assert gradient_calls == ["FGSM", "PGD"]
    after = run(target, first(examples, 8), FGSM, PGD, state_dir=tmp_path)
    assert gradient_calls == ["FGSM", "PGD"]
    assert (before.resumed, after.resumed) == (0, 2)
    for one, other in zip(before.attacks, after.attacks, strict=True):
        assert_same(one, other)


def test_an_interrupted_run_keeps_what_is_finished(
    target: KerasTarget, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(PGD), "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(target, first(examples, 8), FGSM, PGD, state_dir=tmp_path)
    assert run(target, first(examples, 8), FGSM, PGD, state_dir=tmp_path).resumed == 1


def interrupt_pgd(
    batches: int, target: KerasTarget, shown: Examples, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run PGD, and press Ctrl-C after some batches."""
    left = iter(range(batches))
    original = type(PGD).__call__

    def interrupted(self: Attack, *args: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(type(PGD), "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(target, shown, PGD, state_dir=folder)


def test_an_attack_goes_on_with_the_next_batch(
    target: KerasTarget,
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gradient_calls: list[str],
) -> None:
    shown = first(examples, 20)  # three batches, the last filled up
    (whole,) = run(target, shown, PGD).attacks
    interrupt_pgd(2, target, shown, tmp_path, monkeypatch)
    gradient_calls.clear()
    (resumed,) = run(target, shown, PGD, state_dir=tmp_path).attacks
    assert gradient_calls == ["PGD"], "two of three batches were done"
    assert resumed.seconds > 0
    assert_same(dataclasses.replace(resumed, seconds=whole.seconds), whole)
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".npz", "batches of a finished attack are of no more use"


def test_a_damaged_batch_is_attacked_again(
    target: KerasTarget,
    examples: Examples,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gradient_calls: list[str],
) -> None:
    shown = first(examples, 20)
    (whole,) = run(target, shown, PGD).attacks
    interrupt_pgd(2, target, shown, tmp_path, monkeypatch)
    (batch,) = tmp_path.glob("*.batches/1.npz")
    batch.write_bytes(batch.read_bytes()[:-400])
    gradient_calls.clear()
    (resumed,) = run(target, shown, PGD, state_dir=tmp_path).attacks
    assert gradient_calls == ["PGD"] * 2
    assert_same(dataclasses.replace(resumed, seconds=whole.seconds), whole)


def test_batches_are_read_under_their_own_key_only(tmp_path: Path) -> None:
    made = AttackedBatch(np.zeros((2, 4, 4, 1), np.float32), 3, 2, 0.5)
    for number in (0, 1, 3):
        BatchFiles(tmp_path / "b", "key").write(number, made)
    batches = BatchFiles(tmp_path / "b", "key").read((2, 4, 4, 1))
    assert [(batch.queries, batch.gradients, batch.seconds) for batch in batches] == [(3, 2, 0.5)] * 2
    assert BatchFiles(tmp_path / "b", "other").read((2, 4, 4, 1)) == []
    assert BatchFiles(tmp_path / "b", "key").read((3, 4, 4, 1)) == []


def test_whatever_changes_the_outcome_is_measured_again(
    target: KerasTarget, examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = first(examples, 8)
    run(target, start, PGD, state_dir=tmp_path)
    other = KerasTarget(target.models)
    other.sha256 = "1" * 64
    images = start[0].copy()
    images[0, 0, 0] = 0.5
    stronger = dataclasses.replace(PGD, steps=4)
    assert run(target, start, PGD, state_dir=tmp_path).resumed == 1
    assert run(other, start, PGD, state_dir=tmp_path).resumed == 0
    assert run(target, (images, start[1]), PGD, state_dir=tmp_path).resumed == 0
    assert run(target, start, stronger, state_dir=tmp_path).resumed == 0
    assert run(target, start, PGD, state_dir=tmp_path, seed=1).resumed == 0
    assert run(target, start, PGD, state_dir=tmp_path, objective="member_average").resumed == 0
    assert run(target, start, PGD, state_dir=tmp_path, save_adversarials=tmp_path / "all").resumed == 0
    monkeypatch.setattr(ncen_tf, "__version__", "0.0.1")
    assert run(target, start, PGD, state_dir=tmp_path).resumed == 0


def test_a_damaged_state_file_is_measured_again(
    target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    run(target, first(examples, 8), FGSM, state_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert run(target, first(examples, 8), FGSM, state_dir=tmp_path).resumed == 0
    assert run(target, first(examples, 8), FGSM, state_dir=tmp_path).resumed == 1


def test_a_result_is_read_under_its_own_key_only(
    target: KerasTarget, examples: Examples, tmp_path: Path
) -> None:
    result = run(target, first(examples, 4), FGSM).attacks[0]
    write_result(tmp_path / "x.npz", "key", result)
    assert read_result(tmp_path / "x.npz", "other") is None
    stored = read_result(tmp_path / "x.npz", "key")
    assert stored is not None
    assert_same(stored, result)
