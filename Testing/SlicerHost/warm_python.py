"""A Python that has imported PyTorch already, for the workers of tests that are not about processes.

Every worker of the panels is a process of its own, and imports PyTorch for seconds where a test computes for a fraction
of one. Here one server per session of tests imports it; each worker is forked from there. What the panels start is a
small program in front, whose process stands for the worker: it has the worker's exit code, it passes signals on, and
where it is killed, the worker is. The engine itself is not imported beforehand: each worker reads it anew.

Linux only: macOS's own libraries do not survive a fork, and Windows has none. There ``start`` returns None, and workers
start from nothing, as they do for users.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import NamedTuple

#: What a worker imports of others. ``torch._dynamo`` is what an optimiser imports when it is made.
IMPORTED = ("torch", "torch._dynamo", "SimpleITK", "scipy.ndimage", "safetensors.torch", "tqdm")

#: -S and -E: it starts in some hundredths of a second. It holds the server's connection, which ends with it.
_CLIENT = """#!/bin/sh
'''exec' '{python}' -SE "$0" "$@"
' '''
import json, os, select, signal, socket, sys
told, tell = socket.socketpair()
tell.setblocking(False)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: None)
signal.set_wakeup_fd(tell.fileno())  # no signal is lost between two looks
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
heard = server.makefile("rb")
worker = int(heard.readline())
while True:
    readable = select.select([server, told], [], [])[0]
    if server in readable:
        break
    for number in told.recv(64):
        try:
            os.kill(worker, number)
        except ProcessLookupError:
            pass
code = int(heard.readline() or -9)
if code < 0:
    if -code != signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class WarmPython:
    """A server at work; ``folder`` holds the program ``PythonSlicer``, to be put on PATH."""

    def __init__(self, folder: Path, server: subprocess.Popen[str]) -> None:
        self.folder = folder
        self._server = server

    def stop(self) -> None:
        """End the server, and with it the workers that are still there."""
        self._server.terminate()
        self._server.wait(30)


def start(folder: Path) -> WarmPython | None:
    """Start a server whose socket and program lie in ``folder``; None on other systems than Linux.

    Raises RuntimeError where the server does not come up.
    """
    if sys.platform != "linux":
        return None
    address = folder / "socket"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, str(Path(__file__).resolve()), str(address)]
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    if server.stdout.readline().strip() != "ready":
        msg = f"the server of workers did not start: exit code {server.wait()}"
        raise RuntimeError(msg)
    program = folder / "PythonSlicer"
    program.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    return WarmPython(folder, server)


class _Job(NamedTuple):
    """What a worker is to run: Python's arguments, the working directory, the environment."""

    arguments: list[str]
    directory: str
    environment: dict[str, str]


def _serve(address: str) -> _Job | None:
    """Fork a worker for each connection; return its job in the worker, and None in the server when it is ended."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            __import__(name)
    if threading.active_count() > 1:
        msg = "an import has started threads: a fork would lose them"
        raise RuntimeError(msg)
    gc.freeze()  # so that a worker's collections do not copy what all share
    waker, wakened = socket.socketpair()
    for end in (waker, wakened):
        end.setblocking(False)
    ended: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    signal.set_wakeup_fd(wakened.fileno(), warn_on_full_buffer=False)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    with selectors.DefaultSelector() as selector:
        for readable in (listener, waker, sys.stdin.fileno()):
            selector.register(readable, selectors.EVENT_READ)
        print("ready", flush=True)
        workers: dict[int, socket.socket] = {}
        while not ended:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    job = _fork(connection, workers)
                    if job is not None:
                        return job
                    if connection in workers.values():
                        selector.register(connection, selectors.EVENT_READ)
                elif key.fileobj is waker:
                    waker.recv(4096)
                    _bury(workers, selector)
                elif key.fileobj == sys.stdin.fileno():  # whoever started the server is gone
                    ended.append(1)
                elif key.fileobj in workers.values():  # not one that was buried in this very turn
                    _end(workers, key.fileobj)
                    selector.unregister(key.fileobj)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    return None


def _fork(connection: socket.socket, workers: dict[int, socket.socket]) -> _Job | None:
    """Fork a worker for what a client asks; return its job in the worker, None in the server."""
    connection.settimeout(10)
    streams: list[int] = []
    try:
        size, streams, _, _ = socket.recv_fds(connection, 8, 3)
        with connection.makefile("rb") as heard:
            job = _Job(*json.loads(heard.read(int.from_bytes(size, "big"))))
    except (OSError, ValueError):  # the client was ended before it had asked
        for stream in streams:
            os.close(stream)
        connection.close()
        return None
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it has the worker's own handling
    worker = os.fork()
    if worker == 0:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        # Sockets of the server and of other workers: whoever holds one of them keeps its client waiting.
        os.closerange(3, max(map(int, os.listdir("/dev/fd"))) + 1)
        return job
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    for stream in streams:
        os.close(stream)
    workers[worker] = connection
    with contextlib.suppress(OSError):  # a client that is gone already: its connection is readable now
        connection.sendall(f"{worker}\n".encode())
    return None


def _bury(workers: dict[int, socket.socket], selector: selectors.BaseSelector) -> None:
    """Tell the clients of workers that have ended how they ended."""
    for worker in list(workers):
        gone, status = os.waitpid(worker, os.WNOHANG)
        if gone:
            connection = workers.pop(worker)
            with contextlib.suppress(OSError):
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            with contextlib.suppress(KeyError):
                selector.unregister(connection)
            connection.close()


def _end(workers: dict[int, socket.socket], connection: object) -> None:
    """End the worker whose client is gone."""
    for worker, its_own in workers.items():
        if its_own is connection:
            os.kill(worker, signal.SIGKILL)


def _run(job: _Job) -> None:
    """Be ``python ARGUMENTS`` from here on."""
    os.chdir(job.directory)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115  the streams of before belonged to the server
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8", write_through=True)
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    sys.argv = list(job.arguments)
    sys.path[0] = str(Path(job.arguments[0]).parent)
    code = 0
    try:
        runpy.run_path(job.arguments[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    # As the interpreter ends, but without taking PyTorch's modules apart, which lasts a second in a forked process.
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    os._exit(code)


if __name__ == "__main__":
    found = _serve(sys.argv[1])
    if found is not None:
        _run(found)
