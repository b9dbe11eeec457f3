"""Two cohorts with panels of their own, one model: the code of docs/two-cohorts.md.

    python examples/two_cohorts.py                                # on made-up images
    python examples/two_cohorts.py --imc DIR --mibi FILE          # on yours

DIR is what steinbock exported: img/*.tiff (one file a region, named <slide>_<region>.tiff), panel.csv
or steinbock_panel.csv with a row for every plane, masks/*.tiff. FILE is a MIBI TIFF.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import tifffile
import torch
from matplotlib.figure import Figure
from torch.utils.data import DataLoader

import microtome as mt
from microtome.cohort import (
    add_cell_masks,
    cohort_panel,
    create_cohort,
    ingest_manifest,
    update_panel,
    validate,
)
from microtome.panels import align_channels, read_panel

MADE_UP = {
    "imc": ("Ag107", "Cytokeratin 5", "Laminin", "YBX1", "H3K27Ac"),
    "mibi": (
        "Background (128)",
        "HH3 (89)",
        "PanKeratin (171)",
        "Vimentin (113)",
        "CD45 (169)",
    ),
}


def make_up(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Draw nine IMC regions on three slides and a MIBI field, in the form of the real ones."""
    rng = np.random.default_rng(seed)

    def cells(side: int, pitch: float) -> tuple[np.ndarray, np.ndarray]:
        """Nuclei and bodies of cells, every other column of them epithelial; their labels."""
        rows, columns = np.mgrid[0:side, 0:side] / pitch
        shift = rng.uniform(0, 1, 2)
        r, c = rows + shift[0], columns + shift[1]
        distance = np.hypot(r % 1 - 0.5, c % 1 - 0.5)
        epithelial = np.sin(c / 2) > 0
        nucleus, body = (
            np.exp(-((distance / 0.2) ** 2)),
            np.exp(-((distance / 0.45) ** 2)),
        )
        shown = [
            0 * body,
            nucleus,
            body * epithelial,
            body * ~epithelial,
            nucleus * ~epithelial,
        ]
        labels = np.where(distance < 0.4, 1 + np.floor(r) * 100 + np.floor(c), 0)
        return np.stack(shown), labels.astype(np.uint16)

    imc, mibi = folder / "steinbock", folder / "field.tiff"
    for name in ("img", "masks"):
        (imc / name).mkdir(parents=True, exist_ok=True)
    for slide in (1, 2, 3):
        for region in (1, 2, 3):
            shown, labels = cells(64, 12.0)
            planes = rng.poisson(0.2 + 20 * shown[[0, 2, 3, 4, 1]]).astype(
                np.float32
            )
            name = f"mock{slide}_{region:03}.tiff"
            tifffile.imwrite(imc / "img" / name, planes, photometric="minisblack")
            tifffile.imwrite(imc / "masks" / name, labels)
    lines = [f"{tag},{tag},1" for tag in MADE_UP["imc"]]
    (imc / "panel.csv").write_text("channel,name,keep\n" + "\n".join(lines) + "\n")
    shown, _ = cells(512, 12.0 / 0.390625)
    with tifffile.TiffWriter(mibi) as file:
        for name, plane in zip(MADE_UP["mibi"], shown, strict=True):
            file.write(
                rng.poisson(0.1 + 5 * plane).astype(np.uint16),
                photometric="minisblack",
                resolution=(25600, 25600),
                resolutionunit="CENTIMETER",
                extratags=[(285, "s", 0, name, True)],  # PageName
                metadata=None,
            )
    return imc, mibi


parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
parser.add_argument("--imc", type=Path, help="what steinbock exported")
parser.add_argument("--mibi", type=Path, help="a MIBI TIFF")
parser.add_argument("--out", type=Path, help="where the cohorts and the picture go")
parser.add_argument("--steps", type=int, default=150, help="batches to train on")
arguments = parser.parse_args()
if (arguments.imc is None) != (arguments.mibi is None):
    parser.error("give both --imc and --mibi, or neither for made-up images")
out = arguments.out or Path(tempfile.mkdtemp(prefix="two_cohorts_"))
out.mkdir(parents=True, exist_ok=True)
imc, mibi = arguments.imc, arguments.mibi
if imc is None:
    imc, mibi = make_up(out / "made_up")
