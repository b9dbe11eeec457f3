# --8<-- [start:cohort]
import numpy as np

import microtome as mt

rng = np.random.default_rng(0)
names = ["DNA", "CD3", "CD8", "PanCK"]
for tissue, patient, split, channels in (
    ("a", "p1", "train", 4),
    ("b", "p2", "train", 3),
    ("c", "p1", "test", 4),
):
    mt.ingest(
        rng.poisson(4, (channels, 200, 260)).astype(np.uint16),
        axes="cyx",
        channel_names=names[:channels],
        cohort="study",
        tissue_id=tissue,
        modality="codex",
        mpp=0.5,
        resolution=0.5,
        patient_id=patient,
        split=split,
    )
mt.mask("study", method="whole")
mt.tile("study", tile_size=64)
# --8<-- [end:cohort]

# --8<-- [start:page]
from microtome.view import report

print(report("study", "study.html", throughput=False))
# --8<-- [end:page]

# --8<-- [start:splits]
from microtome.view import split_balance

balance = split_balance("study")
for row in balance.rows:
    print(row.split, row.patients, "patients", row.tiles, "tiles")
for patient in balance.shared_patients:
    print(patient.name, "is in", patient.splits)
# --8<-- [end:splits]

# --8<-- [start:numbers]
from microtome.view import cohort_overview, tiling_numbers

held = cohort_overview("study")
print(f"{held.tissues} tissues of {held.patients} patients, {held.area:.4f} mm2")
tiles = tiling_numbers("study", 64)
print(
    f"coverage {tiles.total.coverage:.1%}, overlap {tiles.total.overlap:.1%}, "
    f"waste {tiles.total.waste:.1%}"
)
print(f"tissue b alone: {tiles.tissues['b'].tiles} tiles")
# --8<-- [end:numbers]

# --8<-- [start:plots]
from microtome.cohort import cohort_panel
from microtome.view import plot_channels, plot_coverage, plot_splits

plot_channels(cohort_panel("study", "codex")).figure.savefig("channels.png")
plot_splits(balance).figure.savefig("splits.png")
plot_coverage(tiles.tissues).figure.savefig("coverage.png")
# --8<-- [end:plots]
