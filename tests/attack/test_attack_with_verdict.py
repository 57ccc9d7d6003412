"""The verdict in reports, tables and gates, from real runs of the attack program."""

from collections.abc import Callable
from pathlib import Path

from ncen_tf.report.results import Report
from tests.conftest import Program

FLAGS = ("--dataset=fashion_mnist_sample", "--suite=quick", "--num_examples=50")


def test_verdict_is_reported_and_gated(run_program: Program, tiny_export: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("clean_gradients = true\n")
    done = run_program(
        "attack",
        f"--target={tiny_export}",
        *FLAGS,
        "--check_gradients",
        f"--gate={gate}",
        f"--out={tmp_path / 'out'}",
    )
    report = Report.read(tmp_path / "out" / "report.json")
    verdict = report.masked_gradients
    assert verdict is not None
    assert verdict.clean, verdict.checks
    assert verdict.eps == 0.1
    assert verdict.examples == report.clean_accuracy.count
    assert "masked gradients: no sign of them" in done.stdout
    assert "masked gradients: no sign of them" in (tmp_path / "out" / "report.html").read_text()


def test_what_cannot_be_judged_is_refused(
    refuse: Callable[..., None], tiny_export: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("clean_gradients = 1\n")
    target = f"--target={tiny_export}"
    refuse("attack", target, f"--gate={gate}", says="--clean_gradients")
    gate.write_text("clean_gradients = true\n")
    refuse(
        "attack", target, *FLAGS, f"--gate={gate}", f"--out={tmp_path}", says="needs an attack with --check_g"
    )
