"""Suites by name and from files."""

import subprocess
import sys
from pathlib import Path

import pytest

from ncen_tf.attack.attack import Norm
from ncen_tf.attack.preview import write_eps
from ncen_tf.attack.suites import SUITES, Suite, load_suite, read_suite
from ncen_tf.base.errors import InputError
from ncen_tf.data.dataset import ImageShape

EXAMPLE = Path(__file__).parents[2] / "configs" / "suites" / "example.toml"


GREY, COLOUR = (28, 28, 1), (32, 32, 3)
NORMS: tuple[Norm, ...] = ("Linf", "L2")


def cells(name: str, image_shape: ImageShape) -> list[tuple[object, ...]]:
    settings = [attack.settings() for attack in load_suite(name, image_shape).attacks]
    return [tuple(s.get(k) for k in ("attack", "eps", "steps", "step_size", "decay")) for s in settings]


def names(suite: Suite) -> set[str]:
    return {attack.name for attack in suite.attacks}


def test_paper_suite_is_the_papers() -> None:
    expected = {
        GREY: [
            ("FGSM", 0.1, None, None, None),
            ("FGSM", 0.3, None, None, None),
            ("MI-FGSM", 0.1, 40, 0.01, 1.0),
            ("MI-FGSM", 0.3, 40, 0.01, 1.0),
            ("PGD", 0.1, 40, 0.1, None),
            ("PGD", 0.15, 40, 0.15, None),
            ("BIM", 0.1, 10, 0.1, None),
            ("BIM", 0.15, 10, 0.15, None),
        ],
        COLOUR: [
            ("FGSM", 0.03, None, None, None),
            ("FGSM", 0.09, None, None, None),
            ("MI-FGSM", 0.03, 40, 0.01, 1.0),
            ("MI-FGSM", 0.09, 40, 0.01, 1.0),
            ("PGD", 0.01, 40, 0.01, None),
            ("PGD", 0.02, 40, 0.02, None),
            ("BIM", 0.01, 10, 0.01, None),
            ("BIM", 0.02, 10, 0.02, None),
        ],
    }
    for image_shape, rows in expected.items():
        assert cells("paper", image_shape) == rows


@pytest.mark.parametrize("image_shape", [GREY, COLOUR])
def test_other_suites(image_shape: ImageShape) -> None:
    paper = {row[1] for row in cells("paper", image_shape)}
    assert {row[:2] for row in cells("blackbox", image_shape)} == {("Square", eps) for eps in paper}
    assert [row[0] for row in cells("quick", image_shape)] == ["FGSM", "PGD"]
    assert all(load_suite(name, image_shape).name == name for name in SUITES)


def test_the_shipped_example_loads() -> None:
    suite = load_suite(str(EXAMPLE), GREY)
    assert suite.name == "custom (example.toml)"
    assert [attack.name for attack in suite.attacks] == ["FGSM", "PGD", "DIM", "Square"]


