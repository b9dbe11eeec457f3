"""Models in ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.errors import (
    DependencyError,
    InvalidInputError,
    ModelError,
    NotFoundError,
    UnknownNameError,
)

from ._output import as_array

__all__ = ["OnnxModel"]

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_BLOCK = 1 << 24


class OnnxModel:
    """A model in an ONNX file: for `predict`, or any loop.

    A batch is cast to the type that the model takes: any number to a floating type, as it is and
    not scaled; an integer to a wider one only. A model whose number of tiles is fixed is run on
    pieces of a batch, the last of them filled up with the last tile, of which the answer is dropped.

    Parameters
    ----------
    path
        The file.
    providers
        What runs it, best first, as `onnxruntime.InferenceSession` takes them, for example
        ``["CUDAExecutionProvider", "CPUExecutionProvider"]``; the processor by default.
    input
        Name of the input that takes the batch; may be left out where there is one.
    output
        Name of the output to keep; may be left out where there is one.

    Raises
    ------
    DependencyError
        If onnxruntime is not installed.
    NotFoundError
        If there is no such file.
    UnknownNameError
        If the model has no such input or output, or onnxruntime no such provider.
    InvalidInputError
        If the file is no ONNX model that onnxruntime can run, takes more than one input, returns
        more outputs than one and none is named, or takes something other than numbers.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        providers: Sequence[Any] | None = None,
        input: str | None = None,  # noqa: A002 - what ONNX calls it
        output: str | None = None,
    ) -> None:
        self.path = Path(path)
        self._arguments = {"providers": providers, "input": input, "output": output}
        self._session: Any = _session_of(self.path, providers or ["CPUExecutionProvider"])
        inputs: list[Any] = self._session.get_inputs()
        taken = _chosen(inputs, input, "input", self.path)
        if len(inputs) > 1:
            names = [found.name for found in inputs]
            msg = f"{self.path} takes {len(inputs)} inputs, {names}; a batch of tiles is one"
            raise InvalidInputError(msg)
        if taken.type not in _DTYPES:
            msg = f"{self.path}: input {taken.name!r} is a {taken.type}; pixels are a tensor of {sorted(_DTYPES)}"
            raise InvalidInputError(msg)
        self.input: str = taken.name
        self.output: str = _chosen(self._session.get_outputs(), output, "output", self.path).name
        self.dtype = np.dtype(_DTYPES[taken.type])
        # What is no number is a size that may be anything, or that the file does not state.
        self.shape = tuple(n if isinstance(n, int) and n > 0 else None for n in taken.shape)
        self._checksum = _checksum(self.path)

    @property
    def microtome_name(self) -> str:
        """What an image says that it was predicted with: the file and its CRC-32."""
        return f"onnx:{self.path.name}:{self.output} (crc32 {self._checksum:08x})"

    def __call__(self, batch: Any) -> NDArray[Any]:
        """Return the model's answer.

        Parameters
        ----------
        batch
            (B, C, (Z), Y, X), an array or a tensor.

        Returns
        -------
        The output as the model gives it, its first axis B.

        Raises
        ------
        ModelError
            If the batch has another shape than the model states, or onnxruntime fails.
        InvalidInputError
            If the model's type does not hold that of the batch.
        """
        given = as_array(batch)
        self._check(given.shape)
        given = self._cast(given)
        fixed = self.shape[0] if self.shape else None
        if fixed is None or fixed == len(given):
            return self._run(given)
        made: list[NDArray[Any]] = []
        for start in range(0, len(given), fixed):
            piece = given[start : start + fixed]
            kept = len(piece)
            if kept < fixed:
                piece = np.concatenate([piece, np.repeat(piece[-1:], fixed - kept, axis=0)])
            answer = self._run(piece)
            if not answer.ndim or len(answer) != fixed:
                msg = (
                    f"{self.path} returned {answer.shape} for {fixed} tiles: not one answer a tile"
                )
                raise InvalidInputError(msg)
            made.append(answer[:kept])
        return np.concatenate(made)

    def __reduce__(self) -> tuple[Any, ...]:
        # A session does not go to another process; the file does.
        return partial(OnnxModel, **self._arguments), (self.path,)

    def _check(self, shape: tuple[int, ...]) -> None:
        if not self.shape:
            return
        fits = len(shape) == len(self.shape) and all(
            wanted in (None, size) for size, wanted in zip(shape[1:], self.shape[1:], strict=True)
        )
        if not fits or not shape[0]:
            stated = ", ".join("any" if size is None else str(size) for size in self.shape)
            msg = (
                f"{self.path}: input {self.input!r} takes ({stated}), tiles first, got {shape}; "
                "choose channels and tile_size to fit it"
            )
            raise ModelError(msg)

    def _cast(self, batch: NDArray[Any]) -> NDArray[Any]:
        if batch.dtype == self.dtype:
            return np.ascontiguousarray(batch)
        if self.dtype.kind != "f" and not np.can_cast(batch.dtype, self.dtype, "safe"):
            msg = (
                f"{self.path}: input {self.input!r} takes {self.dtype}, which does not hold every "
                f"{batch.dtype}; give preprocess= that makes the one of the other"
            )
            raise InvalidInputError(msg)
        with np.errstate(over="ignore"):  # told below
            made = np.ascontiguousarray(batch, self.dtype)
        if np.isinf(made).any() and not np.isinf(batch).any():
            msg = (
                f"{self.path}: input {self.input!r} takes {self.dtype}, which ends before "
                f"{batch.max()}; give preprocess= that scales the pixels"
            )
            raise InvalidInputError(msg)
        return made

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        try:
            return as_array(self._session.run([self.output], {self.input: batch})[0])
        except InvalidInputError:
            raise
        except Exception as error:  # onnxruntime's own have no family
            msg = f"{self.path} failed on a batch of {batch.shape} {batch.dtype}: {error}"
            raise ModelError(msg) from error


def _session_of(path: Path, providers: Sequence[Any]) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        msg = "ONNX models need onnxruntime: pip install 'microtome[onnx]'"
        raise DependencyError(msg) from error
    runtime: Any = onnxruntime
    if not path.is_file():
        msg = f"no ONNX model at {path}"
        raise NotFoundError(msg)
    names = [each if isinstance(each, str) else each[0] for each in providers]
    there = runtime.get_available_providers()
    # onnxruntime would warn and run on the processor.
    unknown = [name for name in names if name not in there]
    if unknown:
        msg = f"this onnxruntime has no {unknown}; it has {there}"
        raise UnknownNameError(msg)
    try:
        return runtime.InferenceSession(str(path), providers=list(providers))
    except Exception as error:  # onnxruntime's own have no family
        msg = f"{path} is no ONNX model that onnxruntime {runtime.__version__} can run: {error}"
        raise InvalidInputError(msg) from error


def _chosen(there: Sequence[Any], name: str | None, what: str, path: Path) -> Any:
    names = [found.name for found in there]
    if name is None and len(there) == 1:
        return there[0]
    if name is None and what == "output":
        msg = f"{path} has {len(there)} outputs, {names}; name the one to keep with output="
        raise InvalidInputError(msg)
    if name is not None and name not in names:
        msg = f"{path} has no {what} {name!r}; it has {names}"
        raise UnknownNameError(msg)
    return there[0] if name is None else there[names.index(name)]


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return total
