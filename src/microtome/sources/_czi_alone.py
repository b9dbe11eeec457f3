"""What a process of its own runs: Zeiss's library, which a damaged file may end. `_apart` asks it.

It is run as a script, and imports nothing of microtome: it is to start at once.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import signal
import struct
import sys
from collections import OrderedDict
from typing import Any, BinaryIO

# What one question may take: no tile that was stored is decoded in more.
_LONGEST_S = 120
# What is asked for at a time is far smaller; what a damaged file claims may be anything.
_MOST_MEMORY = 4 << 30
_MOST_OPEN = 16
_OPEN: OrderedDict[tuple[str, tuple[int, ...]], Any] = OrderedDict()


def _main() -> None:
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)
    questions = os.fdopen(0, "rb", 0, closefd=False)
    # Who asks is interrupted, and ends this one by no longer asking.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silent = open(os.devnull, "w")  # noqa: PTH123, SIM115 - until the end
    with contextlib.suppress(ImportError):  # told with the first question
        importlib.import_module("pylibCZIrw.czi")
    _limit()
    while (size := _whole(questions, 8)) is not None:
        asked = _whole(questions, *struct.unpack("<Q", size))
        if asked is None:
            return
        # It ends the process from a thread of its own, whatever the library holds.
        faulthandler.dump_traceback_later(_LONGEST_S, exit=True, file=silent)
        pixels = None
        try:
            answer, pixels = _answer(json.loads(asked))
        except ImportError as error:
            answer = {"missing": str(error)}
        except OSError as error:
            answer = {"error": str(error) or type(error).__name__, "errno": error.errno}
        except Exception as error:  # noqa: BLE001 - whichever the library raises
            answer = {"error": str(error) or type(error).__name__}
        faulthandler.cancel_dump_traceback_later()
        text = json.dumps(answer).encode()
        answers.write(struct.pack("<Q", len(text)))
        _write(answers, text)
        if pixels is not None:
            _write(answers, pixels)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


def _answer(asked: dict[str, Any]) -> tuple[dict[str, Any], memoryview | None]:
    reader = _reader(asked["path"], tuple(asked["state"]))
    if asked["what"] == "layout":
        scenes = reader.scenes_bounding_rectangle
        return {
            "scenes": {number: list(map(int, found)) for number, found in scenes.items()},
            "whole": list(map(int, reader.total_bounding_rectangle)),
            "box": {axis: list(map(int, span)) for axis, span in reader.total_bounding_box.items()},
        }, None
    if asked["what"] == "facts":
        types = sorted(set(reader.pixel_types.values()))
        return {"types": types, "metadata": reader.raw_metadata}, None
    import numpy as np

    found = reader.read(roi=tuple(asked["roi"]), plane=asked["plane"], scene=asked["scene"])
    pixels = np.ascontiguousarray(found)
    answer = {"shape": pixels.shape, "dtype": pixels.dtype.name}
    return answer, pixels.reshape(-1).view(np.uint8).data


def _reader(path: str, state: tuple[int, ...]) -> Any:
    from pylibCZIrw import czi

    key = path, state
    if key in _OPEN:
        _OPEN.move_to_end(key)
        return _OPEN[key]
    found = os.stat(path)  # noqa: PTH116 - a script without paths
    if (found.st_ino, found.st_size, found.st_mtime_ns) != state:
        msg = "it was changed after it was opened"
        raise ValueError(msg)
    while len(_OPEN) >= _MOST_OPEN:
        _OPEN.popitem(last=False)[1].close()
    _OPEN[key] = czi.CziReader(path)
    return _OPEN[key]


def _whole(file: BinaryIO, size: int) -> bytes | None:
    found = b""
    while len(found) < size:
        more = file.read(size - len(found))
        if not more:
            return None
        found += more
    return found


def _write(file: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        _main()
    sys.exit(0)
