"""An image with what somebody else says about it: names of channels, what its pixels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from microtome.errors import InvalidInputError
from microtome.image import Kind, MultiscaleImage

__all__ = ["restated"]


def restated(
    image: MultiscaleImage,
    *,
    channel_names: Sequence[str] | None = None,
    kind: Kind | None = None,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> MultiscaleImage:
    """Return an image over the same pixels.

    Parameters
    ----------
    image
        An image that is read in place.
    channel_names
        Names of its channels; not used where there is no channel axis.
    kind
        Whether they are labels.
    name
        What it is called.
    metadata
        What is added to its own.

    Raises
    ------
    InvalidInputError
        If there are not as many names as channels, or labels are no whole numbers.
    """
    if kind not in {None, "labels", "intensity"}:
        msg = f"kind must be 'intensity' or 'labels', got {kind!r}"
        raise InvalidInputError(msg)
    if kind == "labels" and image.dtype.kind not in "iu":
        msg = f"{image.uri}: labels are whole numbers, its pixels are {image.dtype}"
        raise InvalidInputError(msg)
    names = image.channel_names if channel_names is None else channel_names
    return MultiscaleImage(
        [image.level(i) for i in range(image.level_count)],
        uri=image.uri,
        channel_names=names if image.has_channel_axis else None,
        mpp=image.mpp,
        kind=kind or image.kind,
        name=image.name if name is None else name,
        metadata={**image.metadata, **metadata} if metadata else image.metadata,
    )
