"""Looking at slides in a browser: a server for this machine only, and the page that it serves.

`view` opens a cohort or an image; `viewer_app` is the same as an ASGI application, for tests and
for servers of one's own.
"""

from ._app import viewer_app
from ._serve import view

__all__ = ["view", "viewer_app"]