def test_an_integer_is_a_number_and_a_fraction_too(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[[attack]]\nname = "Square"\neps = 1\n[[attack]]\nname = "Square"\neps = "8/255"\n')
    whole, fraction = (attack.eps for attack in read_suite(file).attacks)
    assert isinstance(whole, float)
    assert fraction == 8 / 255


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[[attack", "cannot be read"),
        ("", r"holds \[\[attack\]\] tables"),
        ("[[atack]]\nname='FGSM'", "it has atack"),
        ("[attack]\nname='FGSM'", "tables and nothing else"),
        ("attack = [1]", "attack 1: an attack is a table"),
        ("[[attack]]\neps=0.1", "attack 1: an attack is a table"),
        ("[[attack]]\nname='fgm'\neps=0.1", "attack 1: `name` must be one of .* got 'fgm'"),
        ("[[attack]]\nname='FGSM'", "attack 1: `eps` is missing"),
        ("[[attack]]\nname='FGSM'\neps=0.1\n[[attack]]\nname='PGD'\neps=0.1\nstep=1", "attack 2: `step"),
        ("[[attack]]\nname='FGSM'\neps=-0.1", "attack 1: `eps` must be greater than 0, got -0.1"),
        ("[[attack]]\nname='FGSM'\neps='big'", "`eps` must be a valid number"),
        ("[[attack]]\nname='FGSM'\neps=true", "`eps` must be a number, got true"),
        ("[[attack]]\nname='Square'\neps=0.1\nqueries=10.5", "`queries` must be a valid integer"),
        ("[[attack]]\nname='PGD'\neps=0.1\nsteps=5\nstep_size=0.2", "`step_size` must be at most eps"),
    ],
)
def test_a_wrong_file_names_itself_and_the_entry(content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=says) as refused:
        read_suite(file)
    assert str(file) in str(refused.value)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known are paper, released, strict, screen, blackbox, quick"):
        load_suite("papr", GREY)
    with pytest.raises(InputError, match="cannot be read"):
        load_suite(str(tmp_path / "none.toml"), GREY)


@pytest.mark.parametrize(
    ("image_shape", "radii"),
    [
        (GREY, {"Linf": 0.1, "L2": 1.5}),
        (COLOUR, {"Linf": 8 / 255, "L2": 0.5}),
        ((63, 300, 3), {"Linf": 8 / 255, "L2": 0.5}),
        ((224, 224, 3), {"Linf": 4 / 255, "L2": 3.0}),
        ((64, 64, 1), {"Linf": 4 / 255, "L2": 3.0}),
    ],
)
def test_both_norms_have_the_same_attacks(image_shape: ImageShape, radii: dict[str, float]) -> None:
    suite = load_suite("strict", image_shape)
    for norm, eps in radii.items():
        attacks = [attack for attack in suite.attacks if attack.norm == norm]
        assert {attack.eps for attack in attacks} == {eps}
        assert [(attack.name, attack in suite.near_only) for attack in attacks] == [
            ("MI-FGSM", False), ("APGD-CE", False), ("APGD-DLR", False), ("APGD-CE", True),
            ("Transfer-mean-logit", True), ("APGD-T", True),
            ("Square", False), ("FAB-T", True), ("Square", True), ("Square", False),
        ]  # fmt: skip
        momentum, *auto, targeted, short, boundary, long, last = [attack.settings() for attack in attacks]
        assert (momentum["steps"], momentum["step_size"], momentum["decay"]) == (10, eps / 10, 1.0)
        assert [each["steps"] for each in auto] == [50, 50, 100, 100]
        assert [(each["steps"], each["targets"]) for each in (targeted, boundary)] == [(100, 5), (80, 9)]
        assert (short["queries"], long["queries"], last["queries"]) == (300, 5000, 600)
    assert len(suite.attacks) == 20
    assert (suite.protocol, load_suite("paper", image_shape).protocol) == ("strict 4", "paper")


def test_a_bound_of_the_user_replaces_all_of_a_suite(tmp_path: Path) -> None:
    for name in ("paper", "released", "blackbox", "quick"):
        assert {attack.eps for attack in load_suite(name, COLOUR, eps=2 / 255).attacks} == {2 / 255}
    for norm in NORMS:
        suite = load_suite("strict", COLOUR, eps=0.3, norm=norm)
        assert {attack.threat_model for attack in suite.attacks} == {(norm, 0.3)}
        assert len(suite.attacks) == 10
    with pytest.raises(
        InputError, match=r"`eps` bounds one norm, and suite 'strict' has attacks in L2 and Linf"
    ):
        load_suite("strict", COLOUR, eps=0.3)
    file = tmp_path / "s.toml"
    file.write_text('[[attack]]\nname = "Square"\neps = 1\n')
    with pytest.raises(InputError, match="`eps` is stated in the suite file"):
        load_suite(file, COLOUR, eps=0.3)


def test_bounds_are_written_as_people_write_them() -> None:
    assert [write_eps(eps) for eps in (8 / 255, 0.1, 4 / 255, 3.0, 1.0)] == [
        "8/255",
        "0.1",
        "4/255",
        "3",
        "1",
    ]


def test_strict_is_about_the_ensemble_and_all_images() -> None:
    suite = load_suite("strict", COLOUR)
    assert (suite.objective, suite.cumulative, suite.examples) == ("ensemble", True, 0)
    assert suite.with_choices(objective="ensemble", batch_size=50).batch_size == 50
    with pytest.raises(InputError, match="'strict' is measured with `objective`=ensemble"):
        suite.with_choices(objective="member_average")


def test_one_norm_of_the_suite_can_be_run_alone() -> None:
    suite = load_suite("strict", COLOUR)
    linf, l2 = (suite.with_choices(norm=norm) for norm in NORMS)
    assert (*linf.attacks, *l2.attacks) == suite.attacks
    assert {attack.eps for attack in l2.attacks} == {0.5}
    assert linf.check_gradients
    assert l2.check_gradients
    assert (linf.gradient_check_eps(), l2.gradient_check_eps()) == (8 / 255, None)
    assert l2.comparable_threat_models() == [("L2", 0.5)]
    of_member, of_three, of_two = (
        names(suite.with_choices(members=1)),
        names(suite.with_choices(classes=3)),
        names(suite.with_choices(classes=2)),
    )
    assert names(suite) - of_member == {"Transfer-mean-logit"}
    assert names(suite) - of_three == {"APGD-T"}
    assert names(suite) - of_two == {"APGD-T", "APGD-DLR"}
    with_gradients = tuple(attack for attack in l2.attacks if not attack.gradient_free)
    of_one_kind = l2.model_copy(update={"attacks": with_gradients})
    with pytest.raises(
        InputError, match="`check_gradients` needs a gradient attack in Linf, or attacks with"
    ):
        of_one_kind.with_choices(check_gradients=True)
    with pytest.raises(InputError, match=r"'paper' has no attack in L2: leave `norm` out\."):
        load_suite("paper", COLOUR).with_choices(norm="L2")


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
        ("name = 'APGD-CE'\nnorm = 'L1'", "attack 1: APGD-CE: `norm` must be Linf or L2, got L1"),
        ("name = 'Square'\nnorm = 2", "attack 1: `norm` must be 'Linf', 'L2', 'L1' or 'L0', got 2"),
        ("name = 'FGSM'\nnorm = 'L2'", "attack 1: FGSM: `norm` must be Linf, got L2"),
    ],
)
def test_a_norm_that_an_attack_does_not_know_is_refused(line: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(f"[[attack]]\n{line}\neps = 0.1\n")
    with pytest.raises(InputError, match=says):
        read_suite(file)


def test_suites_and_gates_load_without_tensorflow() -> None:
    code = (
        "import sys, ncen_tf.attack.suites, ncen_tf.report.gate\n"
        "ncen_tf.attack.suites.load_suite('strict', (32, 32, 3))\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_a_bound_may_be_a_fraction_and_a_norm_must_be_known() -> None:
    from_text, from_number = (load_suite("quick", (32, 32, 3), eps=eps) for eps in ("8/255", 8 / 255))
    assert from_text.attacks == from_number.attacks
    with pytest.raises(InputError, match="`eps` must be a number or a fraction, got 'large'"):
        load_suite("quick", (32, 32, 3), eps="large")
    with pytest.raises(InputError, match="`norm` must be one of Linf, L2, L1, L0, got 'linf'"):
        load_suite("strict", (32, 32, 3), norm="linf")  # type: ignore[arg-type]
