"""What models predicted on a tissue, drawn over the slide that they saw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from microtome.cohort import Modality
from microtome.image import MultiscaleImage

from ._figures import plot_heatmap
from ._heat import Heat, heat_on
from ._inventory import Inventory, Missing, Tissue, attempt
from ._pictures import Picture, photograph_of, picture_of_pixels
from ._thumbnails import Thumbnail, frame_of

__all__ = [
    "SIZE_OF_MANY",
    "Found",
    "HeatPicture",
    "PredictionBlock",
    "find_predictions",
    "prediction_block",
]

SIZE_OF_MANY = 560
"""Pixels of a picture, where a page has very many."""
_SIZE = 1000
_SMALL, _SMALL_OF_MANY = 360, 200
# A model of fifty classes would bury the slides under small pictures.
_MOST_SMALL, _MOST_SMALL_OF_MANY = 12, 4


@dataclass(frozen=True, slots=True)
class Found:
    """A prediction in the cohort."""

    model: str
    image: MultiscaleImage | Missing
    source: Modality | None
    """Which image of the tissue it was made from; None where that is not known."""


@dataclass(frozen=True, slots=True)
class HeatPicture:
    """A channel of a prediction."""

    channel: str
    picture: Picture
    low: float
    high: float
    flat: bool
    """Whether there is one value everywhere."""

    @classmethod
    def of(cls, channel: str, heat: Heat, picture: Picture) -> HeatPicture:
        """Note what a picture's colours mean."""
        finite = heat.values[np.isfinite(heat.values)]
        flat = bool(finite.size) and bool((finite == finite[0]).all())
        return cls(channel, picture, float(finite[0]) if flat else heat.low, heat.high, flat)


@dataclass(frozen=True, slots=True)
class PredictionBlock:
    """What one model predicted on a slide."""

    model: str
    mpp: str
    """Pixel width in micrometres."""
    main: HeatPicture
    """The last channel, over the slide."""
    others: tuple[HeatPicture, ...]
    left_out: int
    """Channels that are not shown."""


def find_predictions(inventory: Inventory, tissue: Tissue) -> list[Found]:
    """Return what was predicted on a tissue, by model."""
    found: list[Found] = []
    for model in inventory.models[tissue.resolution]:
        directory = inventory.layout.predictions(tissue.resolution, model)
        path = directory / f"{tissue.tissue_id}.ome.zarr"
        if path.exists():
            image = attempt(f"prediction {path}", lambda p=path: MultiscaleImage.open(p))
            source = None if isinstance(image, Missing) else _source_of(inventory, tissue, image)
            found.append(Found(model, image, source))
    return found


def prediction_block(
    found: Found,
    tissue: Tissue,
    image: MultiscaleImage,
    slide: Thumbnail,
    *,
    compact: bool = False,
) -> PredictionBlock | Missing:
    """Draw a prediction at its place on a slide.

    Parameters
    ----------
    found
        The prediction.
    tissue
        Whose it is.
    image, slide
        The image that it lies on, and its picture.
    compact
        Whether it is one of very many: pictures are smaller, and fewer.
    """
    if isinstance(found.image, Missing):
        return found.image
    prediction = found.image
    names = prediction.channel_names or ("prediction",)
    heat = heat_on(slide, prediction, -1)
    what = f"{tissue.tissue_id}: {{}} predicted by {found.model}"
    alt = f"{what.format(names[-1])}, over the slide in grey; {_range(heat)}."
    main = photograph_of(
        plot_heatmap(slide, heat, colorbar=False, size=SIZE_OF_MANY if compact else _SIZE), alt
    )
    frame = frame_of(image, _SMALL_OF_MANY if compact else _SMALL)
    most = _MOST_SMALL_OF_MANY if compact else _MOST_SMALL
    others: list[HeatPicture] = []
    for index, name in enumerate(names[:-1][:most]):
        small = heat_on(frame, prediction, index, blend=False)
        picture = picture_of_pixels(small.rgba, f"{what.format(name)}; {_range(small)}.")
        others.append(HeatPicture.of(name, small, picture))
    return PredictionBlock(
        found.model,
        f"{prediction.require_mpp().x:g}",
        HeatPicture.of(names[-1], heat, main),
        tuple(others),
        len(names) - 1 - len(others),
    )


def _source_of(inventory: Inventory, tissue: Tissue, image: MultiscaleImage) -> Modality | None:
    note = image.metadata.get("microtome", {}).get("prediction", {})
    source = PurePath(str(note.get("source", "")))
    for modality in tissue.modalities:
        path = inventory.layout.image(modality, tissue.resolution, tissue.tissue_id)
        inside = path.relative_to(inventory.layout.root).parts
        # The cohort may have been moved since: what counts is the place inside it.
        if source.parts[-len(inside) :] == inside:
            return modality
    return None


def _range(heat: Heat) -> str:
    return f"colours from {heat.low:.3g} to {heat.high:.3g}"
