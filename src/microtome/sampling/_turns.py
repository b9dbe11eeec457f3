"""Whose turn it is to give the whole number above its share instead of the one below."""

from __future__ import annotations

from collections.abc import Sequence

from ._rule import UNITS

__all__ = ["shares_of_epoch"]

# The golden ratio of UNITS: the multiples of an odd number visit every remainder once, and those of
# this one never cluster (Knuth, The Art of Computer Programming, vol. 3, 6.4).
_STEP = 2654435769


def shares_of_epoch(targets: Sequence[int], epoch: int, begin: int) -> tuple[list[int], list[int]]:
    """Return what each cohort gives in an epoch, and what it gave in all epochs before.

    The fractions of the shares lie one after another on a line, cut at whole numbers. In an epoch
    one number between 0 and 1 marks a place in every unit of the line, and a cohort rounds up
    where a mark falls into its fraction: as many round up as the fractions sum up to (systematic
    sampling; Madow, 1949). From epoch to epoch the mark moves by a fixed step, so that how often it
    fell into a fraction is a formula, not a loop.

    Parameters
    ----------
    targets
        Shares in parts of a row, `UNITS` of them a row; their sum is a number of whole rows.
    epoch
        Which epoch.
    begin
        Where the mark of epoch 0 is, in ``[0, UNITS)``.

    Returns
    -------
    Rows by cohort: of the epoch, and before it.
    """
    shares: list[int] = []
    before: list[int] = []
    edge = 0
    for target in targets:
        whole, part = divmod(target, UNITS)
        # Remainder below `part`: the quotients by UNITS of a number and of it less `part` differ.
        first = begin - edge
        now = (first + _STEP * epoch) % UNITS < part
        ups = _floor_sum(epoch, _STEP, first) - _floor_sum(epoch, _STEP, first - part)
        shares.append(whole + now)
        before.append(epoch * whole + ups)
        edge += part
    return shares, before


def _floor_sum(count: int, slope: int, begin: int) -> int:
    """Return the sum of ``(slope * i + begin) // UNITS`` over i from 0 to count - 1.

    In as many steps as Euclid's algorithm takes (Graham, Knuth and Patashnik, Concrete Mathematics,
    3.32).
    """
    modulus, total = UNITS, 0
    while count:
        more, slope = divmod(slope, modulus)
        total += count * (count - 1) // 2 * more
        more, begin = divmod(begin, modulus)
        total += count * more
        last = slope * count + begin
        if last < modulus:
            break
        # Count by columns instead of rows.
        count, begin = divmod(last, modulus)
        modulus, slope = slope, modulus
    return total
