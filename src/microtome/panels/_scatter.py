"""Planes of one panel put in the places that another order of channels has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

__all__ = ["scatter_planes"]


@overload
def scatter_planes(
    planes: NDArray[Any], source: NDArray[np.int64], fill: float
) -> tuple[NDArray[Any], NDArray[np.bool_]]: ...
@overload
def scatter_planes(
    planes: torch.Tensor, source: NDArray[np.int64], fill: float
) -> tuple[torch.Tensor, torch.Tensor]: ...
def scatter_planes(planes: Any, source: NDArray[np.int64], fill: float) -> Any:
    """Return planes in another order of channels, and which of its channels there are.

    Parameters
    ----------
    planes
        Array or tensor of shape (..., C, Y, X).
    source
        For each channel wanted the plane that it is, -1 where there is none, shape (K,).
    fill
        Value of the planes that are not there.

    Returns
    -------
    The planes, (..., K, Y, X), and a boolean mask (..., K); tensors, on the same device, for a tensor.
    """
    mask = source >= 0
    if isinstance(planes, np.ndarray):
        return _scatter_array(planes, source, mask, fill)
    return _scatter_tensor(planes, source, mask, fill)


def _scatter_array(
    planes: NDArray[Any], source: NDArray[np.int64], mask: NDArray[np.bool_], fill: float
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    *batch, _, height, width = planes.shape
    _verify_fill(fill, planes.dtype, is_float=planes.dtype.kind in "fc")
    out = np.empty((*batch, len(source), height, width), planes.dtype)
    # Plane by plane: an index list would make a copy of the planes first.
    for place, plane in enumerate(source):
        out[..., place, :, :] = planes[..., plane, :, :] if plane >= 0 else fill
    return out, np.broadcast_to(mask, (*batch, len(source))).copy()


def _scatter_tensor(
    planes: torch.Tensor, source: NDArray[np.int64], mask: NDArray[np.bool_], fill: float
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    *batch, _, height, width = planes.shape
    is_float = planes.dtype.is_floating_point or planes.dtype.is_complex
    _verify_fill(fill, planes.dtype, is_float=is_float)
    there = torch.from_numpy(mask).to(planes.device)
    picked = torch.from_numpy(source[mask]).to(planes.device)
    places = torch.from_numpy(np.flatnonzero(mask)).to(planes.device)
    out = planes.new_full((*batch, len(source), height, width), fill)
    # Out of place, so that gradients flow back to the planes.
    out = out.index_copy(-3, places, planes.index_select(-3, picked))
    return out, there.expand(*batch, len(source)).clone()


def _verify_fill(fill: float, dtype: Any, *, is_float: bool) -> None:
    """Refuse a value that the type of the planes cannot hold, such as NaN in whole numbers."""
    if is_float:
        return
    if isinstance(dtype, np.dtype):
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    else:
        import torch

        limits = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        low, high = limits
    if not (low <= fill <= high and fill == int(fill)):
        msg = (
            f"fill={fill!r} does not fit planes of {dtype}; use a whole number from {low} to {high}"
        )
        raise InvalidInputError(msg)