steps = arguments.steps

# --8<-- [start:imc]
panel_file = imc / "steinbock_panel.csv"
panel_file = panel_file if panel_file.exists() else imc / "panel.csv"
names = read_panel(panel_file).names
regions = sorted((imc / "img").glob("*.tiff"))
slides = [path.stem.rpartition("_")[0] for path in regions]
last = slides[-1]
create_cohort(out / "imc", name="imc")
ingest_manifest(
    {
        "tissue_id": [path.stem for path in regions],
        "path": [str(path.resolve()) for path in regions],
        "modality": ["imc"] * len(regions),
        "mpp": [1.0] * len(regions),
        "channel_names": ["|".join(names)] * len(regions),
        "patient_id": slides,
        "split": ["test" if slide == last else "train" for slide in slides],
    },
    out / "imc",
)
mt.mask(out / "imc", method="whole")  # The regions were chosen to be tissue.
for path in regions:
    add_cell_masks(out / "imc", path.stem, imc / "masks" / path.name)
print(update_panel(out / "imc", "imc", panel_file))
# --8<-- [end:imc]

# --8<-- [start:mibi]
create_cohort(out / "mibi", name="mibi")
mt.ingest(
    mibi,
    cohort=out / "mibi",
    tissue_id="field",
    modality="mibi",
    resolution=1.0,
    patient_id="field",
    split="train",
)
field = mt.open_image(out / "mibi/mibi/1_0mpp/images/field.ome.zarr")
print(mt.open_image(mibi).mpp, "->", field.mpp, field.level_shape(0))
# --8<-- [end:mibi]

# --8<-- [start:road]
for cohort in ("imc", "mibi"):
    if cohort == "mibi":
        mt.mask(out / cohort)
    print(
        mt.tile(
            out / cohort,
            tile_size=32,
            method="grid",
            strategy="default",
            stride=16,
            tolerance=0.5,
        )
    )
    mt.stats(out / cohort, quantile_level="global")
    for finding in validate(out / cohort):
        print(finding)
# --8<-- [end:road]

# --8<-- [start:align]
panels = {name: cohort_panel(out / name, name).panel for name in ("imc", "mibi")}
same = {
    "imc": {"H3K27Ac": "histone H3", "Cytokeratin 5": "keratin"},
    "mibi": {"HH3 (89)": "histone H3", "PanKeratin (171)": "keratin"},
}
no_protein = {"imc": {"Ag107": None}, "mibi": {"Background (128)": None}}
# What the table does not name is known by its own name.
aligned = align_channels(panels, by=same, others="name", choose=no_protein)
print(aligned)
# --8<-- [end:align]

# --8<-- [start:data]
batch_size = 32
options = {
    "datasets_dir": out,
    "tile_size": 32,
    "modality_kwargs": {
        name: {"standardization": "quantile_clipping/uq_0.99_global"}
        for name in ("imc", "mibi")
    },
}
train = mt.SporaDataset(
    ["imc", "mibi"],
    split="train",
    alpha=0.5,
    seed=0,
    replacement=True,
    epoch_length=steps * batch_size,
    **options,
)
held_out = mt.SporaDataset(["imc"], split="test", seed=0, **options)
drawn = np.bincount(train.draw(0, len(train)).dataset) / len(train)
for name, share in zip(train.dataset_names, drawn, strict=True):
    tiles = len(mt.SporaDataset([name], split="train", seed=0, **options))
    print(f"{name}: {tiles} tiles, {share:.0%} of the draws")
print(f"held out: {len(held_out)} tiles of slide {last}")
# --8<-- [end:data]


# --8<-- [start:collate]
def collate(samples: list[dict]) -> tuple[torch.Tensor, torch.Tensor]:
    """Put tiles of both cohorts on one panel: (n, K, 32, 32), and who has what."""
    planes, present = [], []
    for sample in samples:
        name = sample["dataset_name"]
        tile = sample["modalities"][name]
        image = torch.as_tensor(tile.image)
        channels = [str(channel) for channel in tile.channel_names]
        scattered, there = aligned.scatter(name, image, channels=channels)
        planes.append(scattered)
        present.append(there)
    return torch.stack(planes), torch.stack(present)


