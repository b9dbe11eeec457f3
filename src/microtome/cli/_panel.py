"""`panel`: what is known of a cohort's channels, and filling it in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from microtome.errors import InvalidInputError

from ._console import answer, say

__all__ = ["panel"]


def panel(
    cohort: Path,
    *,
    modality: str | None = None,
    source: Annotated[Path | None, Parameter(name="--from")] = None,
    format: Annotated[  # noqa: A002 - the option's name
        Literal["steinbock", "imc_pipeline", "mcmicro", "ome_xml", "table"] | None,
        Parameter(name="--format"),
    ] = None,
) -> None:
    """Show the channels of a multiplex modality and their states, or fill in what is known of them.

    Parameters
    ----------
    cohort
        Directory of the cohort.
    modality
        imc, codex, cycif, mibi or stains; the only multiplex one by default.
    source
        Panel to fill accessions, quality control and nuclear markers in from: panel.csv of
        steinbock, markers.csv of MCMICRO, OME-XML, an OME-TIFF, or a table with channel_name. The
        order of the channels stays.
    format
        What the panel is, where its columns do not tell.
    """
    from microtome.cohort import cohort_panel, update_panel

    if source is not None:
        say(str(update_panel(cohort, modality, source, format=format)))
    elif format is not None:
        msg = "--format says what the file of --from is; there is none"
        raise InvalidInputError(msg)
    else:
        answer(str(cohort_panel(cohort, modality)))
