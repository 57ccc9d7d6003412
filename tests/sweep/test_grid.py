"""Grid files: products, tables, names of cells, and what is refused."""

from pathlib import Path

import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.ensembles.regularizers import NCE
from ncen_tf.sweep.grid import read_grid
from tests.conftest import ROOT
from tests.sweep.conftest import WriteGrid

COMMON = 'dataset = "fashion_mnist"\nseed = [0, 1]\n'


def test_tables_are_products_over_the_common_settings(write_grid: WriteGrid) -> None:
    text = (
        COMMON
        + '[[train]]\nregularizer = ["none", "nce"]\n'
        + '[[train]]\nregularizer = "nce"\nlambda_norm = [-0.020, 3e-2]\nseed = 1\n'
    )
    cells = read_grid(write_grid(text))
    assert [(cell.config.seed, cell.config.regularizer) for cell in cells] == [
        (0, None),
        (0, NCE()),
        (1, None),
        (1, NCE()),
        (1, NCE(lambda_norm=-0.02)),
        (1, NCE(lambda_norm=0.03)),
    ]
    assert [cell.name for cell in cells] == [
        "seed=0__regularizer=none",
        "seed=0__regularizer=nce",
        "seed=1__regularizer=none",
        "seed=1__regularizer=nce",
        "seed=1__regularizer=nce__lambda_norm=-0.02",
        "seed=1__regularizer=nce__lambda_norm=0.03",
    ]


def test_lists_are_written_with_commas_and_defaults_are_those_of_the_dataset(write_grid: WriteGrid) -> None:
    members = 'architecture = ["resnet8,resnet8", "resnet8,resnet14"]\n'
    text = f'[[train]]\ndeterministic = true\n{members}[[train]]\ndataset = "cifar10"\n'
    first, second, third = read_grid(write_grid(text))
    assert first.name == "deterministic=true__architecture=resnet8+resnet8"
    assert second.config.members == ("resnet8", "resnet14")
    assert not third.config.deterministic
    assert third.config.regularizer == NCE(0.06, 0.04)


def test_a_grid_of_one_cell_has_a_name_too(write_grid: WriteGrid) -> None:
    (cell,) = read_grid(write_grid('[train]\ndataset = "cifar10"\nregularizer = "gal"\n'))
    assert cell.name == "dataset=cifar10__regularizer=gal"
    assert cell.attacks == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# nothing\n", "grid.toml has no cell"),
        (COMMON + "seed = 4", "grid.toml cannot be read"),
        (COMMON + "epochs = []", "`epochs` has an empty list"),
        (COMMON + "train = 3", "`train` must be a table [train]"),
        (COMMON + "[trian]\nepochs = 1", "`trian` is not a setting"),
        (COMMON + "epoch = 1", "grid.toml, cell seed=0: `epoch` is not a setting"),
        (COMMON + 'run_dir = "x"', "`run_dir` is not a setting"),
        (COMMON + '[train]\nepochs = [1, "two"]', "cell seed=0__epochs=two: `epochs` must"),
        (COMMON + 'regularizer = ["none", "nec"]', "cell seed=0__regularizer=nec: "),
        (COMMON + "members = [3, 7]", "cell seed=0__members=7: "),
        (COMMON + "[[train]]\n[[train]]\nlambda_cos = 0.02", "have the same settings; remove one"),
        (COMMON + "checkpoint_every = [1, 2]", "have the same settings; remove one"),
        (COMMON + '[export]\nformat = "onnx"', "[export]: `format` is not a setting"),
        (COMMON + '[export]\nformats = ["saved_model"]', "`formats` must include onnx"),
        (COMMON + "[[attack]]\nexamples = 10", "[[attack]] table 1: `suite` is missing"),
        (COMMON + '[[attack]]\nsuite = "papre"', "Unknown suite 'papre'"),
        (COMMON + '[[attack]]\nsuite = "paper"\nexamples = [1, 2]', "`examples` must"),
        (COMMON + '[[attack]]\nsuite = "released"\nbatch_size = 10', "batch_size"),
        (COMMON + '[[attack]]\nsuite = "paper"\n[[attack]]\nsuite = "paper"', "give another `name`"),
    ],
)
def test_what_cannot_work_is_refused(text: str, says: str, write_grid: WriteGrid) -> None:
    with pytest.raises(InputError) as refused:
        read_grid(write_grid(text))
    assert says in str(refused.value)
    assert "grid.toml" in str(refused.value)


def test_a_setting_that_the_images_decide_is_not_its_default(write_grid: WriteGrid) -> None:
    text = 'dataset = "photos"\n[[train]]\nregularizer = "nce"\n[[train]]\nnoise_eps = [0.3, 0.2]\n'
    assert len(read_grid(write_grid(text))) == 3
    with pytest.raises(InputError, match="have the same settings"):
        read_grid(write_grid(text.replace("photos", "fashion_mnist")))


def test_one_suite_may_attack_in_several_ways(write_grid: WriteGrid) -> None:
    strict = '[[attack]]\nsuite = "strict"\nnorm = '
    cells = read_grid(write_grid(f'{COMMON}{strict}"Linf"\n{strict}"L2"\nname = "L2"\n'))
    assert [attack.report_name for attack in cells[0].attacks] == ["strict", "L2"]


@pytest.mark.parametrize("grid", sorted((ROOT / "configs/grids").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_grids_are_valid(grid: Path) -> None:
    cells = read_grid(grid)
    assert len(cells) > 1
    assert cells[0].attacks
