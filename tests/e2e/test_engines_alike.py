# SPDX-License-Identifier: Apache-2.0
"""
One workspace, whatever it runs in: the same commands give the same output, errors and status in namespaces and in a machine.

Each test runs once for each engine and compares with what is written here, not with the other engine: so it also holds where machines
cannot be tried. One workspace of each engine serves all tests that leave it as it was.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import tarfile
import termios
import time
import uuid

import pytest

from conftest import TIMEOUT, give_kernel
from guest_tools import copy_a_tree

PROGRAM = "trap 'echo asked; exit 4' TERM; trap 'echo poked' USR1; echo began; echo complained >&2; while :; do sleep 0.1; done"


@pytest.fixture(scope="module", params=["workspace", "emulator"])
def engine(request, shared_site, shared_busybox):
    if request.param == "emulator":
        give_kernel(shared_site, request.getfixturevalue("kernel"))
    return request.param


@pytest.fixture(scope="module")
def site(shared_site):
    return shared_site


@pytest.fixture(scope="module")
def one(site, engine):
    """A workspace that runs, by name."""
    name = engine[:1] + uuid.uuid4().hex[:8]
    site.carrel("deploy", "--engine", engine, "--name", name, "busybox", "--", "sh", "-c", PROGRAM)
    site.wait_state(name, "running")
    return name


@pytest.fixture
def name(engine):
    return engine[:1] + uuid.uuid4().hex[:8]


@pytest.fixture
def run(site, one):
    def program(*command, options=(), ok=0, **how):
        return site.carrel("exec", *options, one, "--", *command, ok=ok, **how)
    return program


class Terminal:
    """A command of ours on a terminal of its own."""

    def __init__(self, site, *words, size=(33, 77)):
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.out = b""
        self.child = subprocess.Popen([site.program("carrel"), *map(str, words)], stdin=slave, stdout=slave, stderr=slave,
                                      env=site.environment,
                                      start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        site.children.append(self.child)
        os.close(slave)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        if not select.select([self.master], [], [], 0.2)[0]:
            return True
        try:
            piece = os.read(self.master, 65536)
        except OSError:
            return False
        self.out += piece
        return bool(piece)

    def until(self, text):
        deadline = time.monotonic() + TIMEOUT
        while text not in self.out:
            assert self.read() and time.monotonic() < deadline, (text, self.out)
        self.out = self.out[self.out.index(text) + len(text):]

    def write(self, data):
        os.write(self.master, data)

    def end(self):
        deadline = time.monotonic() + TIMEOUT
        while self.read():
            assert time.monotonic() < deadline, self.out
        status = self.child.wait(TIMEOUT)
        os.close(self.master)
        return status, self.out.decode(errors="replace")


# --- exec: status and errors ---


@pytest.mark.parametrize("command, status, said", [
    (("sh", "-c", "exit 3"), 3, ""),
    (("sh", "-c", "kill -9 $$"), 137, ""),
    (("sh", "-c", "kill -TERM $$"), 143, ""),
    (("nosuch",), 127, 'no command "nosuch" in the workspace'),
    (("/no/such",), 127, 'no command "/no/such" in the workspace'),
    (("",), 127, 'no command "" in the workspace'),
    (("/etc/passwd",), 126, 'cannot execute "/etc/passwd"'),
    (("/etc",), 126, 'cannot execute "/etc"'),
], ids=lambda v: None)
def test_status_of_programs(run, command, status, said):
    done = run(*command, ok=status)
    assert said in done.stderr and done.stdout == "" and (said or not done.stderr)


@pytest.mark.parametrize("options, status, said", [
    (("-u", "nobody"), 127, 'no user "nobody" in the workspace'),
    (("-u", "reader:nogroup"), 127, 'no group "nogroup" in the workspace'),
    (("--workdir", "/no/such"), 127, "working directory /no/such: No such file or directory"),
    (("--workdir", "/etc/passwd"), 125, "working directory /etc/passwd: Not a directory"),
])
def test_what_exec_cannot_do_is_said(run, options, status, said):
    assert said in run("true", options=options, ok=status).stderr


def test_users_groups_and_folders(run):
    assert run("id").stdout == "uid=0(root) gid=0(root)\n"
    assert run("id", options=("-u", "reader")).stdout == "uid=1000(reader) gid=1000(reader)\n"
    assert run("id", options=("-u", "reader:root")).stdout == "uid=1000(reader) gid=0(root)\n"
    assert run("id", options=("-u", "77:88")).stdout == "uid=77 gid=88\n"
    assert run("sh", "-c", "pwd; echo $HOME", options=("-u", "1000", "--workdir", "/etc")).stdout == "/etc\n/home\n"


def test_environment_and_words(run):
    done = run("sh", "-c", 'printf "%s|" "$A" "$B" "$C" "$@"', "x", "a b", "", "\u00e4\n",
               options=("-e", "A=1", "-e", "B=", "-e", "C=x\ny"))
    assert done.stdout == "1||x\ny|a b||\u00e4\n|"
    assert run("sh", "-c", "echo ${#BIG}", options=("-e", "BIG=" + "x" * 100000)).stdout == "100000\n"
    assert run("/bin/sh", "-c", "echo $PATH", options=("-e", "PATH=/nowhere")).stdout == "/nowhere\n"


def test_many_words_and_too_many(run):
    numbers = [str(n) for n in range(12000)]
    assert run("sh", "-c", "echo $#", "x", *numbers).stdout == "12000\n"
    done = run("true", *numbers * 2, ok=125)
    assert "too long" in done.stderr and "hint: " in done.stderr


def test_rights_and_limits_are_the_same(run):
    said = run("sh", "-c", "grep -E 'Cap|NoNewPrivs' /proc/self/status; umask; ulimit -n; ulimit -c").stdout.split()
    assert said == ["CapInh:", "0" * 16, "CapPrm:", "00000000a80425fb", "CapEff:", "00000000a80425fb", "CapBnd:",
                    "00000000a80425fb", "CapAmb:", "0" * 16, "NoNewPrivs:", "1", "0022", "1024", "0"]


def test_name_and_files_that_carrel_writes(run, one):
    assert run("sh", "-c", "hostname; cat /etc/hostname; grep -c localhost /etc/hosts").stdout.split() == [one, one, "2"]
    assert run("stat", "-c", "%a", "/tmp", "/dev/shm").stdout.split() == ["1777", "1777"]


# --- exec: streams ---


def test_streams_are_separate_and_bytes_stay(run):
    done = run("sh", "-c", r"printf '\377\0x'; printf '\376' >&2", binary=True)
    assert (done.stdout, done.stderr) == (b"\xff\0x", b"\xfe")
    data = os.urandom(3 << 20)
    assert run("cat", options=("-i",), input=data, binary=True).stdout == data
    assert run("md5sum", options=("-i",), input=data, binary=True).stdout.split()[0].decode() == hashlib.md5(data).hexdigest()


def test_standard_input_only_when_asked_for(run):
    assert run("cat", input="unread").stdout == ""
    assert run("sh", "-c", "cat; echo end", options=("-i",), input="").stdout == "end\n"
    assert run("sh", "-c", "exec <&-; echo done", options=("-i",), input="x" * 2000000).stdout == "done\n"


def test_large_output_and_a_reader_that_leaves(run, site, one):
    assert len(run("head", "-c", "8000000", "/dev/zero", binary=True).stdout) == 8000000
    child = site.popen("exec", one, "--", "yes", "marker of this test")
    assert child.stdout.read(10) == b"marker of "
    child.stdout.close()
    child.wait(TIMEOUT)
    site.wait(lambda: run("sh", "-c", "ps | grep -c '[m]arker of this'", ok=(0, 1)).stdout == "0\n")


def test_a_background_process_does_not_hold_the_session(run):
    assert run("sh", "-c", "sleep 300 & echo started").stdout == "started\n"


def test_output_closed_early_is_not_the_end(run):
    run("sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 5", ok=5)


def test_many_at_once(site, one):
    children = [site.popen("exec", one, "--", "sh", "-c", f"read x; echo {n}", stdin=subprocess.PIPE) for n in range(20)]
    for n, child in enumerate(children):
        assert child.communicate(b"", timeout=TIMEOUT)[0] == b"%d\n" % n


# --- exec: signals and terminals ---


@pytest.mark.parametrize("sent", ["INT", "TERM", "HUP", "QUIT", "USR1"])
def test_signals_are_passed_on(site, one, sent):
    child = site.popen("exec", one, "--", "sh", "-c",
                       f"trap 'echo got; exit 9' {sent}; echo ready; while :; do sleep 0.1; done")
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(getattr(signal, "SIG" + sent))
    assert child.communicate(timeout=TIMEOUT)[0] == b"got\n" and child.returncode == 9


def test_a_client_that_is_killed_takes_its_program_along(site, one, run):
    child = site.popen("exec", one, "--", "sh", "-c", "echo ready; exec sleep 7171")
    assert child.stdout.readline() == b"ready\n"
    child.kill()
    site.wait(lambda: run("sh", "-c", "ps | grep -c '[s]leep 7171'", ok=(0, 1)).stdout == "0\n")


def test_a_terminal_has_its_size_from_the_first_and_follows(site, one):
    here = Terminal(site, "exec", "-it", one, "--", "sh", "-c",
                    "stty size; trap 'stty size; exit 3' WINCH; test -t 0 && test -t 1 && test -t 2 && echo all; echo $TERM; "
                    "while :; do sleep 0.1; done")
    here.until(b"33 77\r\nall\r\n")
    here.until(b"\r\n")
    here.resize(44, 99)
    here.child.send_signal(signal.SIGWINCH)
    assert here.end() == (3, "44 99\r\n")


@pytest.mark.parametrize("key, status", [(b"\x03", 8), (b"\x1c", 9)])
def test_keys_that_send_signals(site, one, key, status):
    here = Terminal(site, "exec", "-it", one, "--", "sh", "-c",
                    "trap 'exit 8' INT; trap 'exit 9' QUIT; echo go; while :; do sleep 0.1; done")
    here.until(b"go\r\n")
    here.write(key)
    assert here.end()[0] == status


def test_a_terminal_s_input_ends_by_its_key(site, one):
    here = Terminal(site, "exec", "-it", one, "--", "sh", "-c", "echo go; exec cat")
    here.until(b"go\r\n")
    here.write(b"word\n")
    here.until(b"word\r\nword\r\n")
    here.write(b"\x04")
    assert here.end()[0] == 0


def test_leaving_a_terminal(site, one, run):
    here = Terminal(site, "exec", "-it", one, "--", "sh", "-c", "echo go; exec sleep 7272")
    here.until(b"go\r\n")
    here.write(b"\x10\x11")
    assert here.end()[0] == 0
    site.wait(lambda: run("sh", "-c", "ps | grep -c '[s]leep 7272'", ok=(0, 1)).stdout == "0\n")


# --- cp ---


@pytest.fixture
def place(run):
    """A folder inside, of this test's own."""
    path = "/tmp/" + uuid.uuid4().hex[:8]
    run("mkdir", path)
    yield path
    run("rm", "-rf", path)


