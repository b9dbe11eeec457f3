"""Accessions, against UniProt's own description of them and a second way to read it."""

from __future__ import annotations

import string

import hypothesis.strategies as st
import pytest
from hypothesis import given

from microtome.errors import InvalidInputError
from microtome.panels import is_uniprot_accession, parse_uniprot, without_isoform

# Examples of the help page https://www.uniprot.org/help/accession_numbers and of its older
# versions, and proteins that panels of tissue are full of.
VALID = [
    "A2BC19",
    "P12345",
    "P4A123",
    "Q1AAA9",
    "A0A023GPI8",
    "A0A022YWF9",
    "Q9ZFS6",
    "O95832",
    "C9JRZ8",
    "B7Z6K7",
    "P0DP23",
    "P07766",
    "P16070-2",
    "P16070-19",
    "A0A023GPI8-1",
    "Z9ZZZ9ZZZ9",
]
INVALID = [
    "",
    " P07766",
    "P07766 ",
    "p07766",
    "P0776",
    "P077667",
    "1P7766",
    "PP7766",
    "A2BC1C",  # ends with a digit
    "AABC19",  # second is a digit
    "A21C19",  # third of the second family is a letter
    "A0A023GPI",  # nine
    "A0A02GPI8",
    "A0A023GPI8A",
    "P0A023GPI8",  # O, P and Q have six only
    "P16070-",
    "P16070-0",
    "P16070-02",
    "P16070-2-1",
    "P16070.2",
    "CD3E",
    "CD3E_HUMAN",
    "ENSG00000198851",
    "NP_000724",
    "P07766;P04234",
    "P\u0660\u0660\u0660\u0660\u0660",  # digits of another script
    "P16070-\u0662",
]


@pytest.mark.parametrize("text", VALID)
def test_accessions(text: str) -> None:
    assert is_uniprot_accession(text)
    assert parse_uniprot(text) == (text,)


@pytest.mark.parametrize("text", INVALID, ids=ascii)
def test_what_is_no_accession(text: str) -> None:
    assert not is_uniprot_accession(text)


def by_the_table(text: str) -> bool:
    """The help page's table of positions, read position by position."""
    letters, digits = set(string.ascii_uppercase), set(string.digits)
    either = letters | digits
    first_family = [set("OPQ"), digits, either, either, either, digits]
    half = [letters, either, either, digits]
    other = letters - set("OPQ")
    families = [first_family, [other, digits, *half], [other, digits, *half, *half]]
    return any(
        len(text) == len(family) and all(c in s for c, s in zip(text, family, strict=True))
        for family in families
    )


@given(
    st.text(alphabet="AOPQZ059a-", max_size=11) | st.from_regex(r"[A-Z0-9]{5,10}", fullmatch=True)
)
def test_the_pattern_is_the_table(text: str) -> None:
    assert is_uniprot_accession(text) == (
        by_the_table(text)
        if "-" not in text
        else by_the_table(text.partition("-")[0])
        and text.partition("-")[2].isdecimal()
        and not text.partition("-")[2].startswith("0")
    )


@pytest.mark.parametrize(
    "text",
    [
        "P02452;P02458",
        "P02452; P02458",
        "P02452,P02458",
        "P02452 P02458",
        " P02452 | P02458;",
        "P02452/P02458",
        "P02452;P02458;P02452",
    ],
)
def test_several_in_one_field(text: str) -> None:
    assert parse_uniprot(text) == ("P02452", "P02458")


@pytest.mark.parametrize("text", [None, "", "  ", ";"])
def test_none_in_a_field(text: str | None) -> None:
    assert parse_uniprot(text) == ()


def test_a_wrong_part_is_told_and_the_rest_not_taken() -> None:
    with pytest.raises(InvalidInputError, match=r"\['COL1A1', 'nan'\] in 'P02452;COL1A1;nan'"):
        parse_uniprot("P02452;COL1A1;nan")


@pytest.mark.parametrize("text", ["P16070", "A0A023GPI8"])
def test_without_isoform(text: str) -> None:
    assert without_isoform(text) == without_isoform(f"{text}-3") == text
