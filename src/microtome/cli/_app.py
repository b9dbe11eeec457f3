"""The program: its verbs, its global options, its exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from ._answering import bench, conformance, demo, info, predict, report
from ._cohort import cohort_app
from ._console import EXIT_USAGE, run, set_verbosity
from ._exporting import export_app
from ._filling import ingest, mask, pack, stats
from ._importing import add_tiles
from ._panel import panel
from ._stores import StoreOptions, stores_reached
from ._tiling import tile
from ._view import view

__all__ = ["main"]

app = App(
    name="microtome",
    help="Tissue images from the microscope's files to model-ready tiles, and the answers back.",
    version=lambda: version("microtome"),
    # Verbs print what they found themselves; `main` decides on the exit code.
    result_action="return_value",
)
app.meta.group_parameters = app.group_parameters
# An interrupt shall be told like any other end.
app.suppress_keyboard_interrupt = app.meta.suppress_keyboard_interrupt = False

# In the order in which people need them; the last is for a program to call.
for place, verb in enumerate(
    (
        demo,
        info,
        ingest,
        panel,
        mask,
        tile,
        stats,
        pack,
        predict,
        report,
        view,
        export_app,
        bench,
        conformance,
    )
):
    if isinstance(verb, App):
        verb.sort_key = place
        app.command(verb)
    else:
        app.command(verb, sort_key=place)
cohort_app.command(add_tiles, name="add-tiles", sort_key=3.5)  # after add-mask
app.command(cohort_app)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[
        bool, Parameter(name=["-q", "--quiet"], negative=(), show_default=False)
    ] = False,
    verbose: Annotated[
        bool, Parameter(name=["-v", "--verbose"], negative=(), show_default=False)
    ] = False,
    stores: StoreOptions | None = None,
) -> int | None:
    """Tissue images from the microscope's files to model-ready tiles, and the answers back.

    Parameters
    ----------
    tokens
        The verb and its arguments.
    quiet
        Say nothing but answers, warnings and errors.
    verbose
        Say everything, tracebacks included.
    stores
        How stores are reached.
    """
    set_verbosity(-1 if quiet else 1 if verbose else 0)
    with stores_reached(stores):
        return app(tokens, exit_on_error=False, print_error=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    0, or 1 where the job could not be done, or 2 where the request is wrong.
    """
    set_verbosity(0)
    code = 0

    def action() -> None:
        nonlocal code
        try:
            found = app.meta(list(argv) if argv is not None else sys.argv[1:], exit_on_error=False)
            # A verb whose answer is no says so itself; what it cannot do is an error, raised.
            code = found if isinstance(found, int) else 0
        except CycloptsError:
            code = EXIT_USAGE

    return run(action) or code
