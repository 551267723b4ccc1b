"""The statistics themselves, compared with published tables."""

import numpy as np
import pytest

from chi_square import p_value, upper_tail


@pytest.mark.parametrize(
    "x, freedom, p",
    [
        (3.841459, 1, 0.05),
        (6.634897, 1, 0.01),
        (11.070498, 5, 0.05),
        (18.307038, 10, 0.05),
        (124.342113, 100, 0.05),
        (0.0039321, 1, 0.95),
        (77.929465, 100, 0.95),
        (1000, 3, 0),
        (0, 3, 1),
    ],
)
def test_the_upper_tail(x, freedom, p):
    assert upper_tail(x, freedom) == pytest.approx(p, abs=1e-6)


def test_fair_counts_pass_and_skewed_ones_dont():
    random = np.random.default_rng(7)
    expected = 1000 * np.array([0.5, 0.3, 0.15, 0.0496, 0.0004])
    fair = [p_value(random.multinomial(1000, expected / 1000), expected) for _ in range(500)]
    assert 0.35 < np.mean(fair) < 0.65 and 5 < sum(p < 0.05 for p in fair) < 50
    assert p_value([560, 260, 130, 50, 0], expected) < 0.01
    # Rare cells are merged.
    assert p_value([480, 290, 145, 45, 40], expected) < 1e-4
