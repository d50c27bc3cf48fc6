"""Numbers as the report writes them; "" where there is none.

Scores are shares in 0..1 and are written in percent, their differences in percentage
points.
"""

import math


def percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.2f}"


def percent_short(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"


def points(value: float) -> str:
    """With its sign."""
    return "" if math.isnan(value) else f"{100 * value:+.2f}".replace("-", "−")


def whole(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.0f}"


def decimal(value: float) -> str:
    return "" if math.isnan(value) else f"{value:,.1f}"


def three_digits(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def signed(value: float) -> str:
    """Three digits with their sign."""
    text = three_digits(abs(value))
    return text and f"{'−' if value < 0 else '+'}{text}"


def count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def joined(parts: list[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if parts[1:] else parts)
