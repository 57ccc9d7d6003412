"""The public API: complete, lazily loaded, and documented with examples that run."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ncen_tf

ROOT = Path(__file__).parents[1]


def run_python(code: str, cwd: Path = ROOT) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ncen_tf.__all__)
def test_every_public_name_has_an_example_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public: Any = getattr(ncen_tf, name)
    documentation = inspect.getdoc(public)
    assert documentation, f"{name} has no docstring"
    test = doctest.DocTestParser().get_doctest(documentation, {"ncen_tf": ncen_tf}, name, None, None)
    assert test.examples, f"{name} has no example"
    for folder in ("configs", "docs", "exports"):  # Examples read them as from the repository's root.
        (tmp_path / folder).mkdir()
        for entry in (ROOT / folder).iterdir():
            (tmp_path / folder / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_every_public_name_has_a_place_in_the_api_reference() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    documented = re.findall(r"^::: ncen_tf\.(\w+)$", pages, re.MULTILINE)
    assert sorted(documented) == sorted(ncen_tf.__all__)


def test_public_names_are_listed_and_others_are_refused() -> None:
    assert set(ncen_tf.__all__) <= set(dir(ncen_tf))
    with pytest.raises(AttributeError, match="Ensmble"):
        getattr(ncen_tf, "Ensmble")  # noqa: B009 # type checkers refuse it too
    with pytest.raises(ImportError):
        importlib.import_module("ncen_tf.no_such_module")


def test_import_loads_no_tensorflow() -> None:
    heavy = (
        "tensorflow",
        "keras",
        "onnxruntime",
        "onnx",
        "pandas",
        "matplotlib",
        "scipy",
        "numpy",
        "pydantic",
    )
    code = f"import sys, ncen_tf; print([name for name in {heavy} if name in sys.modules])"
    assert run_python(code).strip() == "[]"


@pytest.mark.parametrize("program", ["train", "export", "attack", "sweep", "tables", "transfer", "diagnose"])
def test_help_loads_no_heavy_library(program: str) -> None:
    heavy = ("tensorflow", "keras", "onnxruntime", "onnx", "pandas", "matplotlib", "scipy", "tqdm")
    code = (
        f"import sys; from ncen_tf import program; sys.argv = ['ncen-tf', {program!r}, '--help']\n"
        f"try: program.console()\nexcept SystemExit: pass\n"
        f"print('loaded', [name for name in {heavy} if name in sys.modules])"
    )
    assert run_python(code).splitlines()[-1] == "loaded []"


@pytest.mark.parametrize(
    "import_line", ["import ncen_tf", "from ncen_tf import NCE", "import ncen_tf.ensembles.ensemble"]
)
def test_modules_of_a_users_package_see_the_whole_api(import_line: str, tmp_path: Path) -> None:
    """`python -m yourpackage.module`, where the package imports ncen_tf before its module is looked for."""
    package = tmp_path / "yourpackage"
    package.mkdir()
    (package / "__init__.py").write_text(f"{import_line}\n")
    (package / "module.py").write_text(
        "import ncen_tf\nprint(ncen_tf.NCE.__name__, ncen_tf.Ensemble.__name__)\n"
    )
    command = [sys.executable, "-W", "ignore", "-m", "yourpackage.module"]
    environment = {
        "PYTHONPATH": f"{ROOT}:{tmp_path}",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == ["NCE", "Ensemble"], done.stderr


def test_the_notebook_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, export, evaluate and check in ten lines, on the sample that comes with the package."""
    monkeypatch.chdir(tmp_path)
    data = ncen_tf.load_data("fashion_mnist_sample", train_examples=300, test_examples=100)
    config = ncen_tf.TrainConfig.for_dataset(
        "fashion_mnist_sample", members=["resnet8"] * 2, regularizer=ncen_tf.NCE(0.02, 0.02), epochs=2
    )
    run = ncen_tf.train_ensemble(config, data, "runs/demo")
    ncen_tf.export_ensemble(run.ensemble, "exports/demo", data=data.test)
    report = ncen_tf.evaluate(
        "exports/demo/ensemble.onnx", data.test, suite="quick", norm="Linf", examples=50
    )
    assert "FGSM" in str(report)
    report.save("reports/demo")
    (tmp_path / "gate.toml").write_text("clean_accuracy = 0.0\n")
    assert report.check("gate.toml").passed

    assert report.examples == 50
    assert report.clean_accuracy.value is not None
    assert report.clean_accuracy.value > 0.15
    assert ncen_tf.Report.read(Path("reports/demo/report.json")) == report
    assert (tmp_path / "reports/demo/report.html").stat().st_size > 1000
    again = ncen_tf.train_ensemble(config, data, "runs/demo")
    for before, after in zip(run.ensemble.get_weights(), again.ensemble.get_weights(), strict=True):
        assert (before == after).all()
