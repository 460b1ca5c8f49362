"""Which process this is, and how one notices that another is gone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from captionkit import lifeline, processes
from captionkit.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "JAX_PROCESS_ID", "JAX_NUM_PROCESSES")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_launcher_there_is_one(monkeypatch):
    assert processes.launched() == (0, 1)
    assert processes.is_main_process()
    monkeypatch.setenv("RANK", "1")  # of something else
    assert processes.launched() == (0, 1)
    assert processes.connected().gather(b"x") == [b"x"]
    assert processes.connected().broadcast(b"x") == b"x"


@pytest.mark.parametrize("names", [VARIABLES[:2], VARIABLES[2:]])
def test_launchers(monkeypatch, names):
    for name, value in zip(names, "13"):
        monkeypatch.setenv(name, value)
    assert processes.launched() == (1, 3)
    assert not processes.is_main_process()
    processes.check_launcher(names[1], "how")
    other = next(name for name in VARIABLES[1::2] if name != names[1])
    with pytest.raises(ConfigError, match=f"{names[1]}=3"):
        processes.check_launcher(other, "how")


@pytest.mark.parametrize(
    ("index", "count", "says"),
    [("3", "3", "is not below"), ("1", None, "each needs"), (None, "2", "each needs"),
     ("-1", "2", "each needs"), ("a", "2", "each needs")],
)  # fmt: skip
def test_what_cannot_be_is_refused(monkeypatch, index, count, says):
    for name, value in (("JAX_PROCESS_ID", index), ("JAX_NUM_PROCESSES", count)):
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says):
        processes.launched()


# three processes that exchange by way of files; number 1 ends in the given way
LINE = """
    import os, pathlib, sys, time
    from captionkit import lifeline
    from captionkit.processes import Processes

    home, index, end = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    turn = [0]

    def gather(content):
        turn[0] += 1
        (home / f"{turn[0]}-{index}.tmp").write_bytes(content)
        (home / f"{turn[0]}-{index}.tmp").rename(home / f"{turn[0]}-{index}")
        paths = [home / f"{turn[0]}-{i}" for i in range(3)]
        while not all(path.exists() for path in paths):
            time.sleep(0.01)
        return [path.read_bytes() for path in paths]

    together = Processes(index, 3, gather, lambda content: gather(content)[0])
    lifeline._SECONDS_TO_FAIL_TOO = 1.0
    lifeline.hold(together, "127.0.0.1")
    together.wait()
    if index == 1:
        if end == "kill":
            os.kill(os.getpid(), 9)
        if end == "raise":
            raise ValueError("mine")
        if "failed" in end:
            lifeline.failed(3)
            sys.exit(3)
        sys.exit(0)
    if end == "all failed":
        lifeline.failed(4)
        sys.exit(4)
    time.sleep(2 if end == "well" else 100)
    print("done")
"""


@pytest.mark.parametrize(
    ("end", "status"), [("kill", -9), ("raise", 1), ("failed", 3), ("all failed", 3), ("well", 0)]
)
def test_the_end_of_one_is_that_of_all_unless_it_ends_well(tmp_path, end, status):
    running = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(LINE), str(tmp_path), str(index), end],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(3)
    ]  # fmt: skip
    told = [process.communicate(timeout=90) for process in running]
    assert running[1].returncode == status
    for index, who in ((0, 1), (2, 0)):
        output, errors = told[index]
        if end == "well":
            assert (running[index].returncode, output) == (0, "done\n")
        elif end == "all failed":  # each with its own error
            assert (running[index].returncode, errors) == (4, "")
        else:
            assert running[index].returncode == 1
            assert f"process {who} of this run has ended before its time" in errors


def test_a_stranger_is_not_let_in():
    """Who connects without the token is hung up on, and disturbs nobody."""
    server = socket.create_server(("127.0.0.1", 0))
    port, token = server.getsockname()[1], os.urandom(16)
    accepted = {}
    waiting = threading.Thread(
        target=lambda: accepted.update(lifeline._accepted(server, token, 1)), daemon=True
    )
    waiting.start()
    stranger = socket.create_connection(("127.0.0.1", port))
    stranger.sendall(b"x" * 20)
    assert stranger.recv(1) == b""
    silent = socket.create_connection(("127.0.0.1", port))
    silent.close()
    own = socket.create_connection(("127.0.0.1", port))
    own.sendall(token + (7).to_bytes(4, "big"))
    waiting.join(30)
    assert list(accepted) == [7]
    for line in (server, stranger, own, *accepted.values()):
        line.close()
