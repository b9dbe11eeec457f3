"""The viewer as an ASGI application: routes, and answers in HTTP's words."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from microtome.coordinates import Mpp
from microtome.errors import (
    DependencyError,
    InvalidInputError,
    MicrotomeError,
    NotFoundError,
    OutOfRangeError,
    UnknownNameError,
)

from ._catalogue import catalogue_of
from ._cells import cell_at, cell_of
from ._facts_at import pixel_at, tile_of, tiles_in
from ._gate import App, Gate, new_token
from ._page_files import page_files
from ._studio import Studio

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["NEEDS", "viewer_app"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

NEEDS = "the viewer needs starlette and uvicorn; install microtome[view]"

_CACHE_BYTES = 128 << 20
# Tiles drawn at a time: decoding has threads of its own, and what waits can still be dropped.
_AT_ONCE = max(2, min(8, os.cpu_count() or 1))
_KEPT = "private, max-age=3600"
_LAYER_OPTIONS = frozenset({"style", "cell", "channel", "low", "high", "map", "ends"})
_TILES = 5000
_GONE = 499  # who asked has gone: nobody reads it


def viewer_app(
    path: str | os.PathLike[str],
    *,
    token: str | None = None,
    mpp: float | tuple[float, float] | Mpp | None = None,
    image: str | int | None = None,
    cache_bytes: int = _CACHE_BYTES,
) -> App:
    """Return the viewer of a cohort or an image as an ASGI application.

    Every address lies below ``/<token>/``. It is meant for 127.0.0.1: under any other name than
    that or ``localhost`` it answers 404, whatever is asked.

    Parameters
    ----------
    path
        Directory of a cohort, or an image in any format that can be read.
    token
        The secret in every address: letters, digits, "-" and "_"; a new random one by default,
        which nobody knows: give one where the application is served by other means than `view`.
    mpp, image
        Of an image: as for `microtome.open_image`.
    cache_bytes
        How many bytes of drawn tiles are kept in memory.

    Raises
    ------
    NotFoundError, FormatError, NoResolutionError
        If there is nothing to look at, nothing that can be read, or an image without a pixel size.
    InvalidInputError
        If the token has other characters, or the cache has less than no bytes.
    DependencyError
        If the extra `view` is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Route
    except ImportError as error:
        raise DependencyError(NEEDS) from error
    chosen = new_token() if token is None else token
    if not chosen or not all(c.isascii() and (c.isalnum() or c in "-_") for c in chosen):
        msg = f"a token is letters, digits, '-' and '_', got {chosen!r}"
        raise InvalidInputError(msg)
    if cache_bytes < 0:
        msg = f"cache_bytes must be 0 or more, got {cache_bytes}"
        raise InvalidInputError(msg)
    answers = _Answers(Studio(catalogue_of(path, mpp=mpp, image=image), cache_bytes))
    picture = "{tissue}/{modality}"
    place = "{zoom}/{col}/{row}"
    routes = {
        "/": answers.page,
        "/static/{name:path}": answers.page,
        "/api/cohort": answers.cohort,
        f"/api/image/{picture}": answers.image,
        f"/api/image/{picture}/tile/{place}.{{ending}}": answers.tile,
        f"/api/overlay/{picture}/{{kind}}/{{layer}}/{place}.png": answers.overlay,
        f"/api/tiles/{picture}/{{tiling}}": answers.tiles,
        f"/api/tile/{picture}/{{tiling}}/{{number}}": answers.one_tile,
        f"/api/pixel/{picture}": answers.pixel,
        f"/api/cell/{picture}": answers.cell,
    }
    inner = Starlette(
        routes=[Route(path, endpoint, methods=["GET"]) for path, endpoint in routes.items()],
        exception_handlers={
            MicrotomeError: _told,
            404: _nowhere,
            405: _nowhere,
            Exception: _broken,
        },
    )
    inner.router.redirect_slashes = False
    return Gate(cast("App", inner), chosen)