def test_trees_both_ways(site, one, tmp_path):
    copy_a_tree(site, one, tmp_path / "copies")
    site.carrel("exec", one, "--", "rm", "-rf", "/tmp/tree")


def make_tree(folder):
    (folder / "tree/sub").mkdir(parents=True)
    (folder / "tree/a").write_text("a\n")
    (folder / "tree/sub/b").write_text("b\n")
    os.symlink("a", folder / "tree/link")
    os.symlink("/nowhere", folder / "tree/broken")
    os.mkfifo(folder / "tree/fifo")
    os.chmod(folder / "tree/a", 0o4750)
    os.chown(folder / "tree/sub/b", 1000, 1001)
    return folder / "tree"


def test_owners_and_modes_in_and_out(site, one, run, place, tmp_path):
    tree = make_tree(tmp_path)
    site.carrel("cp", tree, f"{one}:{place}/plain")
    site.carrel("cp", "-a", tree, f"{one}:{place}/kept")
    said = run("sh", "-c", f"cd {place}; stat -c '%n %A %u %g' plain/a plain/sub/b plain/link plain/fifo kept/sub/b")
    said = said.stdout.splitlines()
    assert said == ["plain/a -rwsr-x--- 0 0", "plain/sub/b -rw-r--r-- 0 0", "plain/link lrwxrwxrwx 0 0",
                    "plain/fifo prw-r--r-- 0 0", "kept/sub/b -rw-r--r-- 1000 1001"]
    site.carrel("cp", "-a", f"{one}:{place}/kept", tmp_path / "back")
    assert os.stat(tmp_path / "back/sub/b").st_gid == 1001 and os.readlink(tmp_path / "back/broken") == "/nowhere"


