"""Channel names as instruments write them: which part is the marker, and which its tag."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from microtome.errors import InvalidInputError

__all__ = ["ChannelName", "TagKind", "metal_tag", "parse_channel_name"]

TagKind = Literal["metal", "mass", "fluorophore"]
"""`metal`: an isotope, ``Dy161``. `mass`: only its mass, as MIBI names have it. `fluorophore`: a dye
or the filter that it is seen through."""

# Isotopes that mass cytometers tag antibodies with or see besides, by element: masses of the stable
# ones (IUPAC). CD20 and Ki67 are therefore no metals, whatever their letters.
_ISOTOPES: dict[str, tuple[int, ...]] = {
    "Y": (89,),
    "Nb": (93,),
    "Ru": (96, 98, 99, 100, 101, 102, 104),
    "Rh": (103,),
    "Pd": (102, 104, 105, 106, 108, 110),
    "Ag": (107, 109),
    "Cd": (106, 108, 110, 111, 112, 113, 114, 116),
    "In": (113, 115),
    "Sn": (112, 114, 115, 116, 117, 118, 119, 120, 122, 124),
    "Te": (120, 122, 123, 124, 125, 126, 128, 130),
    "I": (127,),
    "Xe": (124, 126, 128, 129, 130, 131, 132, 134, 136),
    "Cs": (133,),
    "Ba": (130, 132, 134, 135, 136, 137, 138),
    "La": (138, 139),
    "Ce": (136, 138, 140, 142),
    "Pr": (141,),
    "Nd": (142, 143, 144, 145, 146, 148, 150),
    "Sm": (144, 147, 148, 149, 150, 152, 154),
    "Eu": (151, 153),
    "Gd": (152, 154, 155, 156, 157, 158, 160),
    "Tb": (159,),
    "Dy": (156, 158, 160, 161, 162, 163, 164),
    "Ho": (165,),
    "Er": (162, 164, 166, 167, 168, 170),
    "Tm": (169,),
    "Yb": (168, 170, 171, 172, 173, 174, 176),
    "Lu": (175, 176),
    "Hf": (174, 176, 177, 178, 179, 180),
    "Ta": (180, 181),
    "Os": (184, 186, 187, 188, 189, 190, 192),
    "Ir": (191, 193),
    "Pt": (190, 192, 194, 195, 196, 198),
    "Au": (197,),
    "Hg": (196, 198, 199, 200, 201, 202, 204),
    "Pb": (204, 206, 207, 208),
    "Bi": (209,),
}

_METAL = re.compile(
    r"(?:(?P<element>[A-Z][a-z]?)(?:-?(?P<mass>[0-9]{2,3})|\((?P<inner>[0-9]{2,3})\))"
    r"|(?P<first>[0-9]{2,3})-?(?P<second>[A-Z][a-z]?))(?:Di)?"
)
_FLUOROPHORE = re.compile(
    r"(?:Opal|ATTO|DyLight|eFluor|CF|BV|IRDye|iFluor|(?:Alexa(?:[ -]?Fluor)?|AF|A))[ -_]?[0-9]{3}"
    r"|Polaris[ -_]?[0-9]{3}|Cy[ -]?[2357](?:\.5)?|Texas[ -_]?Red|Hoechst(?:[ -_]?[0-9]{5})?"
    r"|DAPI|FITC|TRITC|PE|APC|GFP|RFP|YFP|CFP|mCherry|SYTOX|SpectrumOrange",
    re.IGNORECASE,
)
# Of these, letters that are also a protein's name are a dye only where brackets say so.
_ALSO_PROTEINS = {"pe", "apc"}
_NO_MARKERS = {"background", "bg", "blank", "empty"}
# No instrument writes longer ones, and the time that patterns take grows with the square.
_LONGEST = 200
_MASS = re.compile(r"[0-9]{2,3}")
_BRACKETS = re.compile(r"(?P<outer>[^()]+?)\s*\((?P<inner>[^()]+)\)")
# AirLab's labels: the name of the antibody, the number of its tube, that of its conjugate, the metal.
_AIRLAB = re.compile(r"(?P<marker>.+?)_[0-9]+\(\([0-9]+\)\)(?P<tag>\w+)")
_TXT = re.compile(r"(?P<label>.+)\((?P<tag>[A-Za-z0-9]+Di)\)")


@dataclass(frozen=True, slots=True)
class ChannelName:
    """A channel's name, taken apart.

    Parameters
    ----------
    marker
        What is seen; the tag where a name has nothing else.
    tag
        What makes it visible, in one spelling (``Dy161`` for ``161Dy`` and ``Dy161Di``), or None.
    kind
        What the tag is, or None.
    original
        The name as it was written.
    """

    marker: str
    tag: str | None
    kind: TagKind | None
    original: str


def metal_tag(text: str) -> str | None:
    """Return an isotope in one spelling, or None where the text is not one.

    Parameters
    ----------
    text
        Such as ``Dy161``, ``161Dy``, ``Dy161Di`` or ``Dy(161)``.

    Examples
    --------
    >>> [metal_tag(t) for t in ("161Dy", "Dy161Di", "Ag(107)", "CD20", "Dy20")]
    ['Dy161', 'Dy161', 'Ag107', None, None]
    """
    found = _METAL.fullmatch(text)
    if found is None:
        return None
    element = found["element"] or found["second"]
    mass = found["mass"] or found["inner"] or found["first"]
    return f"{element}{mass}" if int(mass) in _ISOTOPES.get(element, ()) else None


def parse_channel_name(name: str) -> ChannelName:
    """Take a channel's name apart into its marker and its tag.

    Names of imaging mass cytometry (MCD, its text export, steinbock), MIBI, QPTIFF and OME-TIFF files
    are known. In any other the whole name is the marker: nothing is guessed away.

    Parameters
    ----------
    name
        The name as a file has it.

    Raises
    ------
    InvalidInputError
        If the name is blank.

    Examples
    --------
    >>> for name in ("Dy161Di(CD20)", "CD20 (164)", "Opal 520 CD8", "Cytokeratin 5"):
    ...     found = parse_channel_name(name)
    ...     print(found.marker, found.tag, found.kind)
    CD20 Dy161 metal
    CD20 164 mass
    CD8 Opal 520 fluorophore
    Cytokeratin 5 None None
    """
    text = name.strip()
    if not text:
        msg = f"a channel name must not be blank, got {name!r}"
        raise InvalidInputError(msg)
    if len(text) > _LONGEST:
        return ChannelName(text, None, None, name)
    for parse in (_only_a_tag, _of_text_export, _of_airlab, _in_brackets, _joined):
        if found := parse(text):
            marker, tag, kind = found
            return ChannelName(marker, tag, kind, name)
    return ChannelName(text, None, None, name)


_Parts = tuple[str, str, TagKind]


def _tag(text: str, *, bracketed: bool = False) -> tuple[str, TagKind] | None:
    """Return a text as a tag in one spelling, and what it is; None where it is none."""
    if metal := metal_tag(text):
        return metal, "metal"
    dye = _FLUOROPHORE.fullmatch(text)
    if dye and (bracketed or text.lower() not in _ALSO_PROTEINS):
        return text, "fluorophore"
    return None


def _only_a_tag(text: str) -> _Parts | None:
    found = _tag(text)
    return (found[0], *found) if found else None


def _of_text_export(text: str) -> _Parts | None:
    """Return the parts of ``CD20_1((2))Dy161(Dy161Di)``, the label and then the metal."""
    found = _TXT.fullmatch(text)
    tag = metal_tag(found["tag"]) if found else None
    if found is None or tag is None:
        return None
    label = parse_channel_name(found["label"])
    return (label.marker if label.tag in {tag, None} else found["label"]), tag, "metal"


def _of_airlab(text: str) -> _Parts | None:
    found = _AIRLAB.fullmatch(text)
    tag = metal_tag(found["tag"]) if found else None
    return (found["marker"], tag, "metal") if found and tag else None


def _in_brackets(text: str) -> _Parts | None:
    """Return the parts of ``tag (marker)`` or ``marker (tag)``."""
    found = _BRACKETS.fullmatch(text)
    if found is None:
        return None
    outer, inner = found["outer"].strip(), found["inner"].strip()
    if tag := _tag(inner, bracketed=True):
        return (outer, *tag)
    if _MASS.fullmatch(inner):
        return outer, inner, "mass"
    if tag := _tag(outer):
        return (inner, *tag)
    return None


def _joined(text: str) -> _Parts | None:
    """Return the parts of ``CD20_Dy161``, ``161Dy-CD20``, ``CD8 Opal 520`` and ``Opal 520 CD8``."""
    for cut in re.finditer(r"[ _-]+", text):
        first, last = text[: cut.start()], text[cut.end() :]
        for tag, marker in ((_tag(first), last), (_tag(last), first)):
            # DAPI_2 is a second DAPI, and A488_background no marker that carries the dye.
            if tag is None or not marker or marker.isdigit() or marker.lower() in _NO_MARKERS:
                continue
            # A word such as GFP may be the marker itself; a number makes it the dye.
            if tag[1] == "metal" or re.search(r"[0-9]", tag[0]):
                return (marker, *tag)
    return None
