import pytest

from ncen_tf.training.schedule import learning_rate


def test_the_papers_schedule() -> None:
    rates = [learning_rate(epoch, 1e-3, 15, 1e-5) for epoch in (0, 14, 15, 29, 30, 44, 45, 59)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5, 1e-5])


def test_a_rate_below_the_floor_is_kept() -> None:
    assert learning_rate(20, 1e-6, 15, 1e-5) == 1e-6