def test_where_copies_go(site, one, run, place, tmp_path):
    tree = make_tree(tmp_path)
    site.carrel("cp", tree, f"{one}:{place}/")
    site.carrel("cp", f"{tree}/.", f"{one}:{place}/content")
    site.carrel("cp", tree / "a", f"{one}:{place}/renamed")
    run("ln", "-s", f"{place}/tree", f"{place}/to-tree")
    site.carrel("cp", tree / "sub/b", f"{one}:{place}/to-tree")
    assert run("ls", place).stdout.split() == ["content", "renamed", "to-tree", "tree"]
    assert run("ls", f"{place}/content").stdout.split() == ["a", "broken", "fifo", "link", "sub"]
    assert run("ls", f"{place}/tree").stdout.split() == ["a", "b", "broken", "fifo", "link", "sub"]
    (tmp_path / "out").mkdir()
    site.carrel("cp", f"{one}:{place}/tree", tmp_path / "out")
    site.carrel("cp", f"{one}:{place}/tree/.", tmp_path / "out/content")
    assert sorted(os.listdir(tmp_path / "out")) == ["content", "tree"]
    assert sorted(os.listdir(tmp_path / "out/content")) == ["a", "b", "broken", "fifo", "link", "sub"]


@pytest.mark.parametrize("words, status, said", [
    (("{file}", "{one}:/no/such/file"), 4, "folder /no/such of the workspace: No such file or directory"),
    (("{file}", "{one}:/nosuch/"), 4, "there is no folder /nosuch/"),
    (("{folder}", "{one}:/etc/passwd"), 5, "a folder cannot be copied over the file /etc/passwd"),
    (("{file}", "{one}:/etc/passwd/x"), 1, "/etc/passwd/x of the workspace: Not a directory"),
    (("{one}:/nosuch", "{folder}"), 4, "there is no /nosuch"),
    (("{one}:/etc", "{file}"), 5, "a folder cannot be copied over the file"),
    (("{one}:/etc/passwd", "{folder}/no/such"), 1, "No such file or directory"),
    (("{folder}/absent", "{one}:/tmp"), 4, "No such file or directory"),
    (("{file}", "{one}:relative"), 2, "NAME:/PATH is expected"),
    (("{file}", "{one}:/proc/nosuch"), 2, "No such file or directory"),
])
def test_copies_that_cannot_be(site, one, tmp_path, words, status, said):
    (tmp_path / "file").write_text("x")
    filled = [w.format(one=one, folder=tmp_path, file=tmp_path / "file") for w in words]
    done = site.carrel("cp", *filled, ok=None)
    assert said in done.stderr and done.returncode != 0
    assert (tmp_path / "file").read_text() == "x"


