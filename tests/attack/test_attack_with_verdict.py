"""The verdict in reports, tables and gates, from real runs of the attack program."""

import json
from collections.abc import Callable
from pathlib import Path

from ncen_tf.report.gate import check_gate, read_gate
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
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    verdict = report["masked_gradients"]
    assert verdict["clean"], verdict["checks"]
    assert verdict["eps"] == 0.1
    assert verdict["examples"] == report["ace"]["count"]
    assert "masked gradients: no sign of them" in done.stdout
    assert "masked gradients: no sign of them" in (tmp_path / "out" / "report.html").read_text()

    verdict["checks"][0]["passed"] = False
    (check,) = check_gate(read_gate(gate), report)
    assert not check.passed
    assert check.message == "masked gradients: black_box_beats_white_box"


def test_what_cannot_be_judged_is_refused(
    refuse: Callable[..., None], tiny_export: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate.toml"
    gate.write_text("clean_gradients = 1\n")
    target = f"--target={tiny_export}"
    refuse("attack", target, f"--gate={gate}", says="clean_gradients is true or false")
    gate.write_text("clean_gradients = true\n")
    refuse(
        "attack", target, *FLAGS, f"--gate={gate}", f"--out={tmp_path}", says="needs an attack with --check_g"
    )
