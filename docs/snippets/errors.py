# --8<-- [start:family]
import numpy as np

import microtome as mt

for attempt in (
    lambda: mt.open_image("no-such-slide.svs"),
    lambda: mt.open_image(np.zeros((4, 4, 3)), axes="yx"),
    lambda: mt.info("."),
    lambda: mt.get_grid_tile(np.ones((8, 8), bool), 4, tolerance=1.5),
):
    try:
        attempt()
    except mt.MicrotomeError as error:
        own, builtin = type(error), type(error).__mro__[2]
        print(f"{own.__name__}, a {builtin.__name__}: {error}")
# --8<-- [end:family]

# --8<-- [start:builtin]
try:
    mt.open_image("no-such-slide.svs")
except FileNotFoundError as error:
    print(isinstance(error, mt.MicrotomeError))
# --8<-- [end:builtin]
