"""Libraries that a damaged file may end, in processes of their own: what ends is theirs, never ours."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from multiprocessing import spawn
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from microtome.errors import StorageError

__all__ = ["Apart", "EndedError"]

_MOST: Final = 4
_PATIENCE_S = 5.0
_PIPE: Final = 1 << 20


class EndedError(Exception):
    """The process that was asked has ended; says how."""


class Apart:
    """Processes of one script that answer one question at a time each, started when there is one.

    A question is an object of JSON, an answer too, behind which bytes may follow. One that ends is
    replaced. They are not children that Python's `multiprocessing` knows, whose start runs the main
    script of a user once more.

    Parameters
    ----------
    script
        What they run.
    """

    def __init__(self, script: Path) -> None:
        self._script = script
        self._begin()
        atexit.register(self._close)

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._changed = threading.Condition()
        self._idle: list[_Process] = []
        self._count = 0

    def ask(self, question: dict[str, Any], about: str, out: NDArray[Any] | None = None) -> Any:
        """Return the answer to a question.

        Parameters
        ----------
        question
            Of JSON.
        about
            The file: of the processes one is asked that was asked about it before, if it is free.
        out
            Filled with what follows an answer that states its shape and dtype. A view in C order.

        Raises
        ------
        EndedError
            If the process ended before it answered. One that had answered something before may
            owe that to another file: the question is put to a new one.
        ValueError
            If other pixels follow than fit.
        StorageError
            If no process can be started.
        """
        process = self._take(about)
        try:
            fresh = not process.asked_about
            try:
                answer = process.ask(question, about, out)
            except EndedError:
                if fresh:
                    raise
                process.end()
                process = self._start()
                answer = process.ask(question, about, out)
        except BaseException:
            process.end()
            self._leave(None)
            raise
        self._leave(process)
        return answer

    def _take(self, about: str) -> _Process:
        if self._owner != os.getpid():
            # Of a process that was forked: they answer the other one.
            for process in self._idle:
                process.let_go()
            self._begin()
        with self._changed:
            most = min(_MOST, os.cpu_count() or 1)
            while not self._idle and self._count >= most:
                self._changed.wait()
            if self._idle:
                known = [p for p in self._idle if about in p.asked_about]
                process = (known or self._idle)[-1]
                self._idle.remove(process)
                return process
            self._count += 1
        try:
            return self._start()
        except BaseException:
            self._leave(None)
            raise

    def _leave(self, process: _Process | None) -> None:
        with self._changed:
            if process is None:
                self._count -= 1
            else:
                self._idle.append(process)
            self._changed.notify()

    def _start(self) -> _Process:
        places = [os.path.abspath(place) for place in sys.path if place]  # noqa: PTH100 - zips too
        # What reserves memory for threads that it does not need would be refused it.
        environment = {"PYTHONPATH": os.pathsep.join(places), "OPENBLAS_NUM_THREADS": "1"}
        program = os.fsdecode(spawn.get_executable() or sys.executable)
        try:
            return _Process(
                subprocess.Popen(  # noqa: S603 - our own interpreter and script
                    [program, "-P", str(self._script)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    bufsize=0,
                    env=os.environ | environment,
                )
            )
        except OSError as error:
            msg = f"no process can be started to read with ({program}): {error.strerror}"
            raise StorageError(msg) from error

    def _close(self) -> None:
        if self._owner == os.getpid():
            for process in self._idle:
                process.end()
            self._idle.clear()


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        with contextlib.suppress(ImportError, AttributeError, OSError):
            # Pixels come in fewer pieces; where a system does not have it so, in more.
            import fcntl

            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)
        self.asked_about: set[str] = set()

    def ask(self, question: dict[str, Any], about: str, out: NDArray[Any] | None) -> Any:
        text = json.dumps(question).encode()
        try:
            self._send(struct.pack("<Q", len(text)) + text)
            head = bytearray(8)
            self._receive(head)
            (size,) = struct.unpack("<Q", head)
            text = bytearray(size)
            self._receive(text)
            answer = json.loads(text)
            if out is not None and "shape" in answer:
                stated = tuple(answer["shape"]), answer["dtype"]
                if stated != (out.shape, out.dtype.name):
                    msg = f"it has pixels of {stated}, and {out.shape} {out.dtype} were asked for"
                    raise ValueError(msg)
                self._receive(out.data.cast("B"))
        except (BrokenPipeError, ConnectionError, EOFError) as error:
            raise EndedError(self._how_it_ended()) from error
        self.asked_about.add(about)
        return answer

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        view = memoryview(data)
        while view:
            view = view[self._process.stdin.write(view) :]

    def _receive(self, into: bytearray | memoryview) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        view = memoryview(into)
        while view:
            count: int = self._process.stdout.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            view = view[count:]

    def _how_it_ended(self) -> str:
        self.end(_PATIENCE_S)
        code = self._process.returncode
        if code >= 0:
            return "it took too long, or ended its process"
        with contextlib.suppress(ValueError):
            return f"it ended its process with {signal.Signals(-code).name}"
        return f"it ended its process with signal {-code}"

    def end(self, patience: float = 0) -> None:
        """End it, and close the pipes; what it does is dropped."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def let_go(self) -> None:
        """Forget a process that is another's child."""
        self._close_pipes()
        self._process.returncode = 0

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
