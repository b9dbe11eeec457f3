"""How a tissue was imaged, as values, and the registry of the names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from microtome.errors import InvalidInputError, UnknownNameError

__all__ = [
    "CODEXModality",
    "CycIFModality",
    "HEModality",
    "IHCModality",
    "IMCModality",
    "MIBIModality",
    "Modality",
    "ModalityKind",
    "StainsModality",
    "modality_names",
    "parse_modality",
    "register_modality",
]

ModalityKind = Literal["brightfield", "multiplex"]
"""`brightfield`: red, green and blue of transmitted light. `multiplex`: one channel a marker,
with a panel that tissues may have measured in part."""

_MARKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Modality:
    """One way of imaging a tissue.

    Parameters
    ----------
    name
        Name in tables and on the command line.
    canonical_dir
        Directory of the modality inside a cohort.
    kind
        What its channels are.
    """

    name: str
    canonical_dir: str
    kind: ModalityKind

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class HEModality(Modality):
    """Haematoxylin and eosin, brightfield."""

    name: str = "he"
    canonical_dir: str = "he"
    kind: ModalityKind = "brightfield"


@dataclass(frozen=True, slots=True, init=False)
class IHCModality(Modality):
    """Immunohistochemistry of one marker, brightfield.

    Parameters
    ----------
    name
        The marker, with or without the prefix: ``"CD3"`` and ``"ihc_CD3"`` are the same.

    Examples
    --------
    >>> IHCModality("CD3").canonical_dir
    'ihc/ihc_CD3'
    """

    def __init__(self, name: str) -> None:
        marker = name.removeprefix("ihc_")
        if not _MARKER.fullmatch(marker):
            msg = f"an IHC marker is letters, digits, '.', '_' and '-', got {marker!r}"
            raise InvalidInputError(msg)
        object.__setattr__(self, "name", f"ihc_{marker}")
        object.__setattr__(self, "canonical_dir", f"ihc/ihc_{marker}")
        object.__setattr__(self, "kind", "brightfield")


@dataclass(frozen=True, slots=True)
class IMCModality(Modality):
    """Imaging mass cytometry."""

    name: str = "imc"
    canonical_dir: str = "imc"
    kind: ModalityKind = "multiplex"


@dataclass(frozen=True, slots=True)
class CODEXModality(Modality):
    """CODEX, now PhenoCycler."""

    name: str = "codex"
    canonical_dir: str = "codex"
    kind: ModalityKind = "multiplex"


@dataclass(frozen=True, slots=True)
class CycIFModality(Modality):
    """Cyclic immunofluorescence."""

    name: str = "cycif"
    canonical_dir: str = "cycif"
    kind: ModalityKind = "multiplex"


@dataclass(frozen=True, slots=True)
class MIBIModality(Modality):
    """Multiplexed ion beam imaging."""

    name: str = "mibi"
    canonical_dir: str = "mibi"
    kind: ModalityKind = "multiplex"


@dataclass(frozen=True, slots=True)
class StainsModality(Modality):
    """Stains of a brightfield image taken apart by colour deconvolution, a channel each.

    Not a way of imaging but treated as one: its channels are markers like any other's. Seed 003
    has no name for it, so this one is ours.
    """

    name: str = "stains"
    canonical_dir: str = "stains"
    kind: ModalityKind = "multiplex"


_REGISTRY: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        HEModality(),
        IMCModality(),
        CODEXModality(),
        CycIFModality(),
        MIBIModality(),
        StainsModality(),
    )
}
_ALIASES = {"phenocycler": "codex", "h&e": "he"}


def register_modality(modality: Modality) -> None:
    """Make a new modality known by its name.

    Parameters
    ----------
    modality
        The modality; its name and directory must be free.

    Raises
    ------
    InvalidInputError
        If the name or the directory is taken or is no plain name.
    """
    taken = {known.canonical_dir for known in _REGISTRY.values()} | {"ihc"}
    if (
        modality.name in _REGISTRY
        or modality.name.startswith("ihc")
        or modality.canonical_dir in taken | {"metadata", "segmentations", "tiling", "predictions"}
        or not _MARKER.fullmatch(modality.name)
        or not _MARKER.fullmatch(modality.canonical_dir)
    ):
        msg = f"{modality!r} cannot be registered: its name or directory is taken or no plain name"
        raise InvalidInputError(msg)
    _REGISTRY[modality.name] = modality


def modality_names() -> tuple[str, ...]:
    """Return the names that `parse_modality` takes."""
    return (*_REGISTRY, "ihc_<marker>")


def parse_modality(name: str | Modality) -> Modality:
    """Return the modality of a name.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    if isinstance(name, Modality):
        return name
    if name.startswith("ihc_"):
        return IHCModality(name)
    known = _REGISTRY.get(_ALIASES.get(name.lower(), name.lower()))
    if known is None:
        msg = f"unknown modality {name!r}; known are {', '.join(modality_names())}"
        raise UnknownNameError(msg)
    return known
