"""Two replicas and one device train the same ensemble."""

import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_two_replicas_with_synced_batch_norm_end_with_the_weights_of_one_device(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.train.two_replicas", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) < 1e-9
