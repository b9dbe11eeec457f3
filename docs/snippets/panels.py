# --8<-- [start:panel]
from pathlib import Path

import numpy as np

import microtome as mt
from microtome.cohort import cohort_panel, update_panel
from microtome.errors import InvalidInputError
from microtome.panels import (
    Channel,
    Panel,
    align_channels,
    channel_states,
    parse_channel_name,
    read_panel,
)

panel = Panel(
    (
        Channel("CD3", "P07766"),
        Channel("Collagen-FN", "P02452; P02751"),
        Channel("DNA1", is_nuclear_marker=True, extra={"tag": "Ir191"}),
        Channel("CD20", "P11836", qc_pass=False),
    )
)
print(panel.names, panel["Collagen-FN"].accessions)
# --8<-- [end:panel]

# --8<-- [start:names]
for name in ("Dy161Di(CD20)", "CD20_161Dy", "CD20 (164)", "Opal 520 CD8"):
    found = parse_channel_name(name)
    print(f"{name}: {found.marker}, {found.kind} {found.tag}")
mibi = Panel.from_names(["CD20 (164)", "ECadherin (150)", "HH3 (89)"])
print(mibi.names, mibi["CD20"].extra)
# --8<-- [end:names]

# --8<-- [start:file]
Path("panel.csv").write_text(
    "channel,name,keep,deepcell,uniprot_id\n"
    "Ir191,DNA1,1,1,\n"
    "Er170,CD3,1,2,P07766\n"
    "Xe131,,0,,\n"
)
for channel in read_panel("panel.csv"):
    print(channel.name, channel.uniprot_id, channel.qc_pass, channel.extra["tag"])
# --8<-- [end:file]

# --8<-- [start:states]
measured = {"CD3": True, "Collagen-FN": True, "DNA1": False, "CD20": True}
print(channel_states(panel, measured))
print(channel_states(panel, measured, {"CD3": False}))
# --8<-- [end:states]

# --8<-- [start:fill]
pixels = np.random.default_rng(0).poisson(4.0, (3, 64, 64)).astype(np.uint16)
mt.ingest(
    pixels,
    axes="cyx",
    mpp=1.0,
    channel_names=["CD3_Er170", "DNA1", "CD8"],
    cohort="study",
    tissue_id="t1",
    modality="imc",
)
print(update_panel("study", "imc", "panel.csv"))
print(cohort_panel("study", "imc"))
# --8<-- [end:fill]

# --8<-- [start:align]
panels = {
    "imc": panel,
    "mibi": Panel(
        (Channel("CD20 (164)", "P11836"), Channel("Col1 (145)", "P02452"))
    ),
}
aligned = align_channels(panels)
print(aligned)
# --8<-- [end:align]

# --8<-- [start:doubt]
panels["codex"] = Panel((Channel("FN", "P02751"), Channel("CD3e", "P07766")))
try:
    align_channels(panels)
except InvalidInputError as error:
    print(error)
aligned = align_channels(panels, choose={"imc": {"Collagen-FN": "Col1 (145)"}})
print(aligned.names)
# --8<-- [end:doubt]

# --8<-- [start:reference]
names = {"imc": {"DNA1": "nuclei"}, "mibi": {"Col1 (145)": "collagen"}}
followed = align_channels(panels, by=names, how=["collagen", "nuclei"])
for cohort, index in followed.index.items():
    print(cohort, index)
# --8<-- [end:reference]

# --8<-- [start:scatter]
batch = np.ones((2, 2, 8, 8), np.float32)
planes, present = aligned.scatter("mibi", batch)
print(planes.shape, present[0], planes[0, :, 0, 0])
# --8<-- [end:scatter]
