"""UniProt accessions: what is one, and several in one field."""

from __future__ import annotations

import re

from microtome.errors import InvalidInputError

__all__ = ["is_uniprot_accession", "parse_uniprot", "without_isoform"]

# UniProt's own pattern, https://www.uniprot.org/help/accession_numbers: six characters of two
# families, the second of which also comes with ten (A0A022YWF9), and an isoform, numbered from 1.
# [0-9], since \d is also every other script's digits.
_ACCESSION = re.compile(
    r"(?:[OPQ][0-9][A-Z0-9]{3}[0-9]|[A-NR-Z][0-9](?:[A-Z][A-Z0-9]{2}[0-9]){1,2})(?:-[1-9][0-9]*)?"
)
_SEPARATORS = re.compile(r"[;,|/\s]+")


def is_uniprot_accession(text: str | None) -> bool:
    """Whether a text is one UniProt accession, with or without an isoform.

    Parameters
    ----------
    text
        What to judge; nothing is stripped. None is none.

    Examples
    --------
    >>> [is_uniprot_accession(a) for a in ("P07766", "A0A022YWF9", "P16070-2", "CD3E", None)]
    [True, True, True, False, False]
    """
    return text is not None and _ACCESSION.fullmatch(text) is not None


def parse_uniprot(text: str | None) -> tuple[str, ...]:
    """Return the accessions of one field: one antibody, or one tag, may stand for several proteins.

    Parameters
    ----------
    text
        Accessions between ``;``, ``,``, ``|``, ``/`` or spaces. None and blank text have none.

    Returns
    -------
    The accessions in the order in which they are written, each once.

    Raises
    ------
    InvalidInputError
        If a part is no accession; none is left out.

    Examples
    --------
    >>> parse_uniprot("P02452; P02458")
    ('P02452', 'P02458')
    """
    parts = [part for part in _SEPARATORS.split(text or "") if part]
    wrong = [part for part in parts if not is_uniprot_accession(part)]
    if wrong:
        msg = (
            f"{wrong} in {text!r} is no UniProt accession, such as P07766, A0A022YWF9 or P16070-2; "
            "a gene or protein name goes into channel_name"
        )
        raise InvalidInputError(msg)
    return tuple(dict.fromkeys(parts))


def without_isoform(accession: str) -> str:
    """Return the accession of the entry that an isoform belongs to.

    >>> without_isoform("P16070-2")
    'P16070'
    """
    return accession.partition("-")[0]
