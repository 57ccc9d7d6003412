"""Grid files: products, sections, names of cells, and what is refused with its line."""

from pathlib import Path

import pytest
from absl import flags

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.cells import make_cells
from ncen_tf.sweep.grid import read_grid
from ncen_tf.sweep.plan import read_work
from tests.conftest import ROOT
from tests.sweep.conftest import WriteGrid

COMMON = "# a comment\n--dataset=fashion_mnist\n--seed=0 | 1\n\n"


def test_sections_are_products_over_the_common_lines(write_grid: WriteGrid) -> None:
    text = (
        COMMON
        + "[train]\n--regularizer=none | nce\n"
        + "[train]\n--regularizer=nce\n--lambda_norm=-0.020 | 3e-2\n--seed=1\n"
    )
    cells = make_cells(read_grid(write_grid(text)))
    settings = [(c.config.regularizer, c.config.lambda_norm, c.config.seed) for c in cells]
    assert settings == [
        ("none", 0.02, 0),
        ("nce", 0.02, 0),
        ("none", 0.02, 1),
        ("nce", 0.02, 1),
        ("nce", -0.02, 1),
        ("nce", 0.03, 1),
    ]
    assert [cell.name for cell in cells] == [
        "regularizer=none__seed=0",
        "regularizer=nce__seed=0",
        "regularizer=none__seed=1",
        "regularizer=nce__seed=1",
        "regularizer=nce__lambda_norm=-0.02__seed=1",
        "regularizer=nce__lambda_norm=0.03__seed=1",
    ]
    assert cells[-2].arguments == (
        "--dataset=fashion_mnist",
        "--regularizer=nce",
        "--lambda_norm=-0.02",
        "--seed=1",
    )


def test_values_of_one_cell_do_not_reach_the_next_or_the_program(write_grid: WriteGrid) -> None:
    text = "[train]\n--seed=7\n--deterministic=true\n--architecture=resnet8,resnet8\n[train]\n--seed=8\n"
    first, second = make_cells(read_grid(write_grid(text)))
    assert first.config.deterministic
    assert first.name == "architecture=resnet8+resnet8__seed=7__deterministic"
    assert not second.config.deterministic
    assert second.config.architecture == ("resnet20",) * 3
    assert flags.FLAGS["seed"].value == 0


def test_a_grid_of_one_cell_has_a_name_too(write_grid: WriteGrid) -> None:
    (cell,) = make_cells(read_grid(write_grid("--dataset=cifar10\n--regularizer=gal\n")))
    assert cell.name == "cifar10__gal__seed=0"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("# nothing\n", None, "holds no cell"),
        (COMMON + "--seed 3", 5, "not of the form --flag=value"),
        (COMMON + "--epochs=1 | ", 5, "--epochs has an empty value"),
        (COMMON + "--seed=4", 5, "--seed is given on line 3 already"),
        (COMMON + "[trian]\n--epochs=1", 5, "[trian] is no section"),
        (COMMON + "[export]\n[export]", 6, "one [export] section"),
        (COMMON + "--epoch=1", 5, "--epoch is no flag of ncen_tf.train"),
        (COMMON + "--run_dir=x", 5, "--run_dir is no flag of ncen_tf.train that a cell can have"),
        (COMMON + "--data_dir=x", 5, "--data_dir is no flag"),
        (COMMON + "[train]\n\n--epochs=1 | two", 7, "--epochs=two"),
        pytest.param(COMMON + "--at_steps=0x" + "f" * 5000, 5, "more than 64 bits", id="endless"),
        (COMMON + "--regularizer=none | nec", 5, "--regularizer=nec"),
        (COMMON + "--members=3 | 7", 5, "--members is 3, 4 or 5; got 7"),
        (COMMON + "--virtual_devices=2\n--strategy=one_device", 5, "--virtual_devices above 1 needs"),
        (COMMON + "[train]\n[train]\n--lambda_cos=0.02", 6, "given twice; the first one is of the part at"),
        (COMMON + "--epochs=1 | 01", 1, "given twice"),
    ],
)
def test_what_cannot_work_is_refused_with_its_line(
    text: str, line: int | None, says: str, write_grid: WriteGrid
) -> None:
    with pytest.raises(InputError) as refused:
        make_cells(read_grid(write_grid(text)))
    assert says in str(refused.value)
    assert f"grid.cfg{'' if line is None else f', line {line}:'} " in str(refused.value)


@pytest.mark.parametrize(
    ("section", "line", "says"),
    [
        ("[export]\n--format=onnx", 6, "Unknown command line flag 'format'"),
        ("[export]\n--opset=x", 6, "--opset=x"),
        ("[export]\n--out=x", 6, "--out is set by the sweep"),
        ("[attack]\n--num_examples=10", 5, "[attack] needs --suite"),
        ("[attack]\n--suite=quick\n--flagfile=mine.cfg", 7, "--flagfile has no place in a grid"),
        ("[export]\n--help=true", 6, "--help has no place in a grid"),
        ("[attack]\n--suite=papre", 6, "Unknown suite 'papre'"),
        ("[attack]\n--suite=paper\n--num_examples=1 | 2", 7, "--num_examples takes one value"),
        ("[attack]\n--suite=paper\n--batch_size=many", 7, "--batch_size=many"),
        ("[attack]\n--suite=paper\n--batch_size=0x0", 7, "--batch_size=0"),
        ("[attack]\n--suite=paper\n--num_examples=-5", 7, "--num_examples=-5"),
        ("[attack]\n--suite=paper\n--seed=-3", 7, "--seed=-3"),
        ("[attack]\n--suite=paper\n--num_examples=105", 6, "positive multiple of 10 examples; got 105"),
        ("[attack]\n--suite=paper\n--gate=absent.toml", 6, "absent.toml cannot be read"),
        (
            f"[attack]\n--suite=paper\n--gate={ROOT}/exports/reference.gate.toml",
            6,
            "needs an attack with --check",
        ),
        ("[attack]\n--suite=paper\n--junit=x.xml", 7, "--junit is set by the sweep"),
        ("[attack]\n--suite=paper | released\n--batch_size=10", 6, "'released' is measured with"),
        ("[attack]\n--suite=blackbox\n--check_gradients=true", 6, "needs a gradient attack in Linf"),
        (
            "[attack]\n--suite=paper\n[attack]\n--suite=quick | paper",
            8,
            "a suite named paper is there already",
        ),
    ],
)
def test_exports_and_attacks_are_checked_too(
    section: str, line: int, says: str, write_grid: WriteGrid
) -> None:
    with pytest.raises(InputError) as refused:
        read_work(write_grid(COMMON + section))
    assert says in str(refused.value)
    assert f"line {line}:" in str(refused.value)


@pytest.mark.parametrize("grid", sorted((ROOT / "configs/grids").glob("*.cfg")), ids=lambda path: path.stem)
def test_shipped_grids_are_valid(grid: Path) -> None:
    work = read_work(grid)
    assert len(work.cells) > 1
    assert work.suites
