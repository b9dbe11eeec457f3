"""What a model sees of a cohort's images: the same standardized pixels as those it was trained on."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from microtome.cohort import CohortLayout, Modality, MultiplexImagingDataset, note_statistics
from microtome.coordinates import Resolution
from microtome.errors import InvalidInputError, MicrotomeError
from microtome.image import Channels, MultiscaleImage, channel_indices
from microtome.normalization import Normalization, load_normalization
from microtome.standardize import (
    MEAN_STD,
    Level,
    RgbStandardizer,
    Standardizer,
    StatisticsTables,
)

from ._model import Preprocess, model_name

__all__ = [
    "STORED",
    "CohortInput",
    "Standardization",
    "chosen_standardization",
    "preprocess_of",
    "verify_kind",
    "verify_modalities",
]

_log = logging.getLogger(__name__)

STORED = "stored"
"""Nothing is done: the values of the file."""

Standardization = str | os.PathLike[str] | Normalization
"""A preset of brightfield, the path of a cohort's statistics, `STORED`; or a normalization, or the
``.json`` file of one."""

_KINDS = {"brightfield": "H&E and IHC", "multiplex": "multiplex images"}
_COLOURS = {("red", "green", "blue"), ("r", "g", "b")}
# What writers call channels that nobody named.
_SAYS_NOTHING = re.compile(r"(c|ch|chan|channel|band)?[ :_-]*\d*([ :_-]+\d+)*", re.IGNORECASE)
# Of any number of channels these are told.
_NAMED = 5
# What a dataset of brightfield does if nobody says otherwise.
_BRIGHTFIELD = "imagenet"


@dataclass(frozen=True, slots=True)
class CohortInput:
    """How stored pixels of a cohort become a model's input.

    Parameters
    ----------
    layout, resolution
        The cohort.
    channels
        Channels that the model sees, by name; None for all.
    standardization
        What is done to them; None and `STORED` are nothing.
    preprocess
        A function instead.
    stats_level
        Level of the means and standard deviations, where a cohort has both.

    Raises
    ------
    InvalidInputError
        If there are both.
    """

    layout: CohortLayout
    resolution: Resolution
    channels: Sequence[str] | None
    standardization: Standardization | None
    preprocess: Preprocess | None
    stats_level: Level | None = None

    def __post_init__(self) -> None:
        if self.preprocess is not None and self.standardization not in (None, STORED):
            msg = f"standardization={self.standardization!r} and preprocess= both make the model's input; give one of them"
            raise InvalidInputError(msg)

    def of(
        self, modality: Modality, tissues: Sequence[str]
    ) -> tuple[dict[str, dict[str, Any]], dict[str, MicrotomeError]]:
        """Return the options `channels` and `preprocess` of `predict` for tissues of a modality.

        Returns
        -------
        The options of each tissue, and of those that have none why: they lack a channel, or
        statistics of any.

        Raises
        ------
        InvalidInputError
            If the modality has no such standardization.
        NotFoundError
            If there are no statistics, or there is no file of a normalization.
        """
        given = self.standardization
        if given is None or given == STORED:
            options = {"channels": self.channels, "preprocess": self.preprocess}
            return dict.fromkeys(tissues, options), {}
        normalization = _normalization(given)
        if normalization is not None:
            options = {"channels": self.channels, "preprocess": normalization.normalize}
            return dict.fromkeys(tissues, options), {}
        if modality.kind == "brightfield":
            options = {"channels": self.channels, "preprocess": _preset(given, modality)}
            return dict.fromkeys(tissues, options), {}
        dataset = MultiplexImagingDataset(
            self.layout.root.name,
            modality,
            path=self.layout.root,
            resolution=self.resolution,
            standardization=str(given),
            channels=self.channels,
            stats_level=self.stats_level,
        )
        found: dict[str, dict[str, Any]] = {}
        lacking: dict[str, MicrotomeError] = {}
        for tissue in tissues:
            try:
                standardizer = dataset.get_standardizer(tissue)
            except MicrotomeError as error:
                lacking[tissue] = error
                continue
            # As in a batch of the dataset, without those that have no statistics.
            found[tissue] = {
                "channels": list(standardizer.channel_names),
                "preprocess": standardizer,
            }
        return found, lacking

    def noted(self, modality: Modality, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a prediction notes of the cohort's statistics, where its input is made by them.

        Parameters
        ----------
        modality
            Of the image.
        options
            What `of` gave for its tissue.
        """
        standardizer = options.get("preprocess")
        given = self.standardization
        if (
            not isinstance(standardizer, Standardizer)
            or given in (None, STORED)
            or modality.kind == "brightfield"
        ):
            return {}
        return note_statistics(
            standardizer.spec, standardizer.statistics, stats_level=self._level_of_means(modality)
        )

    def _level_of_means(self, modality: Modality) -> Level | None:
        """Return the level that was asked for, or the only one that there is."""
        place = self.layout.standardization(modality, self.resolution) / str(self.standardization)
        there = StatisticsTables.levels_of_means(place)
        return self.stats_level or (there[0] if len(there) == 1 else None)

    def of_tiles(self) -> tuple[str, Preprocess | None]:
        """Return the preset that a dataset of brightfield tiles has, and what is done after it."""
        given = self.standardization
        if given is None or given == STORED:
            return "raw", self.preprocess
        normalization = _normalization(given)
        if normalization is not None:
            return "raw", normalization.normalize
        return str(given), None


