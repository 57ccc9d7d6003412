"""The diagnose program on a real run, and what it cannot show."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from ncen_tf.train.diagnostics import PANELS
from tests.conftest import Program


def test_a_run_is_drawn_and_tabulated(run_program: Program, tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "compared.png"
    done = run_program("diagnose", f"--runs={tiny_run},{tiny_run / '.'}", f"--out={out}")
    for plot in (out, tiny_run / "diagnostics.png"):  # the second by the training itself
        assert plot.read_bytes().startswith(b"\x89PNG")
    test = json.loads((tiny_run / "metrics.jsonl").read_text().splitlines()[-1])["test"]
    assert f"{test['pairwise_cosine']:.4f}" in done.stdout
    for title in PANELS.values():
        assert title in done.stdout


def test_what_cannot_be_drawn_is_refused(refuse: Callable[..., None], tiny_run: Path, tmp_path: Path) -> None:
    refuse("diagnose", f"--runs={tiny_run},{tiny_run}", says="--out names the PNG file")
    refuse("diagnose", f"--runs={tmp_path}", says="is not a run directory")
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(tiny_run / "flags.cfg", old)
    refuse("diagnose", f"--runs={old}", says="has no finished epoch")
    line = json.loads((tiny_run / "metrics.jsonl").read_text().splitlines()[-1])
    del line["test"]["norm_spread"]
    (old / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    refuse("diagnose", f"--runs={old}", says="lack norm_spread")
