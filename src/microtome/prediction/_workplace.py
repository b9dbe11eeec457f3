"""What a run that was killed leaves behind, and the next one goes on with.

Beside `out` lies a hidden directory with the finished shards of the levels and a journal: the
settings of the run, what its model makes, and one line for each shard of the first level that is
complete. Such a shard counts when its line is there, and the line is written after the shard; those
of the coarser levels, which are made of them, count when they are there. Nothing in the directory
opens as an image.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.image import GrowingLevels, Level, blocks_of, halved_box, pyramid_shapes
from microtome.storage import (
    Box,
    StoredArray,
    create_array,
    image_layout,
    replace_file,
    storage_errors,
)

from ._canvas import Made
from ._mosaic import Unit
from ._resuming import Claim, verify_settings
from ._space import ArrayTarget

__all__ = ["Workplace"]

_VERSION = 2


class Workplace:
    """The directory of one run, held by one process.

    Parameters
    ----------
    out
        Where the result will be.
    settings
        What the result depends on; JSON.
    resume
        Whether to go on with what is there; otherwise it is removed.

    Raises
    ------
    BusyError
        If another process is at work on the same result.
    ExistsError
        If a run with other settings was left, and `resume` is true.
    StorageError
        If the disk refuses.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
        self._out = out
        self.path = out.parent / f".{out.name}.predicting"
        self._settings = json.loads(json.dumps(settings))
        self.run = uuid.uuid4().hex[:12]
        self.made: Made | None = None
        self.done: set[Unit] = set()
        self.has_levels = False
        self._log: Any = None
        self._claim = Claim(out, self.path)
        try:
            with storage_errors(out):
                self._take_up(resume=resume)
        except BaseException:
            self._claim.release()
            raise

    def begin(self, made: Made, *, axes: str, shape: tuple[int, ...]) -> ResumedTarget:
        """Return where shards go: where a run left off, or new arrays."""
        layout = image_layout(axes, shape)
        shapes = pyramid_shapes(shape, max(layout.chunk[-2:]))
        if self.made is None:
            self._clear()
            with storage_errors(self._out):
                self.path.mkdir()
            for level, size in enumerate(shapes):
                create_array(
                    self.path / str(level),
                    shape=size,
                    dtype=made.dtype,
                    layout=image_layout(axes, size),
                    axes=axes,
                )
            self.made = made
            with replace_file(self.path / "journal.json") as temporary:
                temporary.write_text(json.dumps(self._document(made), indent=1))
        arrays = [
            StoredArray(self.path / str(level), writable=True) for level in range(len(shapes))
        ]
        target = ResumedTarget(arrays, axes, len(made.shape), self)
        target.take_up()
        self.has_levels = target.has_levels
        return target

    def note(self, unit: Unit) -> None:
        """Note that a shard is complete."""
        with storage_errors(self._out):
            if self._log is None:
                self._log = (self.path / "done").open("a")
            self._log.write(" ".join(map(str, unit)) + "\n")
            self._log.flush()
        self.done.add(unit)

    def put_into(self, level: Level, number: int) -> None:
        """Make the shards also those of a level, without moving or copying where that works."""
        array = Path(str(level.array.path))  # pyright: ignore[reportAttributeAccessIssue] - made on this machine
        own = self.path / str(number)
        with storage_errors(self._out):
            for folder, _, names in os.walk(own / "c"):
                inside = array / Path(folder).relative_to(own)
                inside.mkdir(parents=True, exist_ok=True)
                # What a killed run was writing has a name that begins with a dot.
                for name in names:
                    if name[0] != ".":
                        _link(Path(folder) / name, inside / name)

    def close(self, *, keep: bool) -> None:
        """Leave the directory to the next run, if anything in it is complete, or remove it."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if not (keep and self.done):
            self._clear()
        self._claim.release()

    def _take_up(self, *, resume: bool) -> None:
        document = _read_json(self.path / "journal.json")
        if document is None or not resume or document.get("version") != _VERSION:
            self._clear()
            return
        found = cast("dict[str, Any]", document.get("settings", {}))
        verify_settings(self.path, found, self._settings)
        made = document["made"]
        self.run = document["run"]
        self.made = Made(
            made["channels"],
            np.dtype(made["dtype"]),
            tuple(Fraction(text) for text in made["scale"]),
            tuple(made["shape"]),
        )
        self.done = _read_done(self.path / "done", len(self.made.shape) + 1)

    def _document(self, made: Made) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "run": self.run,
            "settings": self._settings,
            "made": {
                "channels": made.channels,
                "dtype": made.dtype.name,
                "scale": [str(factor) for factor in made.scale],
                "shape": list(made.shape),
            },
        }

    def _clear(self) -> None:
        self.made = None
        self.done = set()
        with contextlib.suppress(OSError):
            # Without its journal, what is half removed is nothing that a run goes on with.
            (self.path / "journal.json").unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


class ResumedTarget(ArrayTarget):
    """An array whose finished shards are noted, and not written again; coarser levels grow with it.

    Parameters
    ----------
    arrays
        The level that the units of a picture are written to, and the coarser ones.
    axes
        Their axes.
    rank
        Spatial axes of a unit.
    place
        Where finished shards are noted.
    """

    def __init__(
        self, arrays: Sequence[StoredArray], axes: str, rank: int, place: Workplace
    ) -> None:
        super().__init__(arrays[0], axes, rank)
        self._place = place
        self._coarser = [ArrayTarget(array, axes, rank) for array in arrays[1:]]
        self._levels: GrowingLevels | None = None
        if GrowingLevels.can_grow(arrays[0], arrays[1:]):
            self._levels = GrowingLevels(
                arrays[1:], lambda level, box, pixels: self._coarser[level].put(box, pixels)
            )

    @property
    def has_levels(self) -> bool:
        """Whether the coarser levels are complete when the first one is."""
        return self._levels is not None

    def is_done(self, unit: Unit, /) -> bool:
        """Whether a shard was complete before."""
        return unit in self._place.done

    def write(self, unit: Unit, box: Box, pixels: NDArray[Any], /) -> None:
        """Write a shard and note it, and write what it completes of the coarser levels."""
        super().write(unit, box, pixels)
        self._place.note(unit)
        if self._levels is not None:
            whole = self.whole(unit, box)
            self._levels.add(whole, pixels.reshape([stop - start for start, stop in whole]))

    def take_up(self) -> None:
        """Read again what coarser levels are made of that were not complete when a run ended."""
        if self._levels is None:
            return
        targets: list[ArrayTarget] = [self, *self._coarser]
        # All of them first: files that are made from here on go up by themselves.
        done = [self._done_boxes(level, target) for level, target in enumerate(targets)]
        for level in range(len(targets) - 1, 0, -1):
            for box in done[level - 1]:
                if not targets[level].is_there(halved_box(box)):
                    self._levels.add(box, targets[level - 1].array.read(box), level - 1)

    def _done_boxes(self, level: int, target: ArrayTarget) -> list[Box]:
        array = target.array
        boxes = list(blocks_of(array.shape, array.write_unit))
        if level:
            return [box for box in boxes if target.is_there(box)]
        units = {self.whole(unit, self._box(unit)) for unit in self._place.done}
        return [box for box in boxes if box in units]

    def _box(self, unit: Unit) -> Box:
        """Return the box of a unit in its picture, (C, (Z), Y, X)."""
        sizes = dict(zip(self.axes, self.array.shape, strict=True))
        spans = [
            (number * step, min((number + 1) * step, sizes[axis]))
            for number, step, axis in zip(unit[1:], self.unit, "zyx"[-self.rank :], strict=True)
        ]
        return ((0, sizes["c"]), *spans)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _read_done(path: Path, length: int) -> set[Unit]:
    """Return the shards that are noted; the last line may have been cut short."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return set()
    whole = text[: text.rfind("\n") + 1]
    lines = (tuple(map(int, line.split())) for line in whole.splitlines())
    return {line for line in lines if len(line) == length}


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
