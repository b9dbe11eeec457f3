import numpy as np
from ._pyramid import blocks_of, halve


def fill_levels(base, targets, *, labels, progress, threads=None):
    source = base
    for target in targets:
        for block in blocks_of(target.shape, target.array.write_unit):
            out = np.empty(tuple(b - a for a, b in block), target.dtype)
            edges = [(2 * a, min(2 * b, n)) for (a, b), n in zip(block[-2:], source.shape[-2:])]
            out[...] = halve(source.array.read((*block[:-2], *edges)), labels=labels)
            target.array.write(block, out)
            progress("pyramid", 0, 1)
        source = target
