"""A model that fails on a batch: told in our words, with its own in them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from microtome.errors import MicrotomeError, ModelError

from ._model import Preprocess, model_name

__all__ = ["telling_failures"]

# What some engines say goes over pages.
_MOST_WORDS = 600


@contextmanager
def telling_failures(
    model: Any, preprocess: Preprocess | None, data: Any, note: str
) -> Generator[None]:
    """Say what a model was shown if it fails while the block runs.

    Parameters
    ----------
    model, preprocess
        What is called.
    data
        The batch that it is called with, (B, C, (Z), Y, X).
    note
        What is done with it and where it lies: ``while predicting a batch from ...``.

    Raises
    ------
    ModelError
        If it does. Errors of ours, and of a disk or device that is gone, stay what they are and get
        the note.
    """
    try:
        yield
    except ModelError as error:
        cause = error.__cause__ or error
        raise ModelError(_told(error, str(error), model, preprocess, data, note)) from cause
    except (MicrotomeError, OSError) as error:
        error.add_note(note)
        raise
    except Exception as error:
        words = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ModelError(_told(error, words, model, preprocess, data, note)) from error


def _told(
    error: Exception, words: str, model: Any, preprocess: Preprocess | None, data: Any, note: str
) -> str:
    tiles, channels = data.shape[:2]
    after = "" if preprocess is None else f" after {model_name(preprocess)}"
    said = " ".join(words.split())
    said = f"{said[:_MOST_WORDS]}..." if len(said) > _MOST_WORDS else said
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        advice = "take smaller tiles (--tile-size, tile_size=) or fewer at once (--batch-size, batch_size=)"
    else:
        advice = (
            f"if it takes others than these {channels} channels, choose them with --channel "
            "(channels=)"
        )
    return (
        f"{model_name(model)}{after} failed {note}, {tiles} tiles of {channels} channels, "
        f"{tuple(data.shape)} {data.dtype}: {said}; {advice}"
    )
