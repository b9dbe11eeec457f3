"""`undo`: patches, or what a model made of them, as if they had not been augmented."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from microtome.errors import InvalidInputError
from microtome.regions import ImageRegionData, collate_regions, decollate_regions

from ._augmentation import Augmentation
from ._dihedral import DihedralAugmentation
from ._intensity import ChannelDropout, IntensityJitter

__all__ = ["undo"]

_KNOWN: tuple[Augmentation, ...] = (DihedralAugmentation(), IntensityJitter(), ChannelDropout())
_KEY = "augmentation"


def undo(
    region: ImageRegionData[Any],
    *,
    geometry_only: bool = False,
    augmentations: Sequence[Augmentation] = (),
) -> ImageRegionData[Any]:
    """Take back what was done to a patch, by its record, the last first.

    Parameters
    ----------
    region
        A patch, or a batch of them; or a model's answer to one
        (`ImageRegionData.from_model_output`), of any number of channels and any size.
    geometry_only
        Whether only turns and mirror images are taken back, as for a model's answer: its intensity
        was never changed.
    augmentations
        Those of one's own, found by their names.

    Returns
    -------
    The same with its pixels as they were; what was taken back is in the record no more. Channels
    that were left out stay so.

    Raises
    ------
    InvalidInputError
        If the record names an augmentation that is not known here, or that has no way back.

    Examples
    --------
    >>> import numpy as np
    >>> patch = np.arange(4.0).reshape(1, 2, 2)
    >>> turned = DihedralAugmentation().apply(patch, 5)
    >>> region = ImageRegionData(
    ...     turned,
    ...     "array",
    ...     (1, 1, 2, 2),
    ...     "float64",
    ...     "CYX",
    ...     (1, 2, 2),
    ...     {"data_idx": 0, "sample_idx": 0, "coords": (0, 0), "patch_size": (2, 2)},
    ...     {"augmentation": {"dihedral": 5}},
    ... )
    >>> bool((undo(region).data == patch).all())
    True
    """
    if not isinstance(region.source, str):
        parts = decollate_regions(region)
        return collate_regions(
            [undo(p, geometry_only=geometry_only, augmentations=augmentations) for p in parts]
        )
    metadata = cast("Mapping[str, Any]", region.additional_metadata)
    record: dict[str, Any] = dict(metadata.get(_KEY) or {})
    named = {each.name: each for each in (*_KNOWN, *augmentations)}
    data = region.data
    for name in reversed(list(record)):
        augmentation = named.get(name)
        if augmentation is None:
            if geometry_only:
                continue
            msg = (
                f"the patch was changed by {name!r}, which is not known; give it in augmentations="
            )
            raise InvalidInputError(msg)
        if geometry_only and not augmentation.geometric:
            continue
        data = augmentation.undo(data, record.pop(name))
    return region._replace(data=data, additional_metadata={**metadata, _KEY: record})
