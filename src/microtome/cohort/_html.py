"""What a notebook shows of a cohort and of datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from microtome.image import html_card, html_of, short_list
from microtome.tiling import TileTable

if TYPE_CHECKING:
    from ._info import CohortInfo
    from .datasets import ComposedImagingDataset, ModalityDataset, SporaDataset

__all__ = ["cohort_html", "composed_html", "dataset_html", "spora_html"]

_MOST_IMAGES = 10


def cohort_html(cohort: CohortInfo) -> str:
    """Return a card of a cohort."""
    return html_of(cohort, lambda: _cohort(cohort))


def dataset_html(dataset: ModalityDataset) -> str:
    """Return a card of a dataset of one modality."""
    return html_of(dataset, lambda: _dataset(dataset))


def composed_html(dataset: ComposedImagingDataset) -> str:
    """Return a card of a dataset of several modalities."""
    return html_of(dataset, lambda: _composed(dataset))


def spora_html(dataset: SporaDataset) -> str:
    """Return a card of a dataset of several cohorts."""
    return html_of(dataset, lambda: _spora(dataset))


def _cohort(cohort: CohortInfo) -> str:
    tissues = dict.fromkeys(str(row["tissue_id"]) for row in cohort.tissues)
    patients = {p for row in cohort.tissues if (p := row.get("patient_id")) is not None}
    splits = {s: None for row in cohort.tissues if (s := row.get("split")) is not None}
    modalities = dict.fromkeys(str(row["modality"]) for row in cohort.tissues)
    facts = {
        "Place": cohort.root,
        "Tissues": f"{len(tissues):,}, {len(cohort.tissues):,} images",
        "Patients": f"{len(patients):,}" if patients else None,
        "Modalities": short_list(list(modalities)) or None,
        "Splits": short_list(list(splits)) or None,
        "Resolutions": ", ".join(cohort.resolutions) or "none",
        "Tilings": short_list(
            [f"{t['strategy']} {t['size']} px ({t['tiles']:,} tiles)" for t in cohort.tilings]
        )
        or None,
        "Statistics": short_list(cohort.standardizations) or None,
        "Predictions": short_list(cohort.predictions) or None,
    }
    shown = ("tissue_id", "modality", "patient_id", "split", "mpp")
    columns = [name for name in shown if any(name in row for row in cohort.tissues)]
    rows = [{n: _value(row.get(n)) for n in columns} for row in cohort.tissues[:_MOST_IMAGES]]
    return html_card(f"Cohort of {len(tissues):,} tissues", facts, rows=rows)


def _dataset(dataset: ModalityDataset) -> str:
    patients = {p for p in dataset.records.patients.values() if p is not None}
    channels: Any = getattr(dataset, "channel_names", None)
    facts = {
        "Cohort": f"{dataset.name}, at {dataset.layout.root}",
        "Modality": f"{dataset.modality} at {dataset.resolution} µm",
        "Channels": None if channels is None else f"{len(channels)}: {short_list(channels)}",
        "Split": dataset.split or "all",
        "Tissues": _tissues(dataset.records.tissue_ids),
        "Patients": f"{len(patients):,}" if patients else None,
        "Items": _items(len(dataset), dataset.tiles),
    }
    return html_card(type(dataset).__name__, facts)


def _composed(dataset: ComposedImagingDataset) -> str:
    facts = {
        "Cohort": f"{dataset.name}, at {dataset.layout.root}",
        "Modalities": f"{short_list(dataset.get_available_modalities())} at {dataset.resolution} µm",
        "Split": dataset.split or "all",
        "Tissues": _tissues([str(name) for name in dataset.get_tissue_ids()]),
        "Items": _items(len(dataset), dataset.tiles),
    }
    return html_card(type(dataset).__name__, facts)


def _spora(dataset: SporaDataset) -> str:
    facts = {
        "Cohorts": f"{len(dataset.dataset_names)}: {short_list(dataset.dataset_names)}",
        "An epoch": f"{len(dataset):,} {dataset.sampling_unit}",
        "Seed": dataset.seed,
    }
    return html_card(type(dataset).__name__, facts)


def _tissues(names: Any) -> str:
    return f"{len(names):,}: {short_list(names, 8)}"


def _items(count: int, tiles: TileTable | None) -> str:
    if tiles is None:
        return f"{count:,} whole tissues"
    height, width = tiles.tile_size
    return f"{count:,} tiles of {width} x {height} px ({tiles.strategy})"


def _value(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
