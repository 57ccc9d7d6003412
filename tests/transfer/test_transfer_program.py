"""The transfer program as a user runs it."""

from collections.abc import Callable
from pathlib import Path

from ncen_tf.transfer.record import Transfer
from tests.conftest import Program

QUICK = ("--dataset=fashion_mnist_sample", "--num_examples=20", "--steps=2")


def test_record_map_and_table(tiny_export: Path, tmp_path: Path, run_program: Program) -> None:
    out = tmp_path / "out"
    done = run_program("transfer", f"--target={tiny_export}", *QUICK, f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "made on 1" in done.stdout
    assert "mean AAE off the diagonal" in done.stdout
    transfer = Transfer.read(out / "transfer.json")
    assert [(row.attack, row.eps) for row in transfer.attacks] == [("PGD", 0.05), ("MI-FGSM", 0.05)]
    assert transfer.attacks[0].settings == {"steps": 2, "step_size": 0.05}
    assert [m.description[-13:] for m in transfer.members] == ["member_0.onnx", "member_1.onnx"]
    assert (out / "transfer.png").read_bytes().startswith(b"\x89PNG")
    files = ",".join(str(file) for file in sorted((tiny_export / "members").iterdir()))
    again = run_program("transfer", f"--targets={files}", *QUICK, f"--out={out}")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("made by an earlier run") == 4
    assert Transfer.read(out / "transfer.json") == transfer


def test_bad_input_is_refused(tiny_export: Path, refuse: Callable[..., None]) -> None:
    target = f"--target={tiny_export}"
    member = tiny_export / "members" / "member_0.onnx"
    refuse("transfer", *QUICK, says="--target")
    refuse("transfer", target, f"--targets={member}", *QUICK, says="--target")
    refuse("transfer", target, *QUICK, "--attacks=pgd,pdg", says="--attacks must list some of")
    refuse("transfer", target, *QUICK, "--num_examples=-1", says="--num_examples")
    refuse("transfer", f"--target={member}", *QUICK, says="several models with --targets")
