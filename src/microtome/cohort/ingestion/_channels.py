"""Which channels of a source a modality stores, or why the source does not fit it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from microtome.cohort._modality import Modality
from microtome.coordinates import Mpp, Resolution
from microtome.errors import InvalidInputError
from microtome.image import MultiscaleImage

from ._plausible import verify_mpp

__all__ = ["RGB", "channels_to_store"]

RGB = ("red", "green", "blue")
"""How a cohort names the channels of a brightfield image."""

# A pixel size that differs by less is the same: 0.4999 and 0.5 um are one scanner's setting, but
# resampling is exact all the same, so this only decides what counts as up-sampling.
_FINER = 1.02
_RGB_NAMES = {RGB, ("r", "g", "b"), ("channel 0", "channel 1", "channel 2")}


def channels_to_store(
    image: MultiscaleImage,
    modality: Modality,
    resolution: Resolution,
    given: Sequence[str] | None,
    *,
    upsample: bool,
) -> list[str]:
    """Return the names of the channels that a source has for a modality; no pixel is read.

    Raises
    ------
    InvalidInputError
        If the source does not fit the modality, or is coarser than the resolution.
    NoResolutionError
        If nobody states its pixel size, or it is one that no microscope has.
    """
    wrong: list[InvalidInputError] = []
    channels: list[str] = []
    try:
        own = image.require_mpp()
        verify_mpp(own, image.uri)
        if not upsample:
            _verify_fine(image, own, resolution)
    except InvalidInputError as error:
        wrong.append(error)
    try:
        _verify_flat(image)
        channels = _channels(image, modality, given)
    except InvalidInputError as error:
        wrong.append(error)
    if wrong[1:]:
        # Both at once: who mends the one shall not be sent back for the other.
        raise InvalidInputError("; ".join(map(str, wrong)))
    if wrong:
        raise wrong[0]
    return channels


def _verify_fine(image: MultiscaleImage, own: Mpp, resolution: Resolution) -> None:
    if max(own.y / resolution.mpp[0], own.x / resolution.mpp[1]) > _FINER:
        msg = (
            f"{image.uri} has {own}, coarser than the resolution {resolution} um asked for: pixels would be "
            f"invented. Use a coarser --resolution, or allow it with --upsample (upsample=True)"
        )
        raise InvalidInputError(msg)


def _verify_flat(image: MultiscaleImage) -> None:
    sizes = dict(zip(image.axes, image.level_shape(0), strict=True))
    deep = {axis: size for axis, size in sizes.items() if axis in "tz" and size > 1}
    if deep:
        msg = f"{image.uri} has axes {image.axes} of {image.level_shape(0)}; a cohort holds single planes"
        raise InvalidInputError(msg)


def _channels(image: MultiscaleImage, modality: Modality, given: Sequence[str] | None) -> list[str]:
    """Return the names of the channels to store, checked against the modality."""
    if modality.kind == "brightfield":
        if image.nchannels != len(RGB) or image.dtype != np.uint8:
            msg = f"{modality} is red, green and blue of 8 bits; {image.uri} has {image.nchannels} channels of {image.dtype}"
            raise InvalidInputError(msg)
        if tuple(str(name).lower() for name in image.channel_names or ()) not in _RGB_NAMES:
            msg = (
                f"{modality} is red, green and blue; {image.uri} names its channels "
                f"{image.channel_names}. Is it fluorescence? If they are colours, say so with "
                "--channel red --channel green --channel blue (channel_names=)"
            )
            raise InvalidInputError(msg)
        return list(RGB)
    names = image.channel_names
    if names == RGB and image.dtype == np.uint8 and given is None:
        msg = (
            f"{image.uri} is a colour photograph, red, green and blue; {modality} has a channel a "
            "marker. If these are markers, name them with --channel (channel_names=)"
        )
        raise InvalidInputError(msg)
    if not image.has_channel_axis and given is not None and len(given) == 1:
        names = tuple(given)
    # A source without names numbers its channels; a panel of numbers would join by accident.
    if names is None or names == tuple(f"channel {i}" for i in range(len(names))):
        msg = (
            f"{image.uri} has {image.nchannels} channels without names, and channels of {modality} are "
            "known by name; give them in order with --channel (channel_names=)"
        )
        raise InvalidInputError(msg)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"{image.uri}: channel names must be unique, {twice} occur more than once"
        raise InvalidInputError(msg)
    return list(names)