class _Answers:
    """An answer for each route. Whatever reads files does so in a thread."""

    def __init__(self, studio: Studio) -> None:
        from anyio import CapacityLimiter

        self._studio = studio
        self._files = page_files()
        self._limit = CapacityLimiter(_AT_ONCE)

    async def page(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        found = self._files.get(name)
        if found is None:
            raise _unknown()
        # Asked for anew each time, so that a page never runs with the scripts of another version.
        if _has(request, found.tag):
            return _same(found.tag, "no-cache")
        return _answer(found.media, found.data, found.tag, "no-cache")

    async def cohort(self, request: Request) -> Response:
        return _json(await self._worked(request, self._studio.catalogue.facts))

    async def image(self, request: Request) -> Response:
        tissue, modality = _picture(request)
        return _json(
            await self._worked(request, lambda: self._studio.slide(tissue, modality).facts())
        )

    async def tile(self, request: Request) -> Response:
        ending = request.path_params["ending"]
        if ending not in {"png", "jpeg"}:
            raise _unknown()
        place, channels = _place(request), request.query_params.get("channels")
        kind = cast("Literal['png', 'jpeg']", ending)
        tissue, modality = _picture(request)

        def work() -> Response:
            slide = self._studio.slide(tissue, modality)
            if _has(request, slide.placed.identity):
                return _same(slide.placed.identity, _KEPT)
            media, data = self._studio.picture_tile(slide, place, kind, channels)
            return _answer(media, data, slide.placed.identity, _KEPT)

        return await self._worked(request, work)

    async def overlay(self, request: Request) -> Response:
        kind, layer = request.path_params["kind"], request.path_params["layer"]
        options = {k: v for k, v in request.query_params.items() if k in _LAYER_OPTIONS}
        place = _place(request)
        tissue, modality = _picture(request)

        def work() -> Response:
            slide = self._studio.slide(tissue, modality)
            identity = f"{slide.placed.identity}-{slide.layer(kind, layer).open().identity}"
            if _has(request, identity):
                return _same(identity, _KEPT)
            media, data = self._studio.overlay_tile(slide, kind, layer, place, options)
            return _answer(media, data, identity, _KEPT)

        return await self._worked(request, work)

    async def tiles(self, request: Request) -> Response:
        box = [_number(request.query_params, name) for name in ("x0", "y0", "x1", "y1")]
        limit = _whole(request.query_params.get("limit", str(_TILES)), "limit")
        tissue, modality = _picture(request)
        tiling = request.path_params["tiling"]

        def work() -> dict[str, Any]:
            slide = self._studio.slide(tissue, modality)
            return tiles_in(slide, slide.tiling(tiling), box, limit)

        return _json(await self._worked(request, work))

    async def one_tile(self, request: Request) -> Response:
        number = _whole(request.path_params["number"], "a tile's number")
        tissue, modality = _picture(request)
        tiling = request.path_params["tiling"]

        def work() -> dict[str, Any]:
            slide = self._studio.slide(tissue, modality)
            return tile_of(slide, slide.tiling(tiling), number)

        return _json(await self._worked(request, work))

    async def cell(self, request: Request) -> Response:
        tissue, modality = _picture(request)
        query = request.query_params
        if "id" in query:
            number = _whole(query["id"], "a cell's number")
            return _json(
                await self._worked(
                    request, lambda: {"cell": cell_of(self._studio.slide(tissue, modality), number)}
                )
            )
        x, y = (_whole(query.get(name, ""), name) for name in ("x", "y"))
        return _json(
            await self._worked(
                request, lambda: {"cell": cell_at(self._studio.slide(tissue, modality), x, y)}
            )
        )

    async def pixel(self, request: Request) -> Response:
        x, y = (_whole(request.query_params.get(name, ""), name) for name in ("x", "y"))
        tissue, modality = _picture(request)

        def work() -> dict[str, Any]:
            return pixel_at(self._studio.slide(tissue, modality), x, y)

        return _json(await self._worked(request, work))

    async def _worked(self, request: Request, work: Callable[[], _T]) -> _T:
        """Work in a thread, when it is its turn and somebody still waits for it."""
        from anyio.to_thread import run_sync
        from starlette.exceptions import HTTPException

        async with self._limit:
            # Someone who pans has left most of what was asked for before it is its turn.
            if await request.is_disconnected():
                raise HTTPException(_GONE)
            return await run_sync(work)


def _picture(request: Request) -> tuple[str, str]:
    return request.path_params["tissue"], request.path_params["modality"]


def _place(request: Request) -> tuple[int, int, int]:
    zoom, col, row = (_whole(request.path_params[n], n) for n in ("zoom", "col", "row"))
    return zoom, col, row


def _whole(text: str, name: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        msg = f"{name} must be a whole number from 0, got {text[:40]!r}"
        raise InvalidInputError(msg)
    return int(text)


def _number(query: Mapping[str, str], name: str) -> float:
    text = query.get(name, "")
    try:
        return float(text)
    except ValueError as error:
        msg = f"{name} must be a number, got {text[:40]!r}"
        raise InvalidInputError(msg) from error


def _unknown() -> Exception:
    from starlette.exceptions import HTTPException

    return HTTPException(404)


def _json(content: Any, status: int = 200) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status, headers={"cache-control": "no-store"})


def _has(request: Request, tag: str) -> bool:
    """Whether the browser has what it asks for."""
    return f'"{tag}"' in [v.strip() for v in request.headers.get("if-none-match", "").split(",")]


def _same(tag: str, keep: str) -> Response:
    from starlette.responses import Response

    return Response(None, 304, headers={"etag": f'"{tag}"', "cache-control": keep})


def _answer(media: str, data: bytes, tag: str, keep: str) -> Response:
    from starlette.responses import Response

    headers = {"etag": f'"{tag}"', "cache-control": keep}
    return Response(data, media_type=media, headers=headers)


async def _told(_: Request, error: Exception) -> Response:
    if isinstance(error, UnknownNameError | OutOfRangeError | NotFoundError):
        return _json({"error": str(error)}, 404)
    if isinstance(error, InvalidInputError):
        return _json({"error": str(error)}, 400)
    _log.warning("viewer: %s", error)
    return _json({"error": str(error)}, 500)


async def _nowhere(_: Request, error: Exception) -> Response:
    return _json({"error": "not found"}, cast("Any", error).status_code)


async def _broken(_: Request, error: Exception) -> Response:
    _log.error("viewer: a request failed", exc_info=error)
    return _json({"error": "the server failed at this; its log says how"}, 500)
