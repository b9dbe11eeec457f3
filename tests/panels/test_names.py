"""Channel names as instruments write them, those of real files first."""

from __future__ import annotations

import re
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from microtome import open_image
from microtome.errors import InvalidInputError
from microtome.panels import Panel, metal_tag, name_key, parse_channel_name


def parts(name: str) -> tuple[str, str | None, str | None]:
    found = parse_channel_name(name)
    assert found.original == name
    return found.marker, found.tag, found.kind


# ------------------------------------------------------------------ real files


def test_names_of_a_mibi_file(shared_data: Path) -> None:
    (path,) = (shared_data / "mibi").glob("*Filtered.tiff")
    names = open_image(path).channel_names
    assert names is not None
    assert len(names) == 22
    for name in names:
        # Every name of this instrument is "target (mass)".
        target, mass = name.removesuffix(")").split(" (")
        assert parts(name) == (target, mass, "mass")
    panel = Panel.from_names(names)
    assert panel.names[:4] == ("Background", "BetaCatenin", "BetaTubulin", "CD20")
    assert panel["NaK ATPase"].extra == {
        "tag": "175",
        "original_channel_name": "NaK ATPase (175)",
    }


def test_names_of_a_qptiff_file(shared_data: Path) -> None:
    names = open_image(shared_data / "wsi/vectra.qptiff").channel_names
    assert names == ("DAPI", "FITC", "Cy3")
    assert [parts(name) for name in names] == [(n, n, "fluorophore") for n in names]
    assert Panel.from_names(names).names == names


def test_names_of_an_mcd_file_and_its_text_export(shared_data: Path) -> None:
    raw = shared_data / "imc/raw"
    (text,) = raw.glob("*.txt")
    exported = text.read_text("utf-8").splitlines()[0].split("\t")[6:]
    expected = [
        ("Ag107", "Ag107", "metal"),
        ("Cytoker", "Pr141", "metal"),
        ("Laminin", "Sm147", "metal"),
        ("YBX1", "Eu153", "metal"),
        ("H3K27Ac", "Yb172", "metal"),
    ]
    assert [parts(name) for name in exported] == expected
    # The MCD keeps the same in XML, as UTF-16 at its end.
    (mcd,) = raw.glob("*Data1.mcd")
    xml = mcd.read_bytes().decode("utf-16-le", "ignore")
    labels = re.findall(r"<ChannelLabel>([^<]+)</ChannelLabel>", xml)[3:8]
    metals = re.findall(r"<ChannelName>([^<]+)</ChannelName>", xml)[3:8]
    assert labels[0] == "107Ag"
    assert metals[0] == "Ag(107)"
    assert [parts(name) for name in labels] == expected
    assert [parts(name) for name in metals] == [(t, t, "metal") for _, t, _ in expected]


# ------------------------------------------------------------------ other spellings


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Dy161Di(CD20)", ("CD20", "Dy161", "metal")),
        ("Dy161(CD20)", ("CD20", "Dy161", "metal")),
        ("CD20(Dy161Di)", ("CD20", "Dy161", "metal")),
        ("CD20 (161Dy)", ("CD20", "Dy161", "metal")),
        ("CD20_Dy161", ("CD20", "Dy161", "metal")),
        ("161Dy_CD20", ("CD20", "Dy161", "metal")),
        ("161Dy-CD20", ("CD20", "Dy161", "metal")),
        ("CD20 161Dy", ("CD20", "Dy161", "metal")),
        ("HLA-DR_174Yb", ("HLA-DR", "Yb174", "metal")),
        ("174Yb_HLA-DR", ("HLA-DR", "Yb174", "metal")),
        ("191Ir_DNA1", ("DNA1", "Ir191", "metal")),
        ("DNA1(Ir191Di)", ("DNA1", "Ir191", "metal")),
        ("Ir191", ("Ir191", "Ir191", "metal")),
        ("I127", ("I127", "I127", "metal")),
        ("DAPI (DAPI)", ("DAPI", "DAPI", "fluorophore")),
        ("Opal 520 CD8", ("CD8", "Opal 520", "fluorophore")),
        ("CD8 (Opal 520)", ("CD8", "Opal 520", "fluorophore")),
        ("Opal 520 (CD8)", ("CD8", "Opal 520", "fluorophore")),
        ("CD8-AF647", ("CD8", "AF647", "fluorophore")),
        ("Alexa Fluor 488 PD-L1", ("PD-L1", "Alexa Fluor 488", "fluorophore")),
        ("Ki67 (PE)", ("Ki67", "PE", "fluorophore")),
        ("Hoechst 33342", ("Hoechst 33342", "Hoechst 33342", "fluorophore")),
    ],
)
def test_marker_and_tag(name: str, expected: tuple[str, str, str]) -> None:
    assert parts(name) == expected


