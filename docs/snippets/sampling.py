# --8<-- [start:cohorts]
import numpy as np

import microtome as mt
from microtome.loading import BatchPlan
from microtome.sampling import CohortSampler, SamplingRule
from microtome.tiling import TileTable

rng = np.random.default_rng(0)


def cells(side):
    """A made-up picture: rows of cells with a margin around them."""
    rows, columns = np.mgrid[0:side, 0:side]
    cell = np.hypot(rows % 16 - 8, columns % 16 - 8) < 5
    inside = (
        np.maximum(abs(rows - side / 2), abs(columns - side / 2)) < side / 2 - 40
    )
    return rng.poisson(2 + 60 * (cell & inside), (2, side, side)).astype(np.uint16)


for cohort, patients, side in (("small", 2, 256), ("large", 4, 512)):
    for number in range(patients):
        mt.ingest(
            cells(side),
            axes="cyx",
            channel_names=["DNA", "CD3"],
            mpp=1.0,
            cohort=f"studies/{cohort}",
            tissue_id=f"t{number}",
            patient_id=f"p{number}",
            modality="imc",
        )
    mt.mask(f"studies/{cohort}")
    mt.tile(
        f"studies/{cohort}",
        tile_size=64,
        method="grid",
        strategy="default",
        tolerance=0.99,
    )

options = {
    "datasets_dir": "studies",
    "tile_size": 64,
    "seed": 0,
    "modality_kwargs": {"imc": {"standardization": "identity"}},
}
both = mt.SporaDataset(["small", "large"], **options)
print(both)
sample = both[0]
print(sample["dataset_name"], sample["tissue_id"], sample["tile_id"])
print(tuple(sample["modalities"]["imc"].image.shape))
# --8<-- [end:cohorts]

# --8<-- [start:shares]
for rule in (
    {},
    {"alpha": 0.5},
    {"alpha": 0},
    {"alpha": 0, "epoch_length": 60},
    {"weights": {"small": 1, "large": 3}, "epoch_length": 40},
    {"cohort_quota": 25},
    {"cohort_quota": {"small": 10, "large": 30}},
    {"patient_quota": 5},
    {"alpha": 0, "replacement": True},
):
    drawn = mt.SporaDataset(["small", "large"], **options, **rule)
    print(rule, drawn.sampler.shares.tolist())
# --8<-- [end:shares]

# --8<-- [start:epochs]
half = mt.SporaDataset(["small", "large"], **options, epoch_length=len(both) // 2)
seen = []
for epoch in range(2):
    half.set_epoch(epoch)
    half.write_manifest(f"drawn-{epoch}.parquet")
    seen.append(half.draw(0, len(half)))
tiles = {
    (d, r) for part in seen for d, r in zip(part.dataset, part.row, strict=True)
}
print(len(half), "+", len(half), "draws,", len(tiles), "tiles")
# --8<-- [end:epochs]

# --8<-- [start:sampler]
sampler = CohortSampler([10**8, 10**5], SamplingRule(alpha=0.5), seed=7)
print(len(sampler), sampler.shares.tolist())
plan = BatchPlan(len(sampler), batch_size=4, rank=1, world_size=8)
cohort, row = sampler.rows(*plan.span(1000))
print(cohort, row)
# --8<-- [end:sampler]

# --8<-- [start:index]
for cohort in ("small", "large"):
    table = f"studies/{cohort}/tiling/1_0mpp/default/64_tile_coordinates.parquet"
    print(TileTable.build_index(table, tile_size=64).name)
again = mt.SporaDataset(["small", "large"], **options)
print(np.array_equal(again.draw(0, 50).row, both.draw(0, 50).row))
# --8<-- [end:index]
