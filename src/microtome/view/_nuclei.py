"""Which channels show nuclei: those are blue, as the field has it."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["nuclear_channels"]

# Dyes of DNA, histones, the iridium that IMC counts nuclei by, and hematoxylin.
_NUCLEAR = re.compile(
    r"(?<![a-z])(dapi|hoechst|dna|draq5|sytox|nucle(i|us|ar)|ha?ematoxylin|hh3|h3|"
    r"histone[ _-]?h3|ir19[13]|19[13]ir)(?![a-z])(?!k\d)",
    re.IGNORECASE,
)


def nuclear_channels(names: Sequence[str], marked: Sequence[bool]) -> list[bool]:
    """Return which channels show nuclei: those that a panel marks, else those called like it.

    Parameters
    ----------
    names
        Of the channels.
    marked
        Whether the panel says that a channel is a nuclear marker, one for each.
    """
    if any(marked):
        return list(marked)
    return [_NUCLEAR.search(name) is not None for name in names]
