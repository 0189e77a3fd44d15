"""`bridge` and `python` as commands of a shell, without the second that each import would cost.

`python tests/fork_server.py serve SOCKET` imports once. `call SOCKET NAME ARGUMENTS…` has it fork a child, which runs
with the environment, the directory and the streams of the caller; signals and the exit status are passed on.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import runpy
import signal
import socket
import sys
import traceback
import unittest.mock

STREAMS = 3


def call(path: str, arguments: list[str]) -> int:
    """The exit status of the child."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.connect(path)
        request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode() + b"\n"
        socket.send_fds(server, [request[:1]], range(STREAMS))
        server.sendall(request[1:])
        answers = server.makefile("r")
        child = int(answers.readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, frame: _kill(child, received))
        return int(answers.readline())


def _kill(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def serve(path: str) -> None:
    """Until it is killed. One process for each call waits for the child and answers."""
    import tests.warm  # noqa: F401, PLC0415 - callers start at once without it
    from bridge.commands.cli import main  # noqa: PLC0415
    from bridge.process import up  # noqa: PLC0415
    from bridge.simulator import scenes  # noqa: PLC0415
    from bridge.simulator.server import serve as serve_simulator  # noqa: PLC0415

    # Lives are faster than a reader's, who has more patience; and no CVM fails or ends, so that pages can rely on it.
    quick = functools.partial(serve_simulator, time_scale=0.15)
    unittest.mock.patch.object(up, "serve_simulator", quick).start()
    choices = {"provisioning": {"boot": 1}, "running": {"restart": 1, "stop": 1}, "stopped": {"boot": 1}}
    unittest.mock.patch.dict(scenes.CHOICES, choices).start()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os._exit(_attend(caller, main))
            caller.close()


def _attend(caller: socket.socket, bridge: object) -> int:
    first, streams, _, _ = socket.recv_fds(caller, 1, STREAMS)
    arguments, directory, environ = json.loads(first + caller.makefile("rb").readline())
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        caller.close()
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environ)
        _run(arguments, bridge)
    for stream in streams:
        os.close(stream)
    caller.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    caller.sendall(f"{code if code >= 0 else 128 - code}\n".encode())
    return 0


def _run(arguments: list[str], bridge: object) -> None:
    """Ends the process, as a fresh one would."""
    called, *sys.argv = arguments
    code = 1
    try:
        if os.path.basename(called) == "bridge":
            sys.argv = [called, *sys.argv]
            bridge()  # type: ignore[operator]
        elif sys.argv[0] == "-c":
            exec(compile(sys.argv[1], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
        else:
            sys.path[0] = os.getcwd()
            runpy.run_path(sys.argv[0], run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "call":
        sys.exit(call(where, rest))
    serve(where)
