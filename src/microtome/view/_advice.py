"""What a page says where nothing was predicted: commands that do what they promise on this cohort."""

from __future__ import annotations

import shlex

from microtome.cohort import Modality
from microtome.coordinates import Resolution

from ._inventory import Inventory, Missing, Tissue

__all__ = ["lacking_embeddings", "lacking_prediction", "lacking_tissues"]

# The model that comes along is of stains; of channels only the reader has one.
_OWN_MODEL = "PACKAGE.MODULE:MODEL"


def lacking_tissues(inventory: Inventory) -> Missing:
    """Say that a cohort is empty, and which command adds to it."""
    root = shlex.quote(str(inventory.layout.root))
    return Missing(
        "There is no tissue in this cohort yet.",
        f"microtome ingest SLIDE --cohort {root} --tissue ID --modality he",
    )


def lacking_prediction(inventory: Inventory, tissue: Tissue) -> Missing:
    """Say that no model has predicted on a tissue, and which command would.

    Parameters
    ----------
    inventory
        The cohort.
    tissue
        One of its tissues, with at least one modality.
    """
    text, first = "No model has predicted on this tissue.", tissue.modalities[0]
    if first.kind == "multiplex":
        text += f" The model demo is for H&E and IHC; of {first} it takes one of your own."
    return Missing(text, _command(inventory, tissue.resolution, first))


def lacking_embeddings(inventory: Inventory) -> Missing:
    """Say that there are no tile embeddings, and which command makes some.

    Parameters
    ----------
    inventory
        A cohort with at least one tissue.
    """
    text = "There are no tile embeddings."
    for tissue in inventory.tissues:
        first = tissue.modalities[0]
        if first.kind == "brightfield":
            text += " Once there are tiles, a model that describes them makes some of H&E and IHC."
            return Missing(text, _command(inventory, tissue.resolution, first))
    text += (
        " The command predict makes those of H&E and IHC, which this cohort has none of; of other "
        "tiles microtome.prediction.embed_tiles makes some in Python."
    )
    return Missing(text)


def _command(inventory: Inventory, resolution: Resolution, modality: Modality) -> str:
    options: list[str] = []
    if modality.kind == "multiplex":
        options += ["--model", _OWN_MODEL]
    firsts = {t.modalities[0].kind for t in inventory.tissues if t.resolution == resolution}
    if len(firsts) > 1:
        # No model takes all of them, so that the command must say which.
        options += ["--modality", modality.name]
    return inventory.command("predict", resolution, *options)