def hide(present: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Choose one present channel of every tile: (n, K), true where it is hidden."""
    chosen = torch.multinomial(present.float(), 1, generator=random)
    return torch.zeros_like(present).scatter(1, chosen, value=True)


# --8<-- [end:collate]


# --8<-- [start:model]
class Autoencoder(torch.nn.Module):
    """What is visible, and which channels are, in; every channel out."""

    def __init__(self, channels: int, width: int = 24) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(2 * channels, width, 3, padding=1),
            torch.nn.GELU(),
            torch.nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            torch.nn.GELU(),
            torch.nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            torch.nn.GELU(),
            torch.nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
            torch.nn.GELU(),
            torch.nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, planes: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        seen = visible[..., None, None].to(planes.dtype)
        known = seen.expand_as(planes)
        return self.layers(torch.cat([planes * seen, known], dim=1))


def loss_of(
    model: torch.nn.Module,
    planes: torch.Tensor,
    present: torch.Tensor,
    hidden: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error on the hidden channels alone."""
    found = model(planes, present & ~hidden)
    return ((found - planes)[hidden] ** 2).mean()


# --8<-- [end:model]

# --8<-- [start:train]
torch.manual_seed(0)
random = torch.Generator().manual_seed(0)
model = Autoencoder(len(aligned))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
losses = []
for planes, present in DataLoader(train, batch_size, collate_fn=collate):
    loss = loss_of(model, planes, present, hide(present, random))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
tenth = max(1, len(losses) // 10)
first, end = np.mean(losses[:tenth]), np.mean(losses[-tenth:])
print(f"training loss: {first:.2f} in the first tenth, {end:.2f} in the last")
# --8<-- [end:train]

# --8<-- [start:evaluate]
planes, present = collate(held_out.__getitems__(range(len(held_out))))
trained_mean = torch.zeros(())  # of every channel, after standardization
model.eval()
scores = {}
with torch.no_grad():
    for place, name in enumerate(aligned.names):
        if not present[:, place].all():
            continue
        hidden = torch.zeros_like(present)
        hidden[:, place] = True
        mean = float(((trained_mean - planes)[hidden] ** 2).mean())
        scores[name] = mean, float(loss_of(model, planes, present, hidden))
for name, (mean, ours) in scores.items():
    print(f"{name:>12}: {mean:.2f} by the mean, {ours:.2f} by the model")
both = np.mean(list(scores.values()), axis=0)
print(f"{'held out':>12}: {both[0]:.2f} by the mean, {both[1]:.2f} by the model")
# --8<-- [end:evaluate]

# --8<-- [start:draw]
# Tiles of both with much keratin: there is something to be seen in them.
keratin = aligned.names.index("keratin")
nuclei = aligned.names.index("histone H3")
figure = Figure(figsize=(7.2, 4.6), layout="constrained")
axes = figure.subplots(2, 3)
mibi_tiles = mt.SporaDataset(["mibi"], split="train", seed=0, **options)
titles = "histone H3 (visible)", "keratin (hidden)", "keratin, reconstructed"
for row, name, tiles in zip(
    axes, ("IMC, held out", "MIBI, trained on"), (held_out, mibi_tiles), strict=True
):
    planes, present = collate(tiles.__getitems__(range(len(tiles))))
    brightest = int(planes[:, keratin].mean((1, 2)).argsort()[len(planes) * 3 // 4])
    tile, there = planes[[brightest]], present[[brightest]]
    visible = there.clone()
    visible[:, keratin] = False
    with torch.no_grad():
        found = model(tile, visible)
    for axis, title, shown in zip(
        row,
        titles,
        (tile[0, nuclei], tile[0, keratin], found[0, keratin]),
        strict=True,
    ):
        drawn = axis.imshow(
            shown.numpy(), cmap="magma", vmin=-1, vmax=3, interpolation="nearest"
        )
        axis.set_xticks([])
        axis.set_yticks([])
        if tiles is held_out:
            axis.set_title(title, fontsize=10)
    row[0].set_ylabel(name, fontsize=10)
bar = figure.colorbar(drawn, ax=axes, shrink=0.8)
bar.set_label("standard deviations from the training mean", fontsize=9)
figure.savefig(out / "reconstructions.png", dpi=110)
# --8<-- [end:draw]
