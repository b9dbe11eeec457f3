"""The levels of one picture: what they are, and how their pixels lie to each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from microtome.coordinates import (
    CoordinateSpace,
    CoordinateTransform,
    IdentityTransform,
    Mpp,
    ScaleTransform,
)
from microtome.errors import (
    InvalidInputError,
    NoResolutionError,
    OutOfRangeError,
    UnknownNameError,
)

from ._level import Level, as_index
from ._ngff import Kind

__all__ = ["LevelStack"]


class LevelStack(Mapping[str, Level]):
    """Levels by key and by number, finest first; the part of an image that knows no pixels.

    Parameters
    ----------
    levels
        Finest first; the first is the reference level and stays it.
    uri
        Where the image is: a path, or ``"array"``.
    channel_names
        One a channel; None where there is no channel axis.
    mpp
        Pixel size of the reference level, None where nothing states it.
    kind
        Intensities or labels.
    name
        Name of the image.

    Raises
    ------
    InvalidInputError
        If there are not as many names as channels.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        *,
        uri: str,
        channel_names: Sequence[str] | None,
        mpp: Mpp | None,
        kind: Kind,
        name: str,
    ) -> None:
        self._levels = list(levels)
        self._uri = uri
        self._channel_names = tuple(channel_names) if channel_names is not None else None
        self._mpp = mpp
        self._kind: Kind = kind
        self._name = name
        if self._channel_names is not None and len(self._channel_names) != self.nchannels:
            msg = (
                f"{uri}: {len(self._channel_names)} channel names {self._channel_names} for "
                f"{self.nchannels} channels"
            )
            raise InvalidInputError(msg)

    # -- what it is

    @property
    def uri(self) -> str:
        """Where the image is."""
        return self._uri

    @property
    def name(self) -> str:
        """Name of the image."""
        return self._name

    @property
    def kind(self) -> Kind:
        """``"intensity"`` or ``"labels"``."""
        return self._kind

    @property
    def axes(self) -> str:
        """Names of the array's axes, one letter each."""
        return self._levels[0].axes

    @property
    def data_axis_order(self) -> tuple[str, ...]:
        """Names of the array's axes."""
        return tuple(self.axes)

    @property
    def coordinate_space(self) -> CoordinateSpace:
        """Space that regions are given in: pixels of the reference level, (x, y) or (x, y, z)."""
        return CoordinateSpace.from_axis_names(self._spatial_axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return self._levels[0].dtype

    @property
    def has_channel_axis(self) -> bool:
        """Whether there is a channel axis."""
        return "c" in self.axes

    @property
    def nchannels(self) -> int:
        """Number of channels; 1 without a channel axis."""
        return self._levels[0].shape[self.axes.index("c")] if self.has_channel_axis else 1

    @property
    def channel_names(self) -> tuple[str, ...] | None:
        """Names of the channels, or None without a channel axis."""
        return self._channel_names

    @property
    def mpp(self) -> Mpp | None:
        """Pixel size of the reference level, None where nothing states it."""
        return self._mpp

    def require_mpp(self) -> Mpp:
        """Return the pixel size.

        Raises
        ------
        NoResolutionError
            If nothing states it.
        """
        if self._mpp is None:
            msg = (
                f"{self._uri} does not state its pixel size; give it in micrometres per pixel where it "
                "is opened, microtome.open_image(..., mpp=), or with --mpp"
            )
            raise NoResolutionError(msg)
        return self._mpp

    # -- levels

    @property
    def level_count(self) -> int:
        """Number of levels."""
        return len(self._levels)

    def level(self, level: int | str) -> Level:
        """Return a level by index (negative counts from the coarsest) or key.

        Raises
        ------
        OutOfRangeError
            If there is no such index.
        UnknownNameError
            If there is no such key.
        InvalidInputError
            If it is neither.
        """
        if isinstance(level, str):
            for candidate in self._levels:
                if candidate.key == level:
                    return candidate
            msg = f"{self._uri} has no level {level!r}, only {list(self)}"
            raise UnknownNameError(msg)
        index = as_index(level)
        if index is None:
            msg = f"{self._uri}: a level is named by its number or key, got {level!r}"
            raise InvalidInputError(msg)
        if not -len(self._levels) <= index < len(self._levels):
            msg = f"{self._uri} has {len(self._levels)} levels, no level {index}"
            raise OutOfRangeError(msg)
        return self._levels[index]

    def level_shape(self, level: int | str) -> tuple[int, ...]:
        """Return the shape of a level in the order of the axes."""
        return self.level(level).shape

    def level_uri(self, level: int | str) -> str:
        """Return where the array of a level lies."""
        return f"{self._uri}/{self.level(level).path}"

    def levels(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return `{key: (uri, shape)}`, finest first."""
        return {level.key: (f"{self._uri}/{level.path}", level.shape) for level in self._levels}

    def level_mpp(self, level: int | str) -> Mpp:
        """Return the pixel size of a level.

        Raises
        ------
        NoResolutionError
            If nothing states it.
        """
        fx, fy = self._factors(level)[:2]
        return self.require_mpp().scaled(fy, fx)

    def get_transform_from_level(self, level: int | str) -> CoordinateTransform:
        """Return the transform from a level's pixels to the reference level's.

        Parameters
        ----------
        level
            Index or key.

        Returns
        -------
        Between pixel edges, over the axes of `coordinate_space`; the identity for the reference
        level, else a scale.
        """
        axes = self._spatial_axes
        if self.level(level) is self._levels[0]:
            return IdentityTransform(axes, axes)
        return ScaleTransform(axes, axes, self._factors(level))

    def get_transform_to_level(self, level: int | str) -> CoordinateTransform:
        """Return the transform from the reference level's pixels to a level's."""
        return self.get_transform_from_level(level).inverse_transform()

    @property
    def _spatial_axes(self) -> tuple[str, ...]:
        return tuple(axis for axis in "xyz" if axis in self._levels[0].axes)

    def _factors(self, level: int | str) -> tuple[float, ...]:
        # From the stated scales, not from shapes: 2967 -> 1484 rows is a factor of exactly 2.
        chosen, base = self.level(level), self._levels[0]
        places = [base.axes.index(axis) for axis in self._spatial_axes]
        return tuple(chosen.scale[place] / base.scale[place] for place in places)

    # -- mapping

    def __getitem__(self, key: str) -> Level:
        return self.level(key)

    def __contains__(self, key: object) -> bool:
        # Mapping asks __getitem__, which knows numbers too, and fails in other ways for them.
        return any(level.key == key for level in self._levels)

    def __iter__(self) -> Iterator[str]:
        return (level.key for level in self._levels)

    def __len__(self) -> int:
        return len(self._levels)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other
