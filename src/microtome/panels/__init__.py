"""Panels: which channels a cohort has, what each of them shows, and which are the same elsewhere.

* `Panel`: the channels of a multiplex modality in order, each a `Channel` with its UniProt
  accession, its quality control and its role. `read_panel` makes one of another tool's file,
  `Panel.from_names` of an image's channel names.
* `channel_states`: what one tissue knows of each channel, three states of it.
* `align_channels`: the channels of several cohorts in one order, a `ChannelAlignment`, with a report.
"""

from ._align import align_channels
from ._alignment import AlignmentRow, AlignmentStatus, ChannelAlignment
from ._files import PanelFormat, read_panel
from ._matching import name_key
from ._name_table import NameTable, read_name_table
from ._names import ChannelName, TagKind, metal_tag, parse_channel_name
from ._panel import HISTONE_H3, Channel, Panel
from ._states import ChannelState, channel_states
from ._uniprot import is_uniprot_accession, parse_uniprot, without_isoform

__all__ = [
    "HISTONE_H3",
    "AlignmentRow",
    "AlignmentStatus",
    "Channel",
    "ChannelAlignment",
    "ChannelName",
    "ChannelState",
    "NameTable",
    "Panel",
    "PanelFormat",
    "TagKind",
    "align_channels",
    "channel_states",
    "is_uniprot_accession",
    "metal_tag",
    "name_key",
    "parse_channel_name",
    "parse_uniprot",
    "read_name_table",
    "read_panel",
    "without_isoform",
]