def preprocess_of(
    standardization: Standardization | None, *, model: Any = None
) -> Preprocess | None:
    """Return what makes a model's input of one image's stored pixels.

    Parameters
    ----------
    standardization
        A preset of brightfield, a normalization or the ``.json`` file of one; ``"stored"`` is nothing.
    model
        Where nothing is asked for, what it says in its attribute `standardization`.

    Raises
    ------
    InvalidInputError
        If it is none of these: the statistics of a cohort are of its images alone.
    NotFoundError, FormatError
        If there is no such file, or it is no normalization.
    """
    chosen = _own(model) if standardization is None else standardization
    if chosen is None or chosen == STORED:
        return None
    normalization = _normalization(chosen)
    if normalization is not None:
        return normalization.normalize
    return _preset(chosen, "an image by itself")


def chosen_standardization(
    model: Any, given: Standardization | None, *, preprocess: Any, modalities: Sequence[Modality]
) -> Standardization | None:
    """Return what is done to pixels: what is asked for, else what the model says of itself.

    Where neither says it of a torch module, which was most likely trained on batches of a dataset and
    these are standardized, that is told, and nothing is done.

    Parameters
    ----------
    model
        The model; its attribute `standardization` says what it was trained on.
    given
        What is asked for.
    preprocess
        A function that is asked for instead.
    modalities
        Of the images.
    """
    own = _own(model)
    if preprocess is not None:
        return given
    if given is not None:
        if own is not None and own != given:
            _log.warning(
                "%s says that it was trained with the standardization %r, and is shown pixels with %r",
                model_name(model),
                own,
                given,
            )
        return given
    if own is None and _is_module(model):
        brightfield = any(modality.kind == "brightfield" for modality in modalities)
        example = _BRIGHTFIELD if brightfield else "quantile_clipping/uq_0.99_image"
        what = f"give {_BRIGHTFIELD!r} unless told otherwise" if brightfield else "are standardized"
        _log.warning(
            "%s sees pixels as they are stored, and batches of a cohort's dataset %s: say what it was "
            "trained on with standardization=%r (--standardization), or %r if it was these",
            model_name(model),
            what,
            example,
            STORED,
        )
    return own


def verify_modalities(model: Any, modalities: Sequence[Modality]) -> None:
    """Refuse images of a kind that a model says it is not for, though it might take their number.

    Three channels of fluorescence are no red, green and blue: a model of stains answers all the same.

    Parameters
    ----------
    model
        The model; its attribute `modality_kind`, ``"brightfield"`` or ``"multiplex"``, says what it
        is for. One without it takes any.
    modalities
        Of the images.

    Raises
    ------
    InvalidInputError
        If one of these is of the other kind.
    """
    kind = getattr(_inner(model), "modality_kind", None)
    others = [str(modality) for modality in modalities if modality.kind != kind]
    if isinstance(kind, str) and others:
        msg = (
            f"{model_name(_inner(model))} is for {_KINDS.get(kind, kind)}, and the images are "
            f"{', '.join(others)}: give a model of these (--model), or another modality (--modality, "
            "modality=)"
        )
        raise InvalidInputError(msg)


def verify_kind(model: Any, image: MultiscaleImage, channels: Channels | None) -> None:
    """Refuse an image whose channels say that it is of a kind that a model says it is not for.

    Of an image by itself nobody says which modality it is; but three channels that are called DAPI,
    FITC and Cy3 are no red, green and blue. Names that say nothing are taken for either.

    Parameters
    ----------
    model
        As for `verify_modalities`.
    image
        The image.
    channels
        Those that the model sees; None for all.

    Raises
    ------
    InvalidInputError
        If it is of the other kind.
    """
    kind = getattr(_inner(model), "modality_kind", None)
    if kind not in _KINDS or not image.channel_names:
        return
    chosen = channel_indices(channels, image.channel_names, image.nchannels)
    names = [image.channel_names[index] for index in chosen]
    colours = tuple(name.lower() for name in names) in _COLOURS
    telling = not all(_SAYS_NOTHING.fullmatch(name) for name in names)
    what = model_name(_inner(model))
    if kind == "multiplex":
        if colours and image.dtype == np.uint8:
            msg = f"{what} is for {_KINDS[kind]}, and {image.uri} is red, green and blue: give a model of these (--model)"
            raise InvalidInputError(msg)
    elif telling and not colours:
        msg = (
            f"{what} is for {_KINDS[kind]}, in red, green and blue, and would see the channels "
            f"{', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''} of {image.uri}: give a "
            "model of these (--model)"
        )
        raise InvalidInputError(msg)
    elif image.dtype != np.uint8:
        _log.warning(
            "%s is for %s, which have values from 0 to 255, and %s has %s",
            what,
            _KINDS[kind],
            image.uri,
            image.dtype,
        )


def _normalization(given: Standardization) -> Normalization | None:
    if isinstance(given, str | os.PathLike):
        return load_normalization(given) if Path(given).suffix == ".json" else None
    return given


def _preset(given: Any, what: object) -> RgbStandardizer:
    if given not in MEAN_STD:
        msg = f"{what} has the standardizations {', '.join([STORED, *MEAN_STD])}, or a normalization (.json); got {given!r}"
        raise InvalidInputError(msg)
    return RgbStandardizer.preset(given)


def _inner(model: Any) -> Any:
    """Return the model that ours runs, as for its turns and mirror images."""
    while callable(getattr(model, "microtome_on", None)):
        model = model.model
    return model


def _own(model: Any) -> Standardization | None:
    said = getattr(_inner(model), "standardization", None)
    return said if isinstance(said, str | os.PathLike | Normalization) else None


def _is_module(model: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(_inner(model), torch.nn.Module)