def test_tars_through_pipes(site, one, run, place, tmp_path):
    tree = make_tree(tmp_path)
    packed = subprocess.run(["tar", "-C", tree, "-c", "."], capture_output=True, check=True).stdout
    site.carrel("cp", "-", f"{one}:{place}", input=packed, binary=True)
    assert run("cat", f"{place}/sub/b").stdout == "b\n"
    out = tmp_path / "out.tar"
    out.write_bytes(site.carrel("cp", f"{one}:{place}/sub", "-", binary=True).stdout)
    with tarfile.open(out) as archive:
        assert "sub/b" in [n.removeprefix("./") for n in archive.getnames()]


@pytest.mark.parametrize("garbage", [b"garbage\n", os.urandom(100000), b""], ids=["short", "long", "empty"])
def test_what_is_no_tar_ends_the_copy(site, one, run, place, garbage):
    """Also when its end is all that it waits for; and another program's input ends while a copy is under way."""
    with contextlib.ExitStack() as stack:
        slow = site.popen("cp", "-", f"{one}:{place}")
        stack.callback(slow.kill)
        assert run("cat", options=("-i",), input="ended\n").stdout == "ended\n"
        done = site.carrel("cp", "-", f"{one}:{place}", input=garbage, binary=True, ok=None)
        assert done.returncode != 0 and b"no tar or is damaged" in done.stderr


