"""Pearson's chi-square test, with the upper tail of its distribution."""

import math

import numpy as np


def p_value(observed, expected, least=5.0):
    """The probability of counts at least this far from the expected ones. Cells that expect fewer than `least` are merged."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    rare = expected < least
    if rare.any():
        observed = np.append(observed[~rare], observed[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        if expected[-1] < least and len(expected) > 1:
            # Too few for a cell of their own: they are added to the smallest one.
            last, smallest = len(expected) - 1, int(np.argmin(expected[:-1]))
            observed[smallest] += observed[last]
            expected[smallest] += expected[last]
            observed, expected = observed[:-1], expected[:-1]
    if len(expected) < 2:
        return 1.0
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return upper_tail(statistic, len(expected) - 1)


def upper_tail(x, freedom):
    """P(X ≥ x) of a chi-square variable: the regularized incomplete gamma function Q(freedom/2, x/2)."""
    a, x = freedom / 2, x / 2
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        return 1 - scale * _series(a, x)
    return scale * _fraction(a, x)


def _series(a, x):
    term = total = 1 / a
    while term > total * 1e-16:
        a += 1
        term *= x / a
        total += term
    return total


def _fraction(a, x):
    """Evaluates the continued fraction by Lentz's method."""
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    value = d
    for i in range(1, 10_000):
        numerator = -i * (i - a)
        b += 2
        d = 1 / (numerator * d + b or tiny)
        c = b + numerator / c or tiny
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
