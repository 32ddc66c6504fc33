"""One measured figure as one line, beside its target where it has one."""


def line(what: str, value: float, unit: str, target: float | None = None) -> str:
    """Return the figure, and whether it is at or below `target`.

    Examples
    --------
    >>> line("start", 0.25, "s", 0.5)
    'start                                                   0.25 s    target at most 0.5 s: met'
    """
    text = f"{what:<52}{number(value):>8} {unit:<5}"
    if target is None:
        return text.rstrip()
    verdict = "met" if value <= target else "MISSED"
    return f"{text}target at most {target:g} {unit}: {verdict}"


def number(value: float) -> str:
    """Return three significant digits, whole numbers in full.

    Examples
    --------
    >>> number(0.12345), number(12.345), number(12345.6)
    ('0.123', '12.3', '12,346')
    """
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"
