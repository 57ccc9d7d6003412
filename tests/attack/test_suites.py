"""Suites by name and from files."""

import subprocess
import sys
from pathlib import Path

import pytest

from ncen_tf.attack.suites import SUITES, load_suite, read_suite
from ncen_tf.base.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "configs" / "suites" / "example.toml"


def cells(name: str, dataset: str) -> list[tuple[object, ...]]:
    settings = [attack.settings() for attack in load_suite(name, dataset).attacks]
    return [tuple(s.get(k) for k in ("attack", "eps", "steps", "step_size", "decay")) for s in settings]


def test_paper_suite_is_the_papers() -> None:
    expected = {
        "fashion_mnist": [
            ("FGSM", 0.1, None, None, None),
            ("FGSM", 0.3, None, None, None),
            ("MI-FGSM", 0.1, 40, 0.01, 1.0),
            ("MI-FGSM", 0.3, 40, 0.01, 1.0),
            ("PGD", 0.1, 40, 0.1, None),
            ("PGD", 0.15, 40, 0.15, None),
            ("BIM", 0.1, 10, 0.1, None),
            ("BIM", 0.15, 10, 0.15, None),
        ],
        "cifar10": [
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
    for dataset, rows in expected.items():
        assert cells("paper", dataset) == rows
    assert cells("paper", "fashion_mnist_sample") == expected["fashion_mnist"]


@pytest.mark.parametrize("dataset", ["fashion_mnist", "cifar10"])
def test_other_suites(dataset: str) -> None:
    paper = {row[1] for row in cells("paper", dataset)}
    assert {row[:2] for row in cells("blackbox", dataset)} == {("Square", eps) for eps in paper}
    assert [row[0] for row in cells("quick", dataset)] == ["FGSM", "PGD"]
    assert all(load_suite(name, dataset).name == name for name in SUITES)


def test_the_shipped_example_loads() -> None:
    suite = load_suite(str(EXAMPLE), "fashion_mnist")
    assert suite.name == "custom (example.toml)"
    assert [attack.name for attack in suite.attacks] == ["FGSM", "PGD", "DIM", "Square"]


def test_an_integer_is_a_number(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[[attack]]\nname = "DeepFool"\neps = 1\n')
    eps = read_suite(file).attacks[0].eps
    assert isinstance(eps, float)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[[attack", "cannot be read"),
        ("", r"holds \[\[attack\]\] tables"),
        ("[[atack]]\nname='FGSM'", "it has atack"),
        ("[attack]\nname='FGSM'", "tables and nothing else"),
        ("attack = [1]", "attack 1: an attack is a table"),
        ("[[attack]]\neps=0.1", "attack 1: name is one of FGSM"),
        ("[[attack]]\nname='fgm'\neps=0.1", "attack 1: name is one of .* got 'fgm'"),
        ("[[attack]]\nname='FGSM'", "attack 1: FGSM needs eps"),
        ("[[attack]]\nname='FGSM'\neps=0.1\n[[attack]]\nname='PGD'\neps=0.1\nstep=1", "attack 2: .*'step'"),
        ("[[attack]]\nname='FGSM'\neps=-0.1", "attack 1: .*above 0; got -0.1"),
        ("[[attack]]\nname='FGSM'\neps='0.1'", "eps is a number; got '0.1'"),
        ("[[attack]]\nname='FGSM'\neps=true", "eps is a number; got True"),
        ("[[attack]]\nname='Square'\neps=0.1\nqueries=10.5", "queries is an integer; got 10.5"),
        ("[[attack]]\nname='PGD'\neps=0.1\nsteps=5\nstep_size=0.2", "step_size is at most eps"),
    ],
)
def test_a_wrong_file_names_itself_and_the_entry(content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"
    file.write_text(content)
    with pytest.raises(InputError, match=says) as refused:
        read_suite(file)
    assert str(file) in str(refused.value)


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="known are paper, released, strict, blackbox, quick"):
        load_suite("papr", "fashion_mnist")
    with pytest.raises(InputError, match="no radii for 'mnist'"):
        load_suite("paper", "mnist")
    with pytest.raises(InputError, match="cannot be read"):
        load_suite(str(tmp_path / "none.toml"), "fashion_mnist")


def test_suites_and_gates_load_without_tensorflow() -> None:
    """As under ``python -m``, where the package itself imports nothing: --help stays fast."""
    code = (
        "import sys; sys.argv = ['-m']\n"
        "import ncen_tf.attack.suites, ncen_tf.report.gate\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
