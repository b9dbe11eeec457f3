"""A small real model without weights: where nuclei are, from how light passes through stain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.errors import InvalidInputError

__all__ = ["StainDensityModel"]

# How strongly each stain absorbs red, green and blue: A. C. Ruifrok and D. A. Johnston,
# "Quantification of histochemical staining by color deconvolution", Anal. Quant. Cytol. Histol.
# 23 (2001), table 1; rows are hematoxylin, eosin, DAB.
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
_STAIN_NAMES = ("hematoxylin", "eosin", "dab")
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_WHITE = 255.0


class StainDensityModel(nn.Module):
    """Stain maps and the density of nuclei of an RGB brightfield image.

    Light that passes through stain is dimmed exponentially, so stains add up in optical density,
    -log10(I / 255). Solving for the three stains of Ruifrok and Johnston gives a density each.
    Nuclei are where hematoxylin exceeds its surroundings: smoothed a little, it is compared with
    itself smoothed widely, so that purple cytoplasm and a weak counterstain are no obstacle. The
    share of a Gaussian window that they fill is their density, 0 to 1. The default widths suit
    pixels of about 1 um.

    Pixels that are exactly black are no tissue but what lies outside the scan or the image: their
    stains are 0 and smoothing passes over them. Whatever lies outside the batch is treated so too;
    a tile thus gives what the whole image gives, `margin` pixels away from its border.

    Parameters
    ----------
    threshold
        Excess of hematoxylin over its surroundings, in optical density, that is halfway between
        tissue and nucleus.
    softness
        How far below the threshold the ramp begins, and above it ends, in optical density.
    surround
        Standard deviation of the surroundings in pixels, about a nucleus wide.
    window
        Standard deviation of the window of the density in pixels.

    Raises
    ------
    InvalidInputError
        If softness, surround or window is not positive.
    """

    channel_names: tuple[str, ...] = ("hematoxylin", "eosin", "nuclear_density")
    """Of the maps that `forward` returns."""

    standardization = "stored"
    """What `predict_cohort` shows it: light from 0 to 255."""

    modality_kind = "brightfield"
    """What `predict_cohort` shows it at all: channels of fluorescence are no colours."""

    feature_names: tuple[str, ...] = (
        *(
            f"{stain}_{statistic}"
            for stain in _STAIN_NAMES
            for statistic in ("mean", "std", *(f"q{round(100 * q):02d}" for q in _QUANTILES))
        ),
        "nuclear_fraction",
    )
    """Of the numbers that `embed` returns."""

    def __init__(
        self,
        *,
        threshold: float = 0.08,
        softness: float = 0.04,
        surround: float = 5.0,
        window: float = 5.0,
    ) -> None:
        super().__init__()
        lengths = (softness, surround, window)
        if min(lengths) <= 0 or not math.isfinite(threshold + sum(lengths)):
            msg = f"softness, surround and window must be positive, got {lengths}, threshold {threshold}"
            raise InvalidInputError(msg)
        self.threshold = threshold
        self.softness = softness
        # Buffers go along with the module to its device.
        self.register_buffer("unmix", torch.tensor(np.linalg.inv(_STAINS), dtype=torch.float32))
        self.register_buffer("grain", _gaussian(1.0))
        self.register_buffer("surround", _gaussian(surround))
        self.register_buffer("window", _gaussian(window))
        self.unmix: Tensor
        self.grain: Tensor
        self.surround: Tensor
        self.window: Tensor

    @property
    def margin(self) -> int:
        """How far a pixel of the output looks, in pixels; 30 by default, under half of 64."""
        return max(len(self.grain), len(self.surround)) // 2 + len(self.window) // 2

    def forward(self, batch: Tensor) -> Tensor:
        """Return the maps of `channel_names`.

        Parameters
        ----------
        batch
            RGB, (B, 3, Y, X), 0 to 255 of any type.

        Returns
        -------
        (B, 3, Y, X), float32.
        """
        stains, inside = self.stains(batch)
        nuclei = self._nuclei(stains, inside)
        density = _smooth(nuclei, inside, self.window)
        return torch.cat([stains[:, :2], density], dim=1)

    def embed(self, batch: Tensor) -> Tensor:
        """Describe each tile by the numbers of `feature_names`.

        Parameters
        ----------
        batch
            RGB, (B, 3, Y, X), 0 to 255 of any type.

        Returns
        -------
        (B, 22), float32: of each stain the mean, standard deviation and quantiles over the tile,
        black pixels left out (all 0 for a tile without others); then the share of it that nuclei
        fill.
        """
        stains, inside = self.stains(batch)
        count = inside.sum(dim=(2, 3)).clamp(min=1)
        mean = stains.sum(dim=(2, 3)) / count
        spread = ((stains - mean[:, :, None, None]) ** 2 * inside).sum(dim=(2, 3)) / count
        # Pixels that are left out sort behind all others, so a rank counts those that are in.
        ranked = stains.masked_fill(inside == 0, math.inf).flatten(2).sort(dim=2).values
        shares = torch.tensor(_QUANTILES, device=ranked.device)
        ranks = (shares[None] * (count - 1)).round().long()
        quantiles = ranked.gather(2, ranks[:, None].expand(-1, 3, -1))
        quantiles = quantiles.masked_fill(quantiles.isinf(), 0.0)
        each = torch.cat([mean[..., None], spread.sqrt()[..., None], quantiles], dim=2)
        fraction = self._nuclei(stains, inside).sum(dim=(2, 3)) / count
        return torch.cat([each.flatten(1), fraction], dim=1)

    def stains(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Separate the stains.

        Parameters
        ----------
        batch
            RGB, (B, 3, Y, X), 0 to 255 of any type.

        Returns
        -------
        Hematoxylin, eosin and DAB in optical density, (B, 3, Y, X), at least 0; and 1 where there
        is a pixel, 0 where it is black, (B, 1, Y, X).
        """
        if batch.ndim != 4 or batch.shape[1] != 3:
            msg = f"this model takes RGB batches (B, 3, Y, X), got {tuple(batch.shape)}"
            raise InvalidInputError(msg)
        light = batch.float()
        inside = (light > 0).any(dim=1, keepdim=True).float()
        # One grey level is the least that a camera tells from nothing.
        density = -torch.log10(light.clamp(1.0, _WHITE) / _WHITE)
        stains = torch.einsum("brij,rs->bsij", density, self.unmix)
        return stains.clamp(min=0) * inside, inside

    def _nuclei(self, stains: Tensor, inside: Tensor) -> Tensor:
        own = _smooth(stains[:, :1], inside, self.grain)
        excess = own - _smooth(stains[:, :1], inside, self.surround)
        # A ramp, not a sigmoid: glass has no nuclei at all, and most of a slide is glass.
        return ((excess - self.threshold) / (2 * self.softness) + 0.5).clamp(0, 1) * inside


def _gaussian(deviation: float) -> Tensor:
    """Return a Gaussian cut at three standard deviations, of odd length and sum 1."""
    reach = math.ceil(3 * deviation)
    at: NDArray[Any] = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (at / deviation) ** 2)
    return torch.tensor(weights / weights.sum(), dtype=torch.float32)


def _smooth(values: Tensor, inside: Tensor, kernel: Tensor) -> Tensor:
    """Average over what lies inside, (B, 1, Y, X); 0 where nothing is."""
    total, weight = _convolved(values * inside, kernel), _convolved(inside, kernel)
    return total / weight.clamp(min=1e-6) * inside


def _convolved(values: Tensor, kernel: Tensor) -> Tensor:
    reach = len(kernel) // 2
    down = F.conv2d(values, kernel[None, None, :, None], padding=(reach, 0))
    return F.conv2d(down, kernel[None, None, None, :], padding=(0, reach))