@pytest.mark.parametrize(
    "name",
    [
        "CD20",
        "Cytokeratin 5",
        "Ki67",
        "Ki-67",
        "HLA-DR",
        "H3K27Ac",
        "Ca20",  # an element, but not such an isotope
        "CD3 (clone SP7)",
        "CD3 (polyclonal) (rabbit)",
        "APC",  # a protein as well as a dye
        "PE",
        "A488_background",
        "Dy161_background",
        "DAPI_2",
        "DNA_1",
        "GFP_reporter",
        "Autofluorescence",
        "TGF-β",
        "_",
    ],
)
def test_the_whole_name_is_the_marker(name: str) -> None:
    assert parts(name) == (name, None, None)


@given(
    st.text(alphabet="CDdy1620 _-()Opal5\u03b1\u0661\t", min_size=1, max_size=14).filter(str.strip)
)
def test_any_name_has_a_marker(name: str) -> None:
    found = parse_channel_name(name)
    assert found.original == name
    assert found.marker.strip()
    assert (found.tag is None) == (found.kind is None)
    if found.tag is None:
        assert found.marker == name.strip()
    if found.kind == "metal":
        assert found.tag
        assert metal_tag(found.tag) == found.tag


@pytest.mark.parametrize(
    "name",
    ["a" + " " * 50_000 + "b", "(" * 50_000, "a_" * 50_000],
    ids=["spaces", "brackets", "bars"],
)
def test_a_name_of_no_instrument_takes_no_time(name: str) -> None:
    assert parse_channel_name(name).marker == name


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_a_blank_name(name: str) -> None:
    with pytest.raises(InvalidInputError, match="must not be blank"):
        parse_channel_name(name)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("Gd155", "Gd155"),
        ("155Gd", "Gd155"),
        ("Gd(155)", "Gd155"),
        ("Gd155Di", "Gd155"),
        ("Gd159", None),  # not stable
        ("gd155", None),
        ("Gd(155", None),
        ("Gd", None),
        ("155", None),
        ("CD45", None),
    ],
)
def test_metals(text: str, tag: str | None) -> None:
    assert metal_tag(text) == tag


def test_two_markers_of_one_name_keep_the_whole_of_theirs() -> None:
    panel = Panel.from_names(["DNA (191Ir)", "DNA (193Ir)", "CD3 (170Er)"])
    assert panel.names == ("DNA (191Ir)", "DNA (193Ir)", "CD3")
    assert [channel.extra for channel in panel] == [
        {"tag": "Ir191"},
        {"tag": "Ir193"},
        {"tag": "Er170", "original_channel_name": "CD3 (170Er)"},
    ]


# ------------------------------------------------------------------ names that are the same


@pytest.mark.parametrize(
    "names",
    [
        ("CD3", "cd3", "CD-3", "CD_3", "cd 3"),
        ("β-catenin", "Beta Catenin", "BETA_CATENIN", "betacatenin", "\u0392-Catenin"),
        ("\u03b1SMA", "alpha-SMA", "Alpha SMA"),
        ("HLA-DR", "HLA DR", "HLADR", "HLA\u2013DR", "HLA\u2212DR"),
        ("µ", "μ", "mu"),
        ("CD4", "cd-4", "\uff23\uff24\uff14"),
        ("λ", "lambda"),
    ],
    ids=lambda names: ascii(names[0]),
)
def test_the_same_key(names: tuple[str, ...]) -> None:
    assert len({name_key(name) for name in names}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CD3", "CD30"),
        ("CD4", "CD45"),
        ("p53", "p63"),
        ("PD-1", "PD-L1"),
        ("-", "_"),
        ("IL1a", "IL1b"),
    ],
)
def test_other_keys(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)
