"""Who is turned away: other hosts and origins, no token, other methods, what is too long."""

from __future__ import annotations

import contextlib
import socket
from urllib.parse import urlsplit

import pytest

from microtome.errors import InvalidInputError, NoResolutionError, NotFoundError
from microtome.viewer import viewer_app

from .conftest import TOKEN


def raw(origin: str, text: str) -> tuple[int, bytes]:
    """Send bytes as they are: clients tidy paths up before they send them."""
    at = urlsplit(origin)
    with socket.create_connection((at.hostname, at.port), timeout=30) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode("latin-1"))
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return int(answer.split()[1]), answer


def ask(origin: str, path: str, *headers: str, method: str = "GET", host: str | None = None):
    host = urlsplit(origin).netloc if host is None else host
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return raw(origin, "\n".join(lines))


def test_with_the_token_all_is_well(origin):
    status, answer = ask(origin, f"/{TOKEN}/api/cohort")
    assert status == 200
    head = answer.lower()
    for expected in (
        b"content-security-policy: default-src 'self'; img-src 'self' blob: data:;",
        b"x-content-type-options: nosniff",
        b"referrer-policy: no-referrer",
        b"cross-origin-resource-policy: same-origin",
    ):
        assert expected in head
    assert b"access-control" not in head
    assert b"unsafe-inline" not in head
    port = urlsplit(origin).port
    assert ask(origin, f"/{TOKEN}/", host=f"localhost:{port}")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/api/cohort", f"/{TOKEN[:-1]}/api/cohort", f"/{TOKEN}x/api/cohort", f"/{TOKEN}",
     f"//{TOKEN}/api/cohort", f"/{TOKEN.upper()}/api/cohort", f"/x/../{TOKEN}/api/cohort",
     "/%E2%82%AC/api/cohort", "/static/main.js"],
)  # fmt: skip
def test_without_the_token_nothing_is_told(origin, path):
    status, answer = ask(origin, path)
    assert status == 404
    assert answer.split(b"\r\n\r\n", 1)[1] == b'{"error": "not found"}'


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}",
             "localhost", "[::1]:{port}", "0.0.0.0:{port}", "{port}", ""],
)  # fmt: skip
def test_another_name_of_this_host_is_refused(origin, host):
    """A page whose name was made to lead here (DNS rebinding) knows neither."""
    host = host.format(port=urlsplit(origin).port)
    status, answer = ask(origin, f"/{TOKEN}/api/cohort", host=host)
    assert status in {400, 404}
    assert b"tissue" not in answer


def test_two_names_at_once_or_none_are_refused(origin):
    own = urlsplit(origin).netloc
    for hosts in ("", f"Host: {own}\nHost: evil.example\n"):
        status, answer = raw(
            origin, f"GET /{TOKEN}/api/cohort HTTP/1.1\n{hosts}Connection: close\n\n"
        )
        assert status in {400, 404}
        assert b"tissue" not in answer


@pytest.mark.parametrize(
    "header",
    ["Origin: http://evil.example", "Origin: null", "Origin: https://127.0.0.1:{port}",
     "Origin: http://127.0.0.1:1", "Origin: http://localhost:{port}",
     "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site\nSec-Fetch-Mode: no-cors"],
)  # fmt: skip
def test_other_pages_are_refused(origin, header):
    port = urlsplit(origin).port
    status, answer = ask(origin, f"/{TOKEN}/api/cohort", header.format(port=port))
    assert status == 403
    assert b"tissue" not in answer
    assert b"access-control" not in answer.lower()


