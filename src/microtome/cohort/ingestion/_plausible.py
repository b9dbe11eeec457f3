"""Whether a pixel size can be that of a microscope, and which unit was meant where it cannot."""

from __future__ import annotations

import logging

from microtome.coordinates import Mpp
from microtome.errors import NoResolutionError

__all__ = ["verify_mpp", "warn_of_mpp"]

_log = logging.getLogger(__name__)

# From 100x objectives with small pixels and MIBI's finest fields to overviews of whole slides.
_LEAST, _MOST = 0.02, 20.0
# A nanometre is less than any light or ion beam tells apart, and a millimetre is a whole core. An
# image itself may state less, or more (`Mpp`): electron microscopes do.
_IMPOSSIBLE_BELOW, _IMPOSSIBLE_ABOVE = 0.001, 1000.0
# Micrometres of other units that files and people give pixel sizes in.
_UNITS = {"nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def verify_mpp(mpp: Mpp, uri: str) -> None:
    """Refuse a pixel size that no microscope has.

    Raises
    ------
    NoResolutionError
        If it is 0.001 um or less, or 1000 um or more; says which unit was perhaps meant.
    """
    if min(mpp.y, mpp.x) <= _IMPOSSIBLE_BELOW or max(mpp.y, mpp.x) >= _IMPOSSIBLE_ABOVE:
        msg = f"{uri}: {_told(mpp)}, which no microscope has{_meant(mpp)}; give the right one with --mpp (mpp=)"
        raise NoResolutionError(msg)


def warn_of_mpp(mpp: Mpp, uri: str) -> None:
    """Warn of a pixel size that few microscopes have: outside 0.02 to 20 um."""
    if min(mpp.y, mpp.x) < _LEAST or max(mpp.y, mpp.x) > _MOST:
        _log.warning(
            "%s: %s; most images of tissue have %g to %g um%s. If it is wrong, ingest it again "
            "with --mpp (mpp=) and --overwrite",
            uri,
            _told(mpp),
            _LEAST,
            _MOST,
            _meant(mpp),
        )


def _told(mpp: Mpp) -> str:
    size = f"{mpp.y:g}" if mpp.y == mpp.x else f"{mpp.y:g} x {mpp.x:g}"
    who = "was given" if mpp.source == "user" else "is stated in the file"
    return f"a pixel size of {size} um {who}"


def _meant(mpp: Mpp) -> str:
    """Say in which units the number would be that of a microscope."""
    units = [
        f"{mpp.y:g} {unit}, which is {mpp.y * factor:g} um"
        for unit, factor in _UNITS.items()
        if _LEAST <= mpp.y * factor <= _MOST and _LEAST <= mpp.x * factor <= _MOST
    ]
    return f" (is it {' or '.join(units)}?)" if units else ""
