"""``(pixel - shift) / scale`` of every channel in float32, and back, to the last few bits."""

from __future__ import annotations

import sys
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InvalidInputError
from microtome.storage import Conversion

__all__ = ["conversion_of", "float_batch", "float_tensor", "shifted_and_scaled", "taken_back"]

# What is smaller than this changes no float32 near 1, and near 0 less than a count of photons does.
_NOTHING = 2.0**-30


def float_tensor(batch: Any, out: Any) -> Any:
    """Return a tensor as one of float32 on its device, or None where no tensor is given.

    Raises
    ------
    InvalidInputError
        If it is no batch of numbers, or there is an `out`, which is for arrays.
    """
    torch = cast("Any", sys.modules.get("torch"))  # a tensor is there only where torch is
    if torch is None or not isinstance(batch, torch.Tensor):
        return None
    _verify_form(tuple(batch.shape), str(batch.dtype), numbers=not batch.is_complex())
    if out is not None:
        msg = "out= is for arrays; a tensor is normalized into a new one"
        raise InvalidInputError(msg)
    return batch.to(torch.float32)


def _verify_form(shape: tuple[int, ...], dtype: str, *, numbers: bool) -> None:
    if len(shape) not in {4, 5} or not numbers:
        one = "; of a single patch give patch[None]" if len(shape) == 3 else ""
        msg = f"a batch is (B, C, (Z), Y, X) numbers, got {dtype} of shape {shape}{one}"
        raise InvalidInputError(msg)


def float_batch(batch: NDArray[Any], out: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the buffer that a batch is turned into.

    Raises
    ------
    InvalidInputError
        If the batch is none of numbers, or `out` is of another shape or dtype.
    """
    _verify_form(batch.shape, str(batch.dtype), numbers=batch.dtype.kind in "buif")
    if out is None:
        return np.empty(batch.shape, np.float32)
    if out.shape != batch.shape or out.dtype != np.float32:
        msg = f"out must be {batch.shape} float32, got {out.shape} {out.dtype}"
        raise InvalidInputError(msg)
    return out


def shifted_and_scaled(
    batch: Any,
    shift: NDArray[np.float64],
    scale: NDArray[np.float64],
    out: NDArray[np.float32] | None,
) -> Any:
    """Return ``(batch - shift) / scale`` as float32, of a tensor as a tensor with the same bits.

    Where the mean is large beside the spread, as in data with an offset, a float32 mean is off by
    much of the spread. So the shift is taken off in two parts: a float32, which leaves the
    difference exact where it matters, and what that lacks.

    Parameters
    ----------
    batch
        (B, C, (Z), Y, X).
    shift, scale
        Of each channel, (C,), or of all, (1,).
    out
        Buffer for the result; may be `batch`.

    Raises
    ------
    InvalidInputError
        If there are neither one nor C statistics, or `out` does not fit.
    """
    tensor = float_tensor(batch, out)
    if tensor is not None:
        return _tensor_shifted(batch, tensor, shift, scale)
    made = float_batch(batch, out)
    shifts, scales = (_of_channels(values, batch.shape[1]) for values in (shift, scale))
    high, factor, rest = _in_parts(shifts, scales)
    # A number that float32 does not hold loses its last digits before anything is subtracted.
    held = np.can_cast(batch.dtype, np.float32)
    for pixels, target in zip(batch, made, strict=True):
        # Channel by channel: a plane stays in the processor's cache from step to step.
        for channel, (plane, done) in enumerate(zip(pixels, target, strict=True)):
            if held:
                np.subtract(plane, high[channel], out=done, dtype=np.float32)
                np.multiply(done, factor[channel], out=done)
                if rest[channel]:
                    np.subtract(done, rest[channel], out=done)
            else:
                done[...] = (plane.astype(np.float64) - shifts[channel]) / scales[channel]
    return made


def _tensor_shifted(
    batch: Any, made: Any, shift: NDArray[np.float64], scale: NDArray[np.float64]
) -> Any:
    """Do the steps of `shifted_and_scaled` where the tensor is."""
    torch = cast("Any", sys.modules["torch"])
    shifts, scales = (_of_channels(values, made.shape[1]) for values in (shift, scale))
    across = (1, -1) + (1,) * (made.ndim - 2)

    def there(values: NDArray[Any]) -> Any:
        return torch.from_numpy(values.copy()).to(made.device).reshape(across)

    # What numpy does not know, bfloat16, float32 holds.
    name = str(batch.dtype).removeprefix("torch.")
    if name == "bfloat16" or np.can_cast(name, np.float32):
        high, factor, rest = _in_parts(shifts, scales)
        made = (made - there(high)) * there(factor)
        return made - there(rest) if rest.any() else made
    exact = (batch.to(torch.float64) - there(shifts)) / there(scales)
    return exact.to(torch.float32)


def conversion_of(
    shift: NDArray[np.float64], scale: NDArray[np.float64], channels: int, dtype: np.dtype[Any]
) -> Conversion | None:
    """Return the same as steps that pixels are taken through while they are read.

    Parameters
    ----------
    shift, scale
        As of `shifted_and_scaled`, to the last bit.
    channels
        Number of channels that are read.
    dtype
        Of the stored pixels; None is returned for one that float32 does not hold.

    Raises
    ------
    InvalidInputError
        If there are neither one nor so many statistics.
    """
    shifts, scales = (_of_channels(values, channels) for values in (shift, scale))
    if not np.can_cast(dtype, np.float32):
        return None
    high, factor, rest = _in_parts(shifts, scales)
    steps: list[tuple[Any, ...]] = [("subtract", high), ("multiply", factor)]
    return Conversion.of([*steps, ("subtract", rest)] if rest.any() else steps)


def _in_parts(
    shifts: NDArray[np.float64], scales: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return what is taken off first, the factor, and what is taken off after that."""
    high = shifts.astype(np.float32)
    rest = ((shifts - high) / scales).astype(np.float32)
    rest[np.abs(rest) <= _NOTHING] = 0
    return high, (1.0 / scales).astype(np.float32), rest


def taken_back(batch: Any, shift: NDArray[np.float64], scale: NDArray[np.float64]) -> Any:
    """Return ``batch * scale + shift``: a float32 array, or a tensor where a tensor was given.

    Raises
    ------
    InvalidInputError
        If it is no batch, or there are neither one nor C statistics.
    """
    shape = tuple(batch.shape)
    _verify_form(shape, str(batch.dtype), numbers=True)
    across = (1, -1) + (1,) * (len(shape) - 2)
    shifts, scales = (_of_channels(v, shape[1]).reshape(across) for v in (shift, scale))
    torch = cast("Any", sys.modules.get("torch"))  # a tensor is there only where torch is
    if torch is not None and isinstance(batch, torch.Tensor):
        factor, offset = (torch.from_numpy(v.copy()).to(batch.device) for v in (scales, shifts))
        return (batch.to(torch.float64) * factor + offset).to(torch.float32)
    values = np.asarray(batch, np.float32)
    out = np.empty(values.shape, np.float32)
    for part, done in zip(values, out, strict=True):
        done[...] = part * scales[0] + shifts[0]
    return out


def _of_channels(values: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    if values.size not in {1, channels}:
        msg = (
            f"{values.size} channels were normalized, the batch has {channels}; statistics are one "
            "a channel, or one for all"
        )
        raise InvalidInputError(msg)
    return np.broadcast_to(values, (channels,))
