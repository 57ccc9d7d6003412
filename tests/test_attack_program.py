"""The attack program as a user runs it: report, gate, exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Program

QUICK = ("--dataset=fashion_mnist_sample", "--suite=quick", "--num_examples=50")


@pytest.fixture
def gate_file(tmp_path: Path) -> Callable[[float], Path]:
    def write(minimum: float) -> Path:
        file = tmp_path / "gate.toml"
        file.write_text(
            f'clean_accuracy = 0.1\n[[robust_accuracy]]\nattack = "PGD"\neps = 0.1\nminimum = {minimum}\n'
        )
        return file

    return write


def test_report_gate_and_replay(
    tiny_export: Path, tmp_path: Path, run_program: Program, gate_file: Callable[[float], Path]
) -> None:
    target = f"--target={tiny_export / 'ensemble.onnx'}"
    out = tmp_path / "report"
    junit = tmp_path / "made" / "gate.xml"
    objective = "--objective=ensemble"
    arguments = (target, *QUICK, objective, f"--out={out}", "--save_adversarials", f"--junit={junit}")
    done = run_program("attack", *arguments, f"--gate={gate_file(0.0)}")
    assert done.returncode == 0, done.stderr
    assert "gate passed: 2 of 2" in done.stdout
    report = json.loads((out / "report.json").read_text())
    assert report["examples"] == 50
    assert [row["attack"] for row in report["attacks"]] == ["FGSM", "PGD"]
    assert report["target"]["providers"] == ["CPUExecutionProvider"]
    assert "<html" in (out / "report.html").read_text()
    done = run_program("attack", *arguments, f"--gate={gate_file(1.0)}")
    assert done.returncode == 3, done.stderr
    assert "gate missed" in done.stdout
    assert "<failure" in junit.read_text()
    (saved,) = (out / "adversarials").glob("PGD*.npz")
    sibling = f"--target={tiny_export / 'ensemble.int8.onnx'}"
    done = run_program("attack", sibling, *QUICK, f"--out={tmp_path / 'int8'}")
    assert done.returncode == 2, done.stdout
    assert "--quantization=straight_through" in done.stderr
    assert "--suite=blackbox" in done.stderr  # quantised: nothing to differentiate, but it can be queried
    through = ("--quantization=straight_through", "--check_gradients", f"--out={tmp_path / 'through'}")
    done = run_program("attack", sibling, *QUICK, *through)
    assert done.returncode == 0, done.stderr
    assert "; gradient: straight through its quantization" in done.stdout
    report = json.loads((tmp_path / "through" / "report.json").read_text())
    assert "zero_gradients" in [check["name"] for check in report["masked_gradients"]["checks"]]
    assert report["attacks"][1]["gradients"] > 0
    done = run_program(
        "attack", sibling, *QUICK, f"--replay={saved}", f"--out={tmp_path / 'replay'}", "--dataset=cifar10"
    )
    assert done.returncode == 0, done.stderr
    replayed = json.loads((tmp_path / "replay" / "report.json").read_text())
    assert replayed["protocol"].startswith("replay of PGD")
    assert replayed["objective"] == "ensemble", "that of the attack which made them"
    assert replayed["dataset"] == "fashion_mnist_sample", "that of the saved images"


def test_images_fed_in_another_way_are_attacked_anew(
    tiny_export: Path, tmp_path: Path, run_program: Program
) -> None:
    target, out = f"--target={tiny_export / 'ensemble.onnx'}", tmp_path / "report"
    accuracies = []
    for flags in ((), ("--mean=0.9", "--std=0.2", "--allow_low_accuracy"), ()):
        done = run_program("attack", target, *QUICK, *flags, f"--out={out}")
        assert done.returncode == 0, done.stderr
        report = json.loads((out / "report.json").read_text())
        accuracies.append([row["robust_accuracy"]["value"] for row in report["attacks"]])
        finished = done.stderr.count("finished by an earlier run")
        assert finished == (2 if len(accuracies) == 3 else 0)
        assert report["target"]["description"].endswith(", mean 0.9, std 0.2") is bool(flags)
    assert accuracies[0] == accuracies[2] != accuracies[1]


def test_bad_input_is_refused(
    tiny_export: Path, tmp_path: Path, refuse: Callable[..., None], gate_file: Callable[[float], Path]
) -> None:
    refuse("attack", says="--target is missing")
    target = f"--target={tiny_export / 'ensemble.onnx'}"
    no_images = ("--dataset=cifar10", f"--data_dir={tmp_path}")
    refuse("attack", "--target=no.onnx", *no_images, says="no.onnx does not exist")  # before images are read
    refuse("attack", target, *QUICK, "--suite=none", says="Unknown suite 'none'")
    refuse("attack", target, *QUICK, "--num_examples=-5", says="--num_examples")
    refuse("attack", target, *QUICK, "--seed=-3", says="--seed")
    refuse("attack", target, *QUICK, "--mean=x", says="--mean")
    strict = ("--suite=strict", "--objective=member_average")
    refuse("attack", target, *QUICK, *strict, says="'strict' is measured with --objective=ensemble")
    refuse("attack", target, *QUICK, *no_images, says="cifar10")
    suite = tmp_path / "suite.toml"
    suite.write_text('[[attack]]\nname = "PGD"\neps = -0.1\nsteps = 3\nstep_size = 0.1\n')
    refuse("attack", target, *QUICK, f"--suite={suite}", says="eps")
    gate = gate_file(0.5)
    content, unused = gate.read_text(), tmp_path / "unused"
    gate.write_text(content.replace("eps = 0.1", "eps = 0.2"))
    refuse(
        "attack", target, *QUICK, f"--gate={gate}", f"--out={unused}", says="measured for 'PGD' at eps 0.2"
    )
    assert not unused.exists()  # hours of attacks before saying so would be in vain
    gate.write_text("agreement = 0.5\n")
    refuse("attack", target, *QUICK, f"--gate={gate}", says="of 300 images and the report's of 50")
    gate.write_text(content)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for flag in (f"--junit={blocked / 'gate.xml'}", f"--out={blocked / 'out'}"):
        refuse("attack", target, *QUICK, f"--gate={gate}", flag, says="cannot be written to")
    gate.write_text(content.replace("minimum", "minimal"))
    refuse("attack", target, *QUICK, f"--gate={gate}", says="minim")
