"""Panels of a cohort: what is known of its channels, and which tissue measured what."""

from ._panel_states import CohortPanel, cohort_panel
from ._panel_update import PanelMatch, PanelUpdate, update_panel

__all__ = ["CohortPanel", "PanelMatch", "PanelUpdate", "cohort_panel", "update_panel"]
