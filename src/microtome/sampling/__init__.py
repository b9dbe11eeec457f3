"""Sampling: which rows of which cohort an epoch draws, and in what order.

`CohortSampler` is a function of (seed, epoch, position): nothing is shuffled or stored, so that any
thread, process or rank computes its part of the one stream. `SamplingRule` says how much of each
cohort an epoch has, `RowGroups` which rows belong to one patient. `permute` is the shuffle under it, `drawn` the
random number of any position.
"""

from ._groups import RowGroups
from ._permutation import KEYS, permute
from ._rule import SamplingRule
from ._sampler import CohortSampler
from ._stream import drawn

__all__ = ["KEYS", "CohortSampler", "RowGroups", "SamplingRule", "drawn", "permute"]