def test_large_and_sparse_files(site, one, run, place, tmp_path):
    with open(tmp_path / "big", "wb") as f:
        f.write(os.urandom(4 << 20))
        f.truncate(300 << 20)
        f.seek(200 << 20)
        f.write(b"island")
    site.carrel("cp", tmp_path / "big", f"{one}:{place}/big")
    size, blocks = run("stat", "-c", "%s %b", f"{place}/big").stdout.split()
    assert int(size) == 300 << 20 and int(blocks) < 10000
    site.carrel("cp", f"{one}:{place}/big", tmp_path / "back")
    assert os.stat(tmp_path / "back").st_blocks < 10000
    subprocess.run(["cmp", tmp_path / "big", tmp_path / "back"], check=True)


# --- life ---


@pytest.fixture
def alive(site, engine, name):
    spec = {"name": name, "image": "busybox", "engine": engine, "labels": {"kind": "test"}, "command": ["sh", "-c", PROGRAM],
            "resources": {"disk": "2G"}, "volumes": [{"name": "data", "size": "64M", "mount": "/srv"}]}
    site.carrel("deploy", "-", input=json.dumps(spec))
    site.wait_state(name, "running")
    site.wait(lambda: "began" in site.carrel("logs", name).stdout, what="the program's first word")
    yield name
    site.carrel("rm", "-f", name, ok=None)


def lines_of(site, name, *options):
    return site.carrel("logs", *options, name).stdout.splitlines()


def megabytes(site, name):
    lines = site.carrel("exec", name, "--", "df", "-m", "/", "/srv").stdout.splitlines()[1:]
    return [int(line.split()[-5]) for line in lines]


