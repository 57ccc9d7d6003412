"""Adversarial images are kept for each attack and member, and made once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ncen_tf.attack.momentum_iterative import MomentumIterative
from ncen_tf.attack.objectives import Objective
from ncen_tf.transfer.attacks import build_attacks
from ncen_tf.transfer.run import run_transfer
from tests.transfer.test_matrix import EPS, members_and_examples

ATTACKS = build_attacks(["pgd", "mi_fgsm"], EPS, 3)


def test_an_interrupted_run_goes_on_with_the_next_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, members, images, labels = members_and_examples(tmp_path, classes=4)
    uninterrupted = run_transfer(members, images, labels, ATTACKS, folder=tmp_path / "other")
    original = MomentumIterative.__call__

    def interrupt(self: MomentumIterative, objective: Objective, *args: Any) -> Any:
        if objective.target is members[1]:
            raise KeyboardInterrupt
        return original(self, objective, *args)

    with monkeypatch.context() as patch:
        patch.setattr(MomentumIterative, "__call__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run_transfer(members, images, labels, ATTACKS, folder=tmp_path / "images")
    resumed = run_transfer(members, images, labels, ATTACKS, folder=tmp_path / "images")
    assert resumed.resumed == 3  # both attacks on the first member, PGD on the second
    np.testing.assert_array_equal(resumed.adversarial, uninterrupted.adversarial)


def test_images_are_used_again_only_where_nothing_changed(tmp_path: Path) -> None:
    _, members, images, labels = members_and_examples(tmp_path, classes=4)

    def resumed(count: int = 2, shown: Any = images, eps: float = EPS, seed: int = 0) -> int:
        attacks = build_attacks(["pgd"], eps, 3)
        folder = tmp_path / "images"
        return run_transfer(members[:count], shown, labels, attacks, folder=folder, seed=seed).resumed

    assert resumed() == 0
    assert resumed() == 2
    assert resumed(count=3) == 2  # a further member, the same images of the others
    assert resumed(shown=images * np.float32(0.99)) == 0
    assert resumed(eps=EPS / 2) == 0
    assert resumed(seed=1) == 0


def test_damaged_images_are_made_again(tmp_path: Path) -> None:
    _, members, images, labels = members_and_examples(tmp_path, classes=4)
    folder = tmp_path / "images"
    before = run_transfer(members, images, labels, ATTACKS, folder=folder)
    file = next(folder.glob("PGD*"))
    file.write_bytes(file.read_bytes()[:200])
    after = run_transfer(members, images, labels, ATTACKS, folder=folder)
    assert after.resumed == 5
    np.testing.assert_array_equal(after.adversarial, before.adversarial)
