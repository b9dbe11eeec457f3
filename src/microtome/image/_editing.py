"""Changing the levels of an image: adding, setting and removing them, and building the pyramid."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

from microtome.errors import ExistsError, InvalidInputError, UnknownNameError
from microtome.progress import Progress, silent
from microtome.storage import ImageStore, Layout, default_layout, open_array, place_of

from ._attributes import insert_level, level_keys, remove_levels
from ._build import fill_levels
from ._fitting import checked_factors, checked_shape, free_path, path_inside, place_of_level
from ._level import Level, MemoryArray, PixelArray, as_array
from ._ngff import read_metadata
from ._pyramid import blocks_of, pyramid_shapes
from ._reading import ReadableImage

__all__ = ["EditableImage"]


class EditableImage(ReadableImage, MutableMapping[str, Level]):
    """Levels that can be added and removed where the image is open for writing.

    The first level is the reference and stays it: it is neither replaced nor removed. Every other
    has its channels, axes and dtype, and is no larger than the one before it in any direction.
    """

    _layout: Layout | None = None

    @abstractmethod
    def verify_open_for_writing(self) -> ImageStore:
        """Return where the image lies; an error where it is not open for writing."""

    @abstractmethod
    def _verify_open_for_removing(self) -> ImageStore: ...

    # -- adding

    def add_new_level(
        self,
        key: str,
        *,
        shape: Sequence[int],
        uri: str | None = None,
        scale: Sequence[float] | None = None,
    ) -> Level:
        """Add an empty level; its pixels are 0 until they are written.

        It takes its place among the levels by its size. All of it happens or nothing does: the
        level is there, with its array, or neither is.

        Parameters
        ----------
        key
            Name of the level.
        shape
            Shape in the order of the axes, channels included.
        uri
            Path of the array inside the image; the next number by default.
        scale
            Pixels of the reference level that one pixel covers, along (x, y) or (x, y, z). By
            default what the shapes say: the whole factor by which the reference level becomes this
            size, rounded up (301 rows become 151 by a factor of 2), else the ratio of the sizes.

        Returns
        -------
        The level, to be written.

        Raises
        ------
        ModeError
            If the image is not open for writing.
        ExistsError
            If there is a level of that name, or something at `uri`.
        InvalidInputError
            If the shape does not fit: other axes or channels, larger than the level before it or
            smaller than the one after it in some direction.
        """
        store = self.verify_open_for_writing()
        wanted = self._shape_of(key, shape)
        factors = self._factors_of(key, wanted, scale)
        adding: list[str] = []
        try:
            with store.changing(adding=adding) as attributes:
                levels = self._levels_in(store, attributes)
                index = place_of_level(self._uri, key, wanted, levels)
                path = free_path(store, levels) if uri is None else path_inside(self._uri, uri)
                layout = self._layout_of(wanted)
                store.create_array(
                    path, shape=wanted, dtype=self.dtype, layout=layout, axes=self.axes
                )
                adding.append(path)
                insert_level(attributes, index, key=key, path=path, factors=factors)
        except BaseException:
            self._forget(store, adding)
            raise
        self._levels = self._levels_in(store, attributes)
        return self.level(key)

    def set(self, key: str, value: Any, *, use_relative_uri: bool | None = None) -> None:
        """Add a level with pixels, or replace one that is not the reference level.

        Parameters
        ----------
        key
            Name of the level.
        value
            The pixels, which are copied: a level of this or another image, an array, or the path
            of a Zarr array.
        use_relative_uri
            As in tiledbsoma; the paths of levels are relative always, so that an image can be
            moved, and False is refused.

        Raises
        ------
        ModeError
            If the image is not open for writing.
        InvalidInputError
            If dtype or shape do not fit, or `key` is the reference level: write to that one's
            pixels, ``image[key][...] = values``.
        """
        if use_relative_uri is False:
            msg = f"{self._uri}: the paths of levels are relative to the image, always"
            raise InvalidInputError(msg)
        store = self.verify_open_for_writing()
        source = _pixels_of(value, key)
        if source.dtype != self.dtype:
            msg = (
                f"{self._uri} holds {self.dtype}, level {key!r} was given {source.dtype}; convert "
                "it explicitly"
            )
            raise InvalidInputError(msg)
        shape = self._shape_of(key, source.shape)
        factors = self._factors_of(key, shape, None)
        path = free_path(store, self._levels)
        array = store.create_array(
            path, shape=shape, dtype=self.dtype, layout=self._layout_of(shape), axes=self.axes
        )
        replaced: list[str] = []
        adding = [path]
        try:
            for block in blocks_of(shape, array.write_unit):
                array.write(block, source.read(block))
            with store.changing(adding=adding, removing=replaced) as attributes:
                levels = self._levels_in(store, attributes)
                adding[0] = path = store.settle(path)
                if key == levels[0].key:
                    msg = (
                        f"{self._uri}: {key!r} is the reference level and stays it; write to its "
                        f"pixels, image[{key!r}][...] = values"
                    )
                    raise InvalidInputError(msg)
                replaced.extend(level.path for level in levels if level.key == key)
                remove_levels(attributes, replaced)
                kept = [level for level in levels if level.key != key]
                index = place_of_level(self._uri, key, shape, kept)
                insert_level(attributes, index, key=key, path=path, factors=factors)
        except BaseException:
            self._forget(store, adding)
            raise
        self._levels = self._levels_in(store, attributes)

    def __setitem__(self, key: str, value: Any) -> None:
        # `image["level0"][...] = x` writes pixels; `image["half"] = x` sets a level.
        self.set(key, value)

    # -- removing

    def __delitem__(self, key: str) -> None:
        if key not in self:
            msg = f"{self._uri} has no level {key!r}, only {list(self)}"
            raise UnknownNameError(msg)
        self._remove([key])

    def popitem(self) -> tuple[str, Level]:
        """Remove the coarsest level and return its name and what it was.

        Raises
        ------
        UnknownNameError
            If only the reference level is left, which stays.
        """
        if len(self) == 1:
            msg = f"{self._uri}: only the reference level {next(iter(self))!r} is left, and stays"
            raise UnknownNameError(msg)
        key = list(self)[-1]
        return key, self.pop(key)

    def clear(self) -> None:
        """Remove all levels but the reference level."""
        self._remove(list(self)[1:])

    def _remove(self, keys: Sequence[str]) -> None:
        store = self._verify_open_for_removing()
        removing: list[str] = []
        with store.changing(removing=removing) as attributes:
            levels = self._levels_in(store, attributes)
            if levels[0].key in keys:
                msg = (
                    f"{self._uri}: {levels[0].key!r} is the reference level and stays; remove the "
                    "directory to remove the image"
                )
                raise InvalidInputError(msg)
            for level in levels:
                if level.key in keys:
                    _ = level.shape  # looked up now: what is returned to the caller knows it still
                    removing.append(level.path)
            remove_levels(attributes, removing)
        self._levels = self._levels_in(store, attributes)

    # -- the pyramid

    def build_levels(
        self,
        *,
        overwrite: bool = False,
        threads: int | None = None,
        progress: Progress = silent,
        fill: Callable[[Level, Sequence[Level]], None] | None = None,
        source: PixelArray | None = None,
    ) -> None:
        """Compute all coarser levels by the pyramid rule.

        Each level is half as large as the one before it, until the larger side is at most one
        chunk. Pixels of the reference level are read once, a block at a time, in bounded memory.
        The levels appear together, when all of them are complete.

        Parameters
        ----------
        overwrite
            Whether coarser levels that are there are replaced: all of them, those too that were
            added by hand.
        threads
            Threads to work with; by default as many as there are processors, four at most.
        progress
            Called with the blocks done and to do.
        fill
            Who has the pixels of the coarser levels puts them there: called with the finest level
            and the others, which are empty, finest first. By default they are computed.
        source
            The pixels of the reference level, where nobody has written them yet: read a file's
            worth at a time, from several threads, and written in the same pass.

        Raises
        ------
        ModeError
            If the image is not open for writing.
        ExistsError
            If there are coarser levels, and `overwrite` is false; or if another writer has added
            one since this image was opened.
        InvalidInputError
            If the source has another shape or dtype than the reference level, or both it and
            `fill` are given.
        """
        store = self.verify_open_for_writing()
        base = self._levels[0]
        self._verify_source(source, fill)
        self._verify_alone(self._levels, overwrite=overwrite)
        shapes = pyramid_shapes(base.shape, max(self._layout_of(base.shape).chunk[-2:]))[1:]
        paths: list[str] = []
        removing: list[str] = []
        try:
            targets: list[Level] = []
            for index, shape in enumerate(shapes, 1):
                path = free_path(store, [*self._levels, *targets])
                layout = self._layout_of(shape)
                array = store.create_array(
                    path, shape=shape, dtype=self.dtype, layout=layout, axes=self.axes
                )
                paths.append(path)
                targets.append(replace(base, key=f"level{index}", path=path, array=array))
            if fill is None:
                labels = self.kind == "labels"
                fill_levels(
                    base, targets, labels=labels, progress=progress, threads=threads, source=source
                )
            else:
                fill(base, targets)
            with store.changing(adding=paths, removing=removing) as attributes:
                levels = self._levels_in(store, attributes)
                self._verify_alone(levels, overwrite=overwrite)
                self._verify_known(levels)
                paths[:] = [store.settle(path) for path in paths]
                removing.extend(level.path for level in levels[1:])
                remove_levels(attributes, removing)
                for index, (target, path) in enumerate(zip(targets, paths, strict=True), 1):
                    factors = [float(2**index) if axis in "yx" else 1.0 for axis in self.axes]
                    insert_level(attributes, index, key=target.key, path=path, factors=factors)
        except BaseException:
            self._forget(store, paths)
            raise
        self._levels = self._levels_in(store, attributes)

    # -- what fits

    def _verify_source(self, source: PixelArray | None, fill: object) -> None:
        if source is None:
            return
        base = self._levels[0]
        if fill is not None:
            msg = f"{self._uri}: fill= and source= exclude each other, as both have the pixels"
            raise InvalidInputError(msg)
        if (source.shape, source.dtype) != (base.shape, base.dtype):
            msg = (
                f"{self._uri}: level {base.key!r} is {base.shape} {base.dtype}, its source "
                f"{source.shape} {source.dtype}"
            )
            raise InvalidInputError(msg)

    def _verify_alone(self, levels: Sequence[Level], *, overwrite: bool) -> None:
        if len(levels) > 1 and not overwrite:
            msg = (
                f"{self._uri} has coarser levels already: {[level.key for level in levels[1:]]}; "
                "overwrite=True replaces them"
            )
            raise ExistsError(msg)

    def _verify_known(self, levels: Sequence[Level]) -> None:
        known = {level.path for level in self._levels}
        unknown = [level.key for level in levels if level.path not in known]
        if unknown:
            msg = (
                f"{self._uri}: another writer added {unknown} meanwhile, which would be lost; "
                "reopen the image to see them"
            )
            raise ExistsError(msg)

    def _levels_in(self, store: ImageStore, attributes: dict[str, Any]) -> list[Level]:
        """Return the levels that attributes name; another writer may have changed them."""
        found = read_metadata(attributes, where=self._uri).datasets
        keys = level_keys(attributes, len(found))
        known = {level.path: level.array for level in self._levels}
        return [
            Level(
                key,
                entry.path,
                known.get(entry.path) or store.open_array(entry.path),
                self.axes,
                entry.scale,
                entry.translation,
            )
            for key, entry in zip(keys, found, strict=True)
        ]

    def _shape_of(self, key: object, shape: Sequence[int]) -> tuple[int, ...]:
        return checked_shape(self._uri, key, shape, self.axes, self._levels[0].shape)

    def _factors_of(
        self, key: str, shape: Sequence[int], scale: Sequence[float] | None
    ) -> list[float]:
        return checked_factors(self._uri, key, shape, scale, self._levels[0])

    def _layout_of(self, shape: Sequence[int]) -> Layout:
        if self._layout is not None:
            return self._layout
        return default_layout(self.kind, self.axes, shape)

    @staticmethod
    def _forget(store: ImageStore, paths: Sequence[str]) -> None:
        for path in paths:
            store.forget(path)


def _pixels_of(value: object, key: str) -> PixelArray:
    if isinstance(value, Level):
        return value.array
    if isinstance(value, str | os.PathLike):
        return open_array(place_of(value))
    return MemoryArray(as_array(value, f"level {key!r}"))
