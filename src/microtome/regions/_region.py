"""`ImageRegionData`: pixels, and exactly where they came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

from microtome.errors import InvalidInputError

__all__ = ["ImageRegionData", "PatchSpecs", "RegionSpecs", "TileSpecs"]


class PatchSpecs(TypedDict):
    """Where a training window lies; names and fields are those of CAREamics.

    Collated, every value is a sequence of length B.
    """

    data_idx: int
    """Which image."""
    sample_idx: int
    """Which sample of it: time points and series are merged into one axis, S."""
    coords: Sequence[int]
    """First pixel along (Z)YX; may be negative where the window hangs over the edge."""
    patch_size: Sequence[int]
    """Size along (Z)YX."""


class TileSpecs(PatchSpecs):
    """Where a prediction window lies, and which part of it is kept."""

    crop_coords: Sequence[int]
    """First kept pixel, relative to the tile."""
    crop_size: Sequence[int]
    """Size of the kept part."""
    stitch_coords: Sequence[int]
    """Where the kept part goes, in the image."""
    total_tiles: int
    """Number of tiles of this image, over all its samples."""


RegionSpecs = TypeVar("RegionSpecs", bound=PatchSpecs)


class ImageRegionData(NamedTuple, Generic[RegionSpecs]):
    """A patch, a tile or a whole image on its way to a model, and back.

    Each field is described for one region; collated into a batch by `collate_regions`, `data`
    gains a first axis of length B, the shapes become one tuple of length B a dimension,
    `region_spec` a dict of sequences of length B, and every other field a list of length B.
    """

    data: Any
    """Pixels, C(Z)YX; collated B C (Z) Y X. numpy, or a torch tensor from the loader."""

    source: str | Sequence[str]
    """Path of the image, or ``"array"``."""

    data_shape: Sequence[Any]
    """Shape of the level in SC(Z)YX, with the channels that were asked for."""

    dtype: str | Sequence[str]
    """Type of the stored pixels."""

    axes: str | Sequence[str]
    """Axes of the stored array."""

    original_data_shape: Sequence[Any]
    """Shape of the stored array, in the order of `axes`."""

    region_spec: RegionSpecs
    """Where the window lies."""

    additional_metadata: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    """What else is known: `level`, `mpp`, `channel_names`, `chunks`, `shards`; of an image
    whose pixels are measured `origin`, the place of its corner along (Z)YX in micrometres, and with
    planes their `z_spacing`; from a cohort `tissue_id` and `tile_id`; of what was done to the
    pixels `augmentation` and `normalization`."""

    @staticmethod
    def from_model_output(region: ImageRegionData[Any], data: Any) -> ImageRegionData[Any]:
        """Return what a model made of a region, or of a batch, as a region of the same place.

        Parameters
        ----------
        region
            What the model was given; it stays as it is.
        data
            The model's answer, C(Z)YX of any number of channels and any size; B C (Z) Y X where the
            region is a batch.

        Returns
        -------
        The same region with other pixels: `dtype` and `data_shape` still tell of the source.

        Raises
        ------
        InvalidInputError
            If the answer to a batch is of another length.
        """
        if not isinstance(region.source, str):
            shape = tuple(getattr(data, "shape", ()))
            if shape[:1] != (len(region.source),):
                msg = f"a batch of {len(region.source)} regions was answered with data of shape {shape}"
                raise InvalidInputError(msg)
        return region._replace(data=data)
