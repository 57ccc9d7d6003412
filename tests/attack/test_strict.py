"""The suite strict: its attacks, and what it does not leave to the user."""

import dataclasses
from pathlib import Path
from typing import get_args

import pytest

from ncen_tf.attack.attack import Norm
from ncen_tf.attack.suites import load_suite, read_suite
from ncen_tf.base.errors import InputError


@pytest.mark.parametrize(
    ("dataset", "radii"),
    [
        ("fashion_mnist", {"Linf": 0.1, "L2": 1.5}),
        ("fashion_mnist_sample", {"Linf": 0.1, "L2": 1.5}),
        ("cifar10", {"Linf": 8 / 255, "L2": 0.5}),
    ],
)
def test_both_norms_meet_the_same_attacks(dataset: str, radii: dict[str, float]) -> None:
    suite = load_suite("strict", dataset)
    for norm, eps in radii.items():
        settings = {s["attack"]: s for s in (a.settings() for a in suite.attacks) if s["norm"] == norm}
        assert list(settings) == [
            "MI-FGSM", "APGD-CE", "APGD-DLR", "Transfer-mean-logit", "Transfer-members", "PGD-restarts",
            "APGD-T", "Square",
        ]  # fmt: skip
        assert {s["eps"] for s in settings.values()} == {eps}
        for name in ("APGD-CE", "APGD-DLR", "Transfer-mean-logit", "Transfer-members", "APGD-T"):
            assert (settings[name]["steps"], settings[name]["restarts"]) == (100, 1)
        assert settings["APGD-T"]["targets"] == 9
        assert settings["Square"]["queries"] == 5000
        pgd, momentum = settings["PGD-restarts"], settings["MI-FGSM"]
        assert (pgd["steps"], pgd["restarts"], pgd["step_size"]) == (50, 10, eps / 4)
        assert (momentum["steps"], momentum["step_size"], momentum["decay"]) == (10, eps / 10, 1.0)
    assert len(suite.attacks) == 16


def test_strict_is_about_the_ensemble_and_all_images() -> None:
    suite = load_suite("strict", "cifar10")
    assert (suite.objective, suite.cumulative, suite.examples) == ("ensemble", True, 0)
    assert suite.with_choices("ensemble", 50).batch_size == 50
    with pytest.raises(InputError, match="'strict' is measured with --objective=ensemble"):
        suite.with_choices("member_average", None)


def test_one_norm_of_the_suite_can_be_run_alone() -> None:
    suite = load_suite("strict", "cifar10")
    linf, l2 = (suite.with_choices(None, None, norm) for norm in get_args(Norm))
    assert (*linf.attacks, *l2.attacks) == suite.attacks
    assert {attack.eps for attack in l2.attacks} == {0.5}
    assert linf.check_gradients
    assert l2.check_gradients
    assert (linf.gradient_check_eps(), l2.gradient_check_eps()) == (8 / 255, None)
    assert l2.comparable_balls() == [("L2", 0.5)]
    of_one_kind = dataclasses.replace(l2, attacks=l2.attacks[:-1])  # without Square
    with pytest.raises(
        InputError, match="--check_gradients needs a gradient attack in Linf, or attacks with"
    ):
        of_one_kind.with_choices(check_gradients=True)
    with pytest.raises(InputError, match=r"'paper' has no attack in L2: leave --norm out\."):
        load_suite("paper", "cifar10").with_choices(None, None, "L2")


def test_a_custom_suite_chooses_the_norm(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[[attack]]\nname = "APGD-T"\neps = 1\nnorm = "L2"\ntargets = 3\n')
    (attack,) = read_suite(file).attacks
    assert attack.settings() == {
        "attack": "APGD-T", "norm": "L2", "eps": 1.0, "steps": 100, "restarts": 1, "targets": 3,
    }  # fmt: skip
    assert not read_suite(file).cumulative


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("name = 'APGD-CE'\nnorm = 'L1'", "attack 1: APGD-CE: norm is Linf or L2; got 'L1'"),
        ("name = 'Square'\nnorm = 2", "attack 1: Square: norm is Linf or L2; got 2"),
        ("name = 'FGSM'\nnorm = 'L2'", "attack 1: FGSM has no parameter 'norm'"),
    ],
)
def test_a_norm_that_an_attack_does_not_know_is_refused(line: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f"[[attack]]\n{line}\neps = 0.1\n")
    with pytest.raises(InputError, match=says):
        read_suite(file)
