# --8<-- [start:rgb]
import numpy as np

from microtome.standardize import (
    Moments,
    QuantileCounter,
    RgbStandardizer,
    StandardizationSpec,
    StatisticsTable,
    StatisticsTables,
    build_standardizer,
)

pixel = np.array([255, 128, 0], np.uint8).reshape(3, 1, 1)
for name in ("imagenet", "hibou", "identity", "raw"):
    values = RgbStandardizer.preset(name)(pixel).ravel()
    print(name, [f"{value:.3f}" for value in values])
# --8<-- [end:rgb]

# --8<-- [start:fit]
rng = np.random.default_rng(0)
# Pixels of two channels inside the tissue.
counts = rng.poisson([[5.0], [40.0]], (2, 10_000)).astype(np.uint16)

spec = StandardizationSpec.parse("quantile_clipping/uq_0.99_image")
counter = QuantileCounter(counts.dtype, channels=2, quantiles=[0.99])
while not counter.done:
    for block in np.split(counts, 10, axis=1):
        counter.update(block)
    counter.finish_pass()
upper = counter.quantiles()[:, 0]
print(upper, np.quantile(counts, 0.99, axis=1))
# --8<-- [end:fit]

# --8<-- [start:moments]
moments = Moments(channels=2)
for block in np.split(counts, 10, axis=1):
    values = block.astype(float)
    spec.transform(values, np.zeros((2, 1)), upper[:, None])
    moments.update(values)
print(moments.mean.round(4), moments.std.round(4))
# --8<-- [end:moments]

# --8<-- [start:tables]
names = ("CD3", "DNA")
tables = StatisticsTables(
    StatisticsTable(names, upper[None], tissue_ids=("t1",)),
    means=StatisticsTable(names, moments.mean[None]),
    stds=StatisticsTable(names, moments.std[None]),
    fitted_on=("t1",),
    split="train",
)
tables.write("quantile_clipping/uq_0.99_image")
# --8<-- [end:tables]

# --8<-- [start:apply]
read = StatisticsTables.read("quantile_clipping/uq_0.99_image")
standardize = build_standardizer(spec, names, tables=read, tissue_id="t1")
tile = counts[:, :64].reshape(2, 8, 8)
ours = standardize(tile)

uq, mean, std = (v[:, None, None] for v in (upper, moments.mean, moments.std))
by_hand = (np.clip(tile, 0, uq) / (uq + 1e-8) - mean) / (std + 1e-8)
print(ours.dtype, bool(np.allclose(ours, by_hand, atol=1e-4)))
# --8<-- [end:apply]

# --8<-- [start:outside]
# (row, col, height, width) inside the image: columns 5 to 7 lie outside.
part = standardize(tile, valid=(0, 0, 8, 5))
print(np.unique(part[:, :, 5:]), np.array_equal(part[:, :, :5], ours[:, :, :5]))
# --8<-- [end:outside]
