"""A batch of whatever kind on another device: its tensors move, what is known of them stays."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from microtome.regions import ImageRegionData

if TYPE_CHECKING:
    import torch

__all__ = ["moved"]


def moved(value: Any, device: torch.device) -> Any:
    """Return a batch, or a part of one, with its tensors on a device.

    Parameters
    ----------
    value
        An `ImageRegionData`, a `PanelBatch`, a `MultimodalBatch`, samples of a composed dataset or of
        several cohorts, or tuples, lists and dictionaries of these.
    device
        Where to.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, ImageRegionData):
        region = cast("ImageRegionData[Any]", value)
        return region._replace(data=moved(region.data, device))
    if isinstance(value, dict):
        held = cast("dict[Any, Any]", value)
        return {key: moved(each, device) for key, each in held.items()}
    if isinstance(value, list | tuple):
        parts = [moved(each, device) for each in cast("list[Any]", value)]
        kind: Any = type(cast("Any", value))
        # A named tuple takes its parts one by one.
        return getattr(kind, "_make", kind)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        found = {name: moved(each, device) for name, each in own.items()}
        changed = {name: each for name, each in found.items() if each is not own[name]}
        return replace(cast("Any", value), **changed) if changed else value
    return value
