"""Maps over two training settings, against NumPy; the program on a folder of records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ncen_tf.base.errors import InputError
from ncen_tf.sweep.records import CellRecord
from ncen_tf.tables.parameter_map import PANELS, parameter_map
from ncen_tf.tables.results_frame import read_results
from tests.conftest import Program
from tests.tables.records import Rng, record, report, write

X, Y, SEEDS = (0.0, 0.02, 0.1), (-0.04, 0.04), (0, 1)


@pytest.fixture
def records(rng: Rng) -> list[CellRecord]:
    return [point(rng, x, y, seed) for x in X for y in Y for seed in SEEDS]


def point(rng: Rng, x: float, y: float, seed: int, **others: Any) -> CellRecord:
    reports = [report(rng, examples=others.pop("examples", 1_000))]
    return record(rng, f"{x} {y} {seed}", reports, lambda_cos=x, lambda_norm=y, seed=seed, **others)


def frame(folder: Path, records: list[CellRecord]) -> pd.DataFrame:
    write(folder, *records)
    return read_results(folder)


def test_points_are_means_over_seeds(tmp_path: Path, records: list[CellRecord]) -> None:
    means = parameter_map(frame(tmp_path, records))
    assert list(means.index) == [(y, x) for y in Y for x in X]
    points: list[tuple[float, float]] = means.index.tolist()
    for (y, x), line in zip(points, means[[*PANELS, "runs"]].to_numpy(float), strict=True):
        here = [one for one in records if one.name in {f"{x} {y} {seed}" for seed in SEEDS}]
        clean = [one.run.clean_accuracy for one in here]
        aae = [np.mean([row.aae.value for row in one.reports["paper"].attacks]) for one in here]
        # The product of each run, not of the means: a seed with a high and a low accuracy counts as such.
        expected = [np.mean(clean), np.mean(aae), np.mean(np.multiply(clean, aae)), 2]
        np.testing.assert_allclose(line, np.array(expected, float))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda rng, records: [r for r in records if "0.02 0.04" not in r.name],
            "have 3 and 2, and 5 points",
        ),
        (lambda rng, records: [r for r in records if " 0.04" in r.name], "have 3 and 1"),
        (lambda rng, records: [*records, point(rng, 0, 0.04, 2, batch_size=9)], "these differ in more"),
        (lambda rng, records: [*records, point(rng, 0, 0.04, 2, epochs=3)], "the same epochs"),
        (lambda rng, records: [*records, point(rng, 0, 0.04, 2, examples=50)], "the same examples"),
    ],
)
def test_records_that_span_no_grid_are_refused(
    change: Callable[[Rng, list[CellRecord]], list[CellRecord]],
    says: str,
    records: list[CellRecord],
    rng: Rng,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=says):
        parameter_map(frame(tmp_path, change(rng, records)))


def test_the_program_writes_a_picture_and_its_numbers(
    records: list[CellRecord], tmp_path: Path, run_program: Program, refuse: Callable[..., None]
) -> None:
    results = frame(tmp_path, records)
    flags = [f"--results={tmp_path}", "--format=map"]
    done = run_program("tables", *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "parameter_map-paper.png").read_bytes().startswith(b"\x89PNG")
    numbers = pd.read_csv(tmp_path / "parameter_map-paper.csv", index_col=[0, 1])
    pd.testing.assert_frame_equal(numbers, parameter_map(results))
    refuse("tables", *flags, "--protocol=strict", says="No record has a report of protocol 'strict'")
    refuse("tables", *flags, "--y=precision", says="precision is not a training setting with a number")
    refuse("tables", *flags, "--y=lambda_cos", says="--x and --y must be two settings")
