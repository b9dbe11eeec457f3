"""What the pixels of several modalities are made by, as a text: for loaders that resume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from microtome.cohort._modality import Modality
from microtome.coordinates import Resolution
from microtome.standardize import StandardizationSpec

__all__ = ["pixels_told"]

_BRIGHTFIELD = "imagenet"
_MULTIPLEX = "identity"
# Beside the standardization; what is left out or has this value is not told.
_ALSO: Mapping[str, Any] = {
    "kind": "complete",
    "channels": None,
    "stats_level": None,
    "use_mean_std": True,
    "disable_quantile_mask": False,
    "filter_list": None,
}


def pixels_told(
    modalities: Sequence[Modality], options: Mapping[str, Mapping[str, Any]], resolution: Resolution
) -> str:
    """Return how each modality is standardized, and what else decides about its pixels.

    Parameters
    ----------
    modalities
        In their order.
    options
        Of their datasets, by name.
    resolution
        Of those that name none.

    Raises
    ------
    InvalidInputError
        If an option is none.
    """
    return "; ".join(_told(each, options.get(each.name, {}), resolution) for each in modalities)


def _told(modality: Modality, options: Mapping[str, Any], resolution: Resolution) -> str:
    if modality.kind == "brightfield":
        by = str(options.get("mean_std_type", _BRIGHTFIELD))
    else:
        by = str(StandardizationSpec.parse(str(options.get("standardization", _MULTIPLEX))))
    given = options.get("resolution")
    at = resolution if given is None else Resolution.parse(given)
    also = [
        f", {name}={_plain(options[name])!r}"
        for name, default in _ALSO.items()
        if name in options and _plain(options[name]) != default
    ]
    return f"{modality.name} by {by} at {at} um{''.join(also)}"


def _plain(value: Any) -> Any:
    """Return lists, tuples and arrays of names alike."""
    if value is None or isinstance(value, str | bool):
        return value
    return [str(each) for each in value] if isinstance(value, Iterable) else value