def test_a_life(site, engine, alive):
    """Logs, pause, labels, stop, what a stopped one answers, copies out of it, start, restart and wait: in one, as starts take time."""
    logs = site.carrel("logs", alive)
    assert (logs.stdout, logs.stderr) == ("began\n", "complained\n")
    follow = site.popen("logs", "-f", alive)
    assert follow.stdout.readline() == b"began\n"
    site.carrel("exec", alive, "--", "sh", "-c", "echo kept > /kept; kill -USR1 1 || true")
    if engine == "workspace":  # in a machine its first process is another
        assert follow.stdout.readline() == b"poked\n"

    site.carrel("pause", alive)
    assert site.workspace(alive)["state"] == "paused"
    done = site.carrel("exec", alive, "--", "true", ok=125)
    assert "is not running (paused)" in done.stderr and f"carrel resume {alive}" in done.stderr
    assert "paused" in site.carrel("cp", f"{alive}:/etc/passwd", "/dev/null", ok=None).stderr
    site.carrel("pause", alive, ok=None)
    site.carrel("resume", alive)
    assert site.carrel("exec", alive, "--", "cat", "/kept").stdout == "kept\n"

    site.carrel("set", alive, "--label", "kind=", "--label", "more=yes")
    assert site.workspace(alive)["spec"]["labels"] == {"more": "yes"}
    site.wait(lambda: site.json("why", alive)["reason"] == "settled")

    before = megabytes(site, alive)
    site.carrel("set", alive, "--disk", "3G", "--volume", "data:200M")
    if engine != "workspace":  # a machine has a kernel of its own; in namespaces it depends on the host
        site.wait(lambda: megabytes(site, alive)[0] > before[0] + 900 and megabytes(site, alive)[1] > 150, what="larger disks")
    assert "cannot shrink" in site.carrel("set", alive, "--disk", "1G", ok=2).stderr

    waits = site.popen("wait", alive, "--for", "stopped") if "--for" in site.carrel("wait", "--help").stdout else None
    site.carrel("stop", "--timeout", "30s", alive)
    found = site.workspace(alive)
    assert (found["state"], found["exit_status"]) == ("stopped", 4)
    assert waits is None or waits.wait(TIMEOUT) == 0
    assert b"asked\n" in follow.communicate(timeout=TIMEOUT)[0]
    assert "is not running (stopped)" in site.carrel("exec", alive, "--", "true", ok=125).stderr
    assert site.carrel("cp", f"{alive}:/kept", "-", binary=True).stdout
    assert lines_of(site, alive, "--tail", "1") == ["asked"]

    site.carrel("start", alive)
    site.wait_state(alive, "running")
    assert site.carrel("exec", alive, "--", "cat", "/kept").stdout == "kept\n"
    site.carrel("restart", alive)
    found = site.wait_state(alive, "running")
    assert site.carrel("exec", alive, "--", "cat", "/kept").stdout == "kept\n"
    site.wait(lambda: megabytes(site, alive)[0] > before[0] + 900 and megabytes(site, alive)[1] > 150, what="larger disks")
    site.wait(lambda: lines_of(site, alive).count("began") == 3)


def test_a_program_that_ignores_the_signal_is_killed(site, engine, name):
    site.carrel("deploy", "--engine", engine, "--name", name, "busybox", "--", "sh", "-c",
                "trap '' TERM; echo deaf; while :; do sleep 1; done")
    site.wait(lambda: "deaf" in site.carrel("logs", name).stdout)
    began = time.monotonic()
    site.carrel("stop", "--timeout", "1s", name)
    assert site.workspace(name)["exit_status"] == 137 and time.monotonic() - began >= 1
    site.carrel("rm", name)


def test_a_program_that_ends_and_its_console(site, engine, name):
    """run's streams and status, as the first process has them."""
    done = site.carrel("run", "--engine", engine, "--name", name, "-i", "busybox", "--", "sh", "-c",
                       "cat; echo err >&2; exit 7", input="in\n", ok=7)
    assert done.stdout == "in\n" and "err\n" in done.stderr
    found = site.wait_state(name, "stopped", "failed")
    assert found["exit_status"] == 7
    assert lines_of(site, name) == ["in"]
    site.carrel("rm", name)


def test_attached_to_a_terminal(site, engine, name):
    here = Terminal(site, "run", "--engine", engine, "--name", name, "-it", "busybox", "--", "sh", "-c",
                    "echo go; read x; echo got $x; stty size; trap 'echo int; exit 6' INT; echo now; while :; do sleep 0.1; "
                    "done")
    here.until(b"go\r\n")
    here.write(b"word\n")
    here.until(b"got word\r\n33 77\r\nnow\r\n")
    here.write(b"\x03")
    status, said = here.end()
    assert status == 6 and said.endswith("int\r\n")
    site.wait_state(name, "stopped", "failed")
    site.carrel("rm", name)


def test_programs_that_cannot_be_started(site, engine, name):
    done = site.carrel("run", "--rm", "--engine", engine, "--name", name, "busybox", "--", "nosuch", ok=127)
    assert 'no command "nosuch"' in done.stderr
    done = site.carrel("run", "--rm", "--engine", engine, "--name", name + "b", "busybox", "--", "/etc/passwd", ok=126)
    assert 'cannot execute "/etc/passwd"' in done.stderr