def test_our_own_page_and_links_from_elsewhere_are_let_in(origin):
    for header in (
        f"Origin: {origin}",
        "Sec-Fetch-Site: same-origin\nSec-Fetch-Mode: cors",
        "Sec-Fetch-Site: none\nSec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: cross-site\nSec-Fetch-Mode: navigate",
    ):
        assert ask(origin, f"/{TOKEN}/", header)[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"])
def test_only_reading_is_answered(origin, method):
    status, answer = ask(origin, f"/{TOKEN}/api/cohort", method=method)
    assert status == 405
    assert b"tissue" not in answer


@pytest.mark.parametrize(
    "path",
    ["static/../../../../../../etc/passwd", "static/..%2f..%2f..%2fetc%2fpasswd", "static/%2e%2e/_app.py",
     "static//etc/passwd", "static/..\\..\\_app.py", "static/vendor/README.md", "static/vendor",
     "static/", "static/main.js%00.svg", "../etc/passwd", "static/index.html/", "_app.py",
     "api/image/..%2F..%2Fhe/he", "api/image/../he", "api/image/a/..%2f..", "api/image/a%00/he",
     "api/overlay/a/he/masks/..%2Ftissue/0/0/0.png", "api/overlay/a/he/__class__/tissue/0/0/0.png",
     "api/overlay/a/he/tilings/default-64/0/0/0.png", "api/tiles/a/he/..%2Fx?x0=0&y0=0&x1=9&y1=9",
     "api/image/a/he/tile/0/0/0.gif", "api/image/a/he/tile/0/0/0", "docs", "openapi.json"],
)  # fmt: skip
def test_no_path_leads_out(origin, path):
    status, answer = ask(origin, f"/{TOKEN}/{path}")
    assert status == 404
    assert b"root:" not in answer
    assert b"import" not in answer
    assert b'{"error":' in answer


def test_names_of_tissues_are_never_a_path(origin, study):
    """A file that lies where a path would lead is not opened, because no path is made of a name."""
    (study.root / "secret.ome.zarr").mkdir()
    for name in ("..%2f..%2fsecret", "secret", str(study.root).replace("/", "%2F")):
        assert ask(origin, f"/{TOKEN}/api/image/{name}/he")[0] == 404


def test_what_is_too_long_is_refused(origin):
    status, answer = ask(origin, f"/{TOKEN}/api/image/a/he/tile/0/0/0.png?channels={'0,' * 5000}")
    assert status == 414
    assert b"8192" in answer
    assert ask(origin, f"/{'x' * 9000}/")[0] == 414
    # What no server should even take in ends the connection.
    with contextlib.suppress(ConnectionError):
        assert raw(origin, f"GET /{'y' * 300_000} HTTP/1.1\n\n")[0] in {400, 404, 414, 431}


def test_a_body_is_refused(origin):
    for header in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        at = urlsplit(origin)
        text = f"GET /{TOKEN}/ HTTP/1.1\nHost: {at.netloc}\n{header}\nConnection: close\n\n5\nhello\n0\n\n"
        assert raw(origin, text)[0] == 413


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("api/image/a/he/tile/9/0/0.png", 404, "no zoom 9"),
        ("api/image/a/he/tile/2/4/0.png", 404, "4 columns and 3 rows"),
        ("api/image/a/he/tile/2/99999999999999999999/0.png", 400, "whole number"),
        ("api/image/a/he/tile/2/-1/0.png", 400, "whole number"),
        (f"api/image/a/he/tile/{'9' * 5000}/0/0.png", 400, "whole number"),
        ("api/image/a/he/tile/%C2%B2/0/0.png", 400, "whole number"),
        ("api/image/a/codex/tile/0/0/0.png?channels=7:ffffff:0:1", 404, "no channel 7"),
        ("api/image/a/codex/tile/0/0/0.png?channels=x", 400, "rrggbb"),
        ("api/overlay/a/he/cells/instances/0/0/0.png?style=neon", 400, "outline or fill"),
        ("api/overlay/a/he/predictions/model/0/0/0.png?map=neon", 404, "no colour map"),
        ("api/overlay/a/he/predictions/model/0/0/0.png?low=nan", 400, "finite"),
        ("api/overlay/a/he/predictions/model/0/0/0.png?ends=dim", 400, "painted or clear"),
        ("api/overlay/a/he/predictions/model/0/0/0.png?channel=nope", 404, "no channel"),
        ("api/overlay/a/he/masks/nope/0/0/0.png", 404, "no 'masks' 'nope'"),
        ("api/tiles/a/he/default-64?x0=0&y0=0&x1=9&y1=9&limit=999999", 400, "limit"),
        ("api/tiles/a/he/default-64?x0=9&y0=0&x1=0&y1=9", 400, "box"),
        ("api/tiles/a/he/default-64?x0=nan&y0=0&x1=inf&y1=9", 400, "box"),
        ("api/tiles/a/he/default-64", 400, "x0 must be a number"),
        ("api/tiles/a/he/nope?x0=0&y0=0&x1=9&y1=9", 404, "no tiles"),
        ("api/pixel/a/he?x=871&y=0", 404, "outside"),
        ("api/pixel/a/he?x=1.5&y=0", 400, "whole number"),
        ("api/image/nobody/he", 404, "no pictures of a tissue"),
        ("api/image/a/imc", 404, "imaged as he, codex"),
    ],
)
def test_what_cannot_be_answered_is_told(client, path, status, said):
    answer = client.get(path)
    assert answer.status_code == status
    assert said in answer.json()["error"]


def test_a_websocket_is_closed(origin):
    status, _ = ask(
        origin, f"/{TOKEN}/", "Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13"
    )  # fmt: skip
    # Without the package for it uvicorn takes it for a plain request.
    assert status in {200, 400, 403, 404}


@pytest.mark.parametrize("token", ["", "a/b", "a b", "é", "..", "a%2f"])
def test_a_token_must_be_one(study, token):
    with pytest.raises(InvalidInputError, match="token"):
        viewer_app(study.root, token=token)


def test_a_cohort_states_its_own_pixel_sizes(study):
    with pytest.raises(InvalidInputError, match="leave out --mpp"):
        viewer_app(study.root, mpp=0.5)


def test_what_is_not_there_is_said_at_once(tmp_path):
    import numpy as np
    import tifffile

    with pytest.raises(NotFoundError):
        viewer_app(tmp_path / "nothing")
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((9, 9), np.uint8))
    with pytest.raises(NoResolutionError, match="--mpp"):
        viewer_app(tmp_path / "plain.tif")
    viewer_app(tmp_path / "plain.tif", mpp=0.5)
