"""Statistics of a cohort's channels on disk, as SPORA lays them out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, get_args

from microtome.errors import (
    FormatError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
)
from microtome.storage import path_to_read, replace_file

from ._channel_statistics import ChannelStatistics, StatisticsTable
from ._files import StoredTable, read_note, read_table, write_table
from ._spec import Level

__all__ = ["StatisticsTables"]

# The file whose note is looked at.
_FIRST = {"quantiles": "upper_quantiles", "moments": "means"}
# Where a manifest keeps what was said of the means of the other level.
_OTHER = "other_level"


@dataclass(frozen=True, slots=True, eq=False)
class StatisticsTables:
    """All statistics of one standardization of a modality: a directory of parquet files.

    The files are, where used, `{image|global}_level_upper_quantiles.parquet` and
    `..._lower_quantiles`, and where computed `..._means` and `..._stds`.

    Raises
    ------
    InvalidInputError
        If there are neither upper quantiles nor means, the lower quantiles have another level than
        the upper ones or come without them, or the means have another level than the standard
        deviations or come without them.
    """

    upper: StatisticsTable | None = None
    """None for a method that needs no quantiles, such as `arcsinh`."""
    lower: StatisticsTable | None = None
    means: StatisticsTable | None = None
    stds: StatisticsTable | None = None
    fitted_on: tuple[str, ...] = ()
    """Tissues whose pixels were counted; empty where the files do not say."""
    split: str | None = None
    """Split of the cohort that these were; None for all of it, or where the files do not say."""

    def __post_init__(self) -> None:
        if self.upper is None and (self.lower is not None or self.means is None):
            raise InvalidInputError(
                "statistics are upper quantiles, means with deviations, or both"
            )
        if self.lower is not None and self.upper is not None:
            levels = self.lower.level, self.upper.level
            if levels[0] != levels[1]:
                raise InvalidInputError(f"lower quantiles are {levels[0]}, upper ones {levels[1]}")
        if (self.means is None) != (self.stds is None):
            raise InvalidInputError("means and standard deviations come together or not at all")
        means, stds = self.means, self.stds
        if means is not None and stds is not None and means.level != stds.level:
            raise InvalidInputError(f"means are {means.level}, standard deviations {stds.level}")

    def for_tissue(self, tissue_id: str | None, channel_names: Sequence[str]) -> ChannelStatistics:
        """Statistics of some channels of one tissue.

        Parameters
        ----------
        tissue_id
            May be None where all tables are global.
        channel_names
            In the order in which they are wanted.

        Raises
        ------
        UnknownNameError
            If the tissue or a channel is not in a table.
        """
        tables = (self.upper, self.lower, self.means, self.stds)
        return ChannelStatistics(
            tuple(channel_names),
            *(None if table is None else table.row(tissue_id, channel_names) for table in tables),
        )

    @classmethod
    def read(
        cls,
        directory: str | os.PathLike[str],
        *,
        quantile_level: Level | None = None,
        stats_level: Level | None = None,
    ) -> Self:
        """Read a directory, ours or of a SPORA dataset.

        Parameters
        ----------
        directory
            `<modality>/<resolution>/standardization/<method>/<quantiles>`.
        quantile_level, stats_level
            Level of the quantiles, and of the means and standard deviations; needed only where the
            directory has both.

        Raises
        ------
        NotFoundError
            If there are no upper quantiles, nor means that say that they need none.
        FormatError
            If a file is damaged, or files of ours are of different runs.
        InvalidInputError
            If both levels are there and none is chosen.
        """
        path = path_to_read(directory)
        found: dict[str, StoredTable] = {}
        quantiles = _choose_level(path, "upper_quantiles", quantile_level, "quantile_level")
        if quantiles is not None:
            upper, lower = (
                _file(path, quantiles, f"{end}_quantiles") for end in ("upper", "lower")
            )
            found["upper_quantiles"] = read_table(upper, quantiles)
            if lower.exists():
                found["lower_quantiles"] = read_table(lower, quantiles)
        level = _choose_level(path, "means", stats_level, "stats_level")
        if level is not None:
            for name in ("means", "stds"):
                found[name] = read_table(_file(path, level, name), level)
        if quantiles is None and not (
            # Of a run that was interrupted the means are there and the quantiles are not.
            "means" in found and found["means"].note.get("quantiles") == _digest(None, None)
        ):
            raise NotFoundError(f"{path} has no upper quantiles; compute the statistics first")
        _refuse_mixed(path, found)
        tables = {
            name: StatisticsTable(stored.channel_names, stored.values, stored.tissue_ids)
            for name, stored in found.items()
        }
        # Quantiles of each image by itself are shared by means that were fitted on other splits.
        note = found["means" if "means" in found else "upper_quantiles"].note
        # What a damaged file notes may be anything.
        fitted, split = note.get("fitted_on"), note.get("split")
        return cls(
            tables.get("upper_quantiles"),
            tables.get("lower_quantiles"),
            tables.get("means"),
            tables.get("stds"),
            tuple(map(str, fitted)) if isinstance(fitted, list) else (),
            split if isinstance(split, str) else None,
        )

    @staticmethod
    def levels_of_means(directory: Path) -> tuple[Level, ...]:
        """Return the levels of which a directory has means and standard deviations."""
        return _levels(directory, "means")

    @staticmethod
    def manifest(
        directory: str | os.PathLike[str], *, stats_level: Level | None = None
    ) -> tuple[dict[str, Any], bool]:
        """Return what was written for people beside the files, and whether it is of these files.

        Parameters
        ----------
        directory
            Of the files.
        stats_level
            Of which means and standard deviations; by default of those that were written last.

        Returns
        -------
        The content of `manifest.json`, empty where there is none or it says nothing of that level;
        and whether every file that it speaks of is of the same run, which they are not after one
        that was killed.
        """
        path = path_to_read(directory)
        try:
            found = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            if stats_level is not None and found["stats_level"] != stats_level:
                found = found.get(_OTHER) or _noted_by_older(path, found, stats_level)
            levels = {"quantiles": found["quantile_level"], "moments": found["stats_level"]}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}, False
        try:
            said = [
                read_note(_file(path, level, _FIRST[key])).get(key) == found.get(key)
                for key, level in levels.items()
                if level is not None
            ]
            if None not in levels.values():
                # Quantiles that were written with means of the other level may be others by now.
                of = read_note(_file(path, levels["moments"], _FIRST["moments"])).get("quantiles")
                said.append(of == found.get("quantiles"))
        except (MicrotomeError, AttributeError):
            return found, False
        return found, bool(said) and all(said)

    def write(
        self, directory: str | os.PathLike[str], *, manifest: Mapping[str, Any] | None = None
    ) -> None:
        """Write the files, each in one step, replacing those that are there.

        The upper quantiles, without which nothing reads the directory, come last (where there are
        none, the means do); and every file carries a digest of the quantiles it belongs to. A run
        that is killed leaves either nothing that opens or files that `read` refuses as being of
        different runs.

        Parameters
        ----------
        directory
            Where.
        manifest
            What is written beside them for people, as `manifest.json`: what the numbers were
            fitted on. The digests are added, by which it can be told to be of these files. What it
            said of means of the other level, whose files stay, is kept in it as `other_level`.

        Raises
        ------
        StorageError
            If the disk refuses.
        """
        path = Path(directory)
        note = {
            "quantiles": _digest(self.upper, self.lower),
            "fitted_on": list(self.fitted_on),
            "split": self.split,
        }
        moments = {**note, "moments": _digest(self.means, self.stds)}
        if self.lower is None and self.upper is not None:
            # One left from an earlier run would be taken for a part of this one.
            _file(path, self.upper.level, "lower_quantiles").unlink(missing_ok=True)
        if manifest is not None:
            other = _said_of_other_level(path, manifest)
            with replace_file(path / "manifest.json") as temporary:
                temporary.write_text(
                    json.dumps({**manifest, **moments, **other}, indent=2) + "\n", encoding="utf-8"
                )
        for name, table, notes in (
            ("stds", self.stds, moments),
            ("means", self.means, moments),
            ("lower_quantiles", self.lower, note),
            ("upper_quantiles", self.upper, note),
        ):
            if table is not None:
                stored = StoredTable(table.channel_names, table.values, table.tissue_ids, notes)
                write_table(stored, _file(path, table.level, name))


def _said_of_other_level(directory: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest that is there says of means of the other level than the new one's."""
    level = manifest.get("stats_level")
    if level not in get_args(Level):
        return {}
    other: Level = "image" if level == "global" else "global"
    said, _ = StatisticsTables.manifest(directory, stats_level=other)
    kept = {name: value for name, value in said.items() if name != _OTHER}
    return {_OTHER: kept} if kept and _file(directory, other, "means").exists() else {}


