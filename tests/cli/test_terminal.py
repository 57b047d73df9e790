# SPDX-License-Identifier: Apache-2.0
"""What only a real terminal shows: raw mode and its end, sizes, detach keys, Ctrl-C, progress."""
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest

from conftest import CARREL


class Terminal:
    """carrel on a pty of its own, as a shell would start it."""

    def __init__(self, cli, *words, rows=30, columns=100, env=None):
        self.main, self.side = pty.openpty()
        self.size(rows, columns)
        self.before = termios.tcgetattr(self.side)
        self.heard, self.lock = b"", threading.Lock()

        def control():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen([CARREL, *words], stdin=self.side, stdout=self.side, stderr=self.side,
                                        preexec_fn=control, env={**cli.env, "TERM": "xterm", **(env or {})})
        self.listener = threading.Thread(target=self.listen, daemon=True)
        self.listener.start()

    def listen(self):
        while True:
            try:
                data = os.read(self.main, 65536)
            except OSError:
                return
            with self.lock:
                self.heard += data

    def size(self, rows, columns):
        fcntl.ioctl(self.main, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def keys(self, data):
        os.write(self.main, data)

    def wait_for(self, text, seconds=120):
        end = time.monotonic() + seconds
        while text not in self.heard:
            assert time.monotonic() < end, self.heard
            time.sleep(0.005)

    def raw(self):
        return not termios.tcgetattr(self.side)[3] & termios.ICANON

    def end(self, seconds=120):
        status = self.process.wait(seconds)
        restored = termios.tcgetattr(self.side) == self.before
        os.close(self.side)
        self.listener.join()  # before another terminal gets this number, which it would read from
        os.close(self.main)
        assert restored, "the terminal was not restored"
        return status


def echo(seen):
    def program(stream):
        seen.append(stream.first)
        stream.output(b"ready")
        while True:
            kind, value = stream.receive()
            if kind == "gone":
                seen.append("gone")
                return
            seen.append((kind, value))
            if kind == "input":
                stream.output(b"<" + value + b">")
                if b"q" in value and b"\x11" not in value:
                    stream.exit(5)
    return program


def inputs(seen):
    return b"".join(x[1] for x in seen if isinstance(x, tuple) and x[0] == "input")


def test_raw_mode_keys_and_status(cli, fake):
    seen = []
    fake.stream("/v1/workspaces/web/exec", echo(seen))
    t = Terminal(cli, "exec", "-it", "web", "bash")
    t.wait_for(b"ready")
    assert t.raw()
    t.keys(b"\x03\x1a\x04a\r")
    t.wait_for(b"a\r>")
    t.keys(b"q")
    assert t.end() == 5
    assert (seen[0]["terminal"] is True and seen[0]["rows"] == 30 and seen[0]["columns"] == 100
            and seen[0]["environment"]["TERM"] == "xterm")
    assert inputs(seen) == b"\x03\x1a\x04a\rq"


def test_resize(cli, fake):
    seen = []
    fake.stream("/v1/workspaces/web/exec", echo(seen))
    t = Terminal(cli, "exec", "-it", "web", "bash")
    t.wait_for(b"ready")
    t.size(50, 200)
    end = time.monotonic() + 10
    while ("text", {"resize": {"rows": 50, "columns": 200}}) not in seen and time.monotonic() < end:
        time.sleep(0.01)
    assert ("text", {"resize": {"rows": 50, "columns": 200}}) in seen
    t.keys(b"q")
    assert t.end() == 5


@pytest.mark.parametrize("options, keys, before", [([], b"\x10\x11", b""), ([], b"x\x10\x10\x11", b"x\x10"),
                                                   (["--detach-keys", "~,."], b"\x10\x11~~.", b"\x10\x11~"),
                                                   (["--detach-keys", "ctrl-a"], b"\x01", b"")])
def test_detach_keys(cli, fake, options, keys, before):
    seen = []
    fake.stream("/v1/workspaces/web/console", echo(seen))
    t = Terminal(cli, "console", *options, "web")
    t.wait_for(b"ready")
    for key in keys:  # typed one by one
        t.keys(bytes([key]))
        time.sleep(0.02)
    t.wait_for(b"detached")
    assert t.end() == 0
    assert inputs(seen) == before


def test_half_of_the_detach_keys_is_input(cli, fake):
    seen = []
    fake.stream("/v1/workspaces/web/console", echo(seen))
    t = Terminal(cli, "console", "web")
    t.wait_for(b"ready")
    t.keys(b"\x10a\x10")
    t.keys(b"b")
    t.wait_for(b"b>")
    t.keys(b"q")
    assert t.end() == 0
    assert inputs(seen) == b"\x10a\x10bq"


def test_bad_detach_keys(cli, fake):
    t = Terminal(cli, "console", "--detach-keys", "ctrl-", "web")
    t.wait_for(b"are no detach keys")
    assert t.end() == 2


def test_control_c_in_run_without_a_terminal_inside(cli, fake):
    seen = []

    def program(stream):
        stream.output(b"ready\n")
        while True:
            kind, value = stream.receive()
            seen.append(value)
            if value == {"signal": "KILL"}:
                stream.exit(137)
                return
    fake.answer("POST", "/v1/workspaces", lambda r: (201, {"id": "1" * 16, "name": "x"}))
    fake.stream("/v1/workspaces/" + "1" * 16 + "/attach", program)
    t = Terminal(cli, "run", "debian")
    t.wait_for(b"ready")
    assert not t.raw()
    t.keys(b"\x03")
    while not seen:
        time.sleep(0.01)
    t.keys(b"\x03")
    assert t.end() == 137
    assert seen == [{"signal": "INT"}, {"signal": "KILL"}]


@pytest.mark.parametrize("how", [signal.SIGHUP, signal.SIGTERM, signal.SIGABRT])
def test_the_terminal_is_restored_whatever_ends_it(cli, fake, how):
    fake.stream("/v1/workspaces/web/console", echo([]))
    t = Terminal(cli, "console", "web")
    t.wait_for(b"ready")
    assert t.raw()
    t.process.send_signal(how)
    assert t.end() != 0


def test_a_service_that_dies(cli, fake):
    def dies(stream):
        stream.output(b"ready")
        stream.connection.shutdown(2)
    fake.stream("/v1/workspaces/web/console", dies)
    t = Terminal(cli, "console", "web")
    t.wait_for(b"ended the connection")
    assert t.end() == 9


def slow_operation(fake):
    steps = [{"state": "running", "step": "stage",
              "progress": {"done": n << 20, "total": 400 << 20, "unit": "bytes", "reused": 50 << 20}}
             for n in range(50, 400, 50)] + [{"state": "done"}]
    left = [{"id": "f" * 16, "kind": "deploy", **s} for s in steps]

    def look(request):
        time.sleep(0.15)
        return 200, left.pop(0) if len(left) > 1 else left[0]
    fake.answer("GET", "/v1/operations/" + "f" * 16, look)
    fake.answer("POST", "/v1/workspaces", lambda r: (201, {"id": "1" * 16, "name": "web", "operation": "f" * 16}))


@pytest.mark.parametrize("columns", [140, 60])
def test_progress_bar(cli, fake, columns):
    slow_operation(fake)
    t = Terminal(cli, "deploy", "debian", columns=columns)
    assert t.process.wait(120) == 0
    t.wait_for(b"web\r\n")
    text = t.heard.decode()
    assert t.end() == 0
    if columns > 100:
        assert re.search(r"web: stage  \[=+> *\] +\d+%  [\d.]+ MiB of 400 MiB, .*MiB/s, \d+:\d\d left, 50.0 MiB were already "
                         r"there", text)
    assert "\r\x1b[K" in text and max(map(len, re.split(r"[\r\n]|\x1b\[K", text))) <= columns


def test_plain_lines_and_no_color_without_a_terminal(cli, fake):
    slow_operation(fake)
    result = cli("deploy", "debian")
    assert b"\x1b" not in result.stderr and b"\r" not in result.stderr
    slow_operation(fake)
    assert cli("-q", "deploy", "debian").stderr == b""


def test_color_only_where_it_is_wanted(cli, fake):
    for env, colored in (({}, True), ({"NO_COLOR": "1"}, False)):
        t = Terminal(cli, "show", "x", env=env)
        t.wait_for(b"no /v1/workspaces/x")
        heard = t.heard
        assert t.end() == 4
        assert (b"\x1b[31m" in heard) == colored
