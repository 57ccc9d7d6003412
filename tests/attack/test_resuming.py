"""An interrupted suite goes on where it stopped, and only with what has the same outcome."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ncen_tf
from ncen_tf.attack.attack import Attack
from ncen_tf.attack.iterative import MomentumIterative, RandomStartPgd
from ncen_tf.attack.results import AttackedBatch, AttackFiles
from tests.attack.helpers import (
    ONE_STEP,
    STEPS,
    Examples,
    LinearTarget,
    assert_same,
    linear_target,
    run,
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the attacks that were called; "interrupt" in front makes the third call end in Ctrl-C."""
    called: list[str] = []
    for attack in (MomentumIterative, RandomStartPgd):
        original = attack.__call__

        def counting(self: Attack, *args: Any, original: Any = original) -> Any:
            if called[:1] == ["interrupt"] and len(called) == 3:
                raise KeyboardInterrupt
            called.append(self.name)
            return original(self, *args)

        monkeypatch.setattr(attack, "__call__", counting)
    return called


def test_a_second_run_attacks_nothing(
    linear: LinearTarget, shown: Examples, tmp_path: Path, calls: list[str]
) -> None:
    before = run(linear, shown, ONE_STEP, STEPS, batch_size=20, state_dir=tmp_path)
    after = run(linear, shown, ONE_STEP, STEPS, batch_size=20, state_dir=tmp_path)
    assert calls == ["MI-FGSM", "PGD"]
    assert (before.resumed, after.resumed) == (0, 2)
    for one, other in zip(before.attacks, after.attacks, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("damaged", [False, True])
def test_an_attack_goes_on_with_the_next_batch(
    damaged: bool, linear: LinearTarget, shown: Examples, tmp_path: Path, calls: list[str]
) -> None:
    (whole,) = run(linear, shown, STEPS).attacks
    calls[:] = ["interrupt"]
    with pytest.raises(KeyboardInterrupt):
        run(linear, shown, STEPS, state_dir=tmp_path)
    if damaged:
        (batch,) = tmp_path.glob("*.batches/1.npz")
        batch.write_bytes(batch.read_bytes()[:-400])
    calls.clear()
    (resumed,) = run(linear, shown, STEPS, state_dir=tmp_path).attacks
    assert calls == ["PGD"] * (2 if damaged else 1), "two of three batches were done"
    assert resumed.seconds > 0
    assert_same(dataclasses.replace(resumed, seconds=whole.seconds), whole)
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".npz", "batches of a finished attack are of no more use"


def test_files_are_read_under_their_own_key_only(
    linear: LinearTarget, shown: Examples, tmp_path: Path
) -> None:
    made = AttackedBatch(np.zeros((2, 4, 4, 1), np.float32), 3, 2, 0.5)
    files, others = AttackFiles(tmp_path, STEPS, "key" * 9), AttackFiles(tmp_path, STEPS, "key" * 8)
    for number in (0, 1, 3):
        files.write_batch(number, made)
    batches = files.read_batches(3)
    assert {number: (b.queries, b.gradients, b.seconds) for number, b in batches.items()} == {
        0: (3, 2, 0.5),
        1: (3, 2, 0.5),
    }
    assert files.read_batches(4).keys() == {0, 1, 3}
    assert others.read_batches(4) == {}  # of the same name
    (result,) = run(linear, shown, STEPS).attacks
    files.write_result(result)
    assert others.read_result() is None
    stored = files.read_result()
    assert stored is not None
    assert_same(stored, result)


def test_whatever_changes_the_outcome_is_measured_again(
    linear: LinearTarget, shown: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = linear_target()
    other.sha256 = "1" * 64
    images = shown[0].copy()
    images[0, 0, 0] = 0.5
    stronger = dataclasses.replace(STEPS, steps=4)
    run(linear, shown, STEPS, state_dir=tmp_path)
    assert run(linear, shown, STEPS, state_dir=tmp_path).resumed == 1
    assert run(other, shown, STEPS, state_dir=tmp_path).resumed == 0
    assert run(linear, (images, shown[1]), STEPS, state_dir=tmp_path).resumed == 0
    assert run(linear, shown, stronger, state_dir=tmp_path).resumed == 0
    assert run(linear, shown, STEPS, state_dir=tmp_path, seed=1).resumed == 0
    assert run(linear, shown, STEPS, state_dir=tmp_path, objective="member_average").resumed == 0
    assert run(linear, shown, STEPS, state_dir=tmp_path, save_adversarials=tmp_path / "all").resumed == 0
    monkeypatch.setattr(ncen_tf, "__version__", "0.0.1")
    assert run(linear, shown, STEPS, state_dir=tmp_path).resumed == 0


def test_a_damaged_result_is_measured_again(linear: LinearTarget, shown: Examples, tmp_path: Path) -> None:
    run(linear, shown, ONE_STEP, state_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert run(linear, shown, ONE_STEP, state_dir=tmp_path).resumed == 0
    assert run(linear, shown, ONE_STEP, state_dir=tmp_path).resumed == 1