def _noted_by_older(directory: Path, said: dict[str, Any], level: Level) -> dict[str, Any]:
    """What means of ours are of where a manifest of other ones took the place of theirs.

    So did older versions, where both levels were computed. The files name the split themselves, and
    the rest is that of the other level; what their numbers were made of is not known any more.
    """
    try:
        note = read_note(_file(directory, level, "means"))
    except MicrotomeError:
        return {}
    if "moments" not in note:
        return {}
    return {**said, "stats_level": level, "split": note.get("split"), "tissues": {}}


def _file(directory: Path, level: Level, name: str) -> Path:
    return directory / f"{level}_level_{name}.parquet"


def _levels(directory: Path, name: str) -> tuple[Level, ...]:
    levels: tuple[Level, ...] = get_args(Level)
    return tuple(level for level in levels if _file(directory, level, name).exists())


def _choose_level(directory: Path, name: str, level: Level | None, option: str) -> Level | None:
    """Level of which there are files; None if there are none and none is asked for."""
    if level is not None and level not in get_args(Level):
        raise InvalidInputError(f"{option} must be 'image' or 'global', got {level!r}")
    found: list[Level] = [each for each in _levels(directory, name) if level in (None, each)]
    if level is not None and not found:
        raise NotFoundError(f"{_file(directory, level, name)} does not exist")
    if len(found) > 1:
        raise InvalidInputError(
            f"{directory} has {name} of both levels; choose one by {option}='image' or 'global'"
        )
    return found[0] if found else None


def _digest(*tables: StatisticsTable | None) -> str:
    """What tells two sets of numbers apart."""
    digest = hashlib.sha256()
    for table in tables:
        if table is not None:
            names = [table.channel_names, table.tissue_ids]
            digest.update(json.dumps(names).encode() + table.values.tobytes())
        digest.update(b"|")
    return digest.hexdigest()[:16]


def _refuse_mixed(directory: Path, found: Mapping[str, StoredTable]) -> None:
    for key in ("quantiles", "moments"):
        # As text: what a damaged file states may be anything.
        stated = {name: str(table.note[key]) for name, table in found.items() if key in table.note}
        if len(set(stated.values())) > 1:
            raise FormatError(
                f"{directory} has files of different runs ({', '.join(stated)}), perhaps of one "
                "that was interrupted or made one level of means anew and not the other; compute "
                "the statistics again"
            )
