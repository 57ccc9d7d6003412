import math

import pytest

from ncen_tf.train.schedule import cosine_rate, stepped_rate


def test_the_papers_schedule() -> None:
    rates = [stepped_rate(epoch, 1e-3, 15, 1e-5) for epoch in (0, 14, 15, 29, 30, 44, 45, 59)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5, 1e-5])


def test_the_cosine_goes_from_the_initial_rate_to_the_floor() -> None:
    rates = [cosine_rate(done, 1e-3, 1e-5) for done in (0, 1 / 3, 1 / 2, 1)]
    assert rates == pytest.approx([1e-3, 1e-5 + 0.75 * 99e-5, (1e-3 + 1e-5) / 2, 1e-5])
    slope = (cosine_rate(0.5 + 1e-6, 1e-3, 1e-5) - rates[2]) / 1e-6
    assert slope == pytest.approx(-math.pi / 2 * 99e-5, rel=1e-4)


def test_a_rate_below_the_floor_is_kept() -> None:
    assert stepped_rate(20, 1e-6, 15, 1e-5) == 1e-6
    assert cosine_rate(1.0, 1e-6, 1e-5) == cosine_rate(0.0, 1e-6, 1e-5) == 1e-6
