"""What a run tells TensorBoard."""

from pathlib import Path

import pytest
import tensorflow as tf

from ncen_tf.base.errors import InputError
from ncen_tf.train.epoch_log import EventLog
from tests.train.full_disk import files_up_to

LINE = {
    "epoch": 3,
    "learning_rate": 0.1,
    "train": {"loss": 2.0},
    "test": {"ace": 0.5, "member_ace": [0.25, 0.75]},
}


def test_every_figure_is_a_scalar_of_its_epoch(tmp_path: Path) -> None:
    EventLog(tmp_path / "events").write(LINE)
    (file,) = (tmp_path / "events").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(file)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert event.step == 3
            found[value.tag] = float(tf.make_ndarray(value.tensor))
    assert found == {
        "learning_rate": pytest.approx(0.1),
        "train/loss": 2.0,
        "test/ace": 0.5,
        "test/member_ace/member_0": 0.25,
        "test/member_ace/member_1": 0.75,
    }


def test_a_full_disk_ends_a_run_with_one_sentence(tmp_path: Path) -> None:
    events = EventLog(tmp_path)
    with files_up_to(10), pytest.raises(InputError, match=r"cannot be written \(File too large\)"):
        events.write(LINE)
    with files_up_to(10), pytest.raises(InputError, match=r"cannot be written \(File too large\)"):
        EventLog(tmp_path)
