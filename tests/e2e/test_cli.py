# SPDX-License-Identifier: Apache-2.0
"""Every verb of the command line against the real service, agent and engine."""
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import pty
import random
import re
import signal
import socket
import subprocess
import tarfile
import time

import pytest

from guest_tools import copy_a_tree


def text(result):
    return result.stdout


@pytest.fixture
def name(request):
    return re.sub("[^a-z0-9]+", "-", request.node.name)[:40].strip("-")


@pytest.fixture
def box(shared_site, shared_busybox, name):
    """A running workspace in the shared site, gone after the test."""
    shared_site.carrel("deploy", "busybox", "--name", name, "--disk", "64M", "-l", "test=cli", "--", "sleep", "1000")
    yield name
    shared_site.carrel("rm", "-f", name, ok=(0, 4))


def test_run(shared_site, shared_busybox):
    run = shared_site.carrel
    assert text(run("run", "--rm", "busybox", "--", "echo", "a  b")) == "a  b\n"
    result = run("run", "--rm", "busybox", "--", "sh", "-c", "echo out; echo err >&2; exit 7", ok=7)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert text(run("run", "--rm", "-i", "busybox", "--", "wc", "-c", input="x" * 2_000_000)).strip() == "2000000"
    assert text(run("run", "--rm", "-e", "A=1 2", "--workdir", "/tmp", "--hostname", "h1", "busybox", "--", "sh", "-c",
                    "echo $A; pwd; hostname")) == "1 2\n/tmp\nh1\n"
    assert run("run", "--rm", "busybox", "--", "sh", "-c", "kill -9 $$", ok=137).stdout == ""
    assert shared_site.json("ls") == [] or all(w["name"] for w in shared_site.json("ls"))


def test_what_is_packed_is_looked_into(shared_site, shared_busybox, name, tmp_path):
    """docker save | gzip, and disks as vendors offer them: also bytes that do not pack, of which little comes out at first."""
    shared_site.carrel("image", "export", "busybox", tmp_path / "busybox.oci")
    packed = tmp_path / "busybox.oci.gz"
    packed.write_bytes(gzip.compress((tmp_path / "busybox.oci").read_bytes(), 1))
    shared_site.carrel("image", "import", name, packed)
    assert shared_site.json("image", "show", name)["digest"] == shared_site.json("image", "show", "busybox")["digest"]
    disk = b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa" + random.Random(2).randbytes(3 << 20)
    for pack in (gzip.compress, lzma.compress, bz2.compress):
        shared_site.carrel("image", "import", name, "-", input=pack(disk), binary=True)
        partition = shared_site.json("image", "show", name)["partitions"][0]
        assert partition["digest"] == "sha256:" + hashlib.sha256(disk).hexdigest()
    shared_site.carrel("image", "rm", name)
    assert "curl" in shared_site.carrel("image", "import", name, "https://example.org/disk.raw.xz", ok=2).stderr


def test_run_of_what_is_not_there(shared_site, shared_busybox):
    assert "nonsense" in shared_site.carrel("run", "--rm", "busybox", "--", "/bin/nonsense", ok=127).stderr
    shared_site.carrel("run", "--rm", "busybox", "--", "/etc", ok=126)
    assert "no image" in shared_site.carrel("run", "--rm", "absent", ok=125).stderr


def test_run_keeps_nothing_and_everything(shared_site, shared_busybox, name):
    shared_site.carrel("run", "--name", name, "busybox", "--", "sh", "-c", "echo kept > /kept; exit 3", ok=3)
    show = shared_site.wait_state(name, "stopped")
    assert show["exit_status"] == 3
    assert "stopped (3)" in text(shared_site.carrel("ls", name))
    shared_site.carrel("rm", name)
    shared_site.carrel("show", name, ok=4)


def test_run_returns_when_it_is_over(shared_site, shared_busybox, name):
    """Without --rm: stopped, and free to be removed or started; with it: gone, and the name is free."""
    for i in range(5):
        shared_site.carrel("run", "--name", name, "busybox", "--", "true")
        assert shared_site.workspace(name)["state"] == "stopped"
        shared_site.carrel("rm", name)
        shared_site.carrel("run", "--rm", "--name", name, "busybox", "--", "true")
        assert shared_site.workspace(name) is None


def test_a_large_output_is_whole(shared_site, shared_busybox):
    out = shared_site.carrel("run", "--rm", "busybox", "--", "head", "-c", "30000000", "/dev/zero", binary=True,
                             timeout=180).stdout
    assert len(out) == 30_000_000 and not out.strip(b"\0")


def test_interrupt_of_run(shared_site, shared_busybox):
    process = shared_site.popen("run", "--rm", "busybox", "--", "sh", "-c",
                                "trap 'echo got; exit 9' INT; echo ready; while :; do sleep 0.1; done", stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() in (b"ready", "ready")
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 9


def test_exec(shared_site, box):
    run = shared_site.carrel
    assert text(run("exec", box, "--", "cat", "/proc/1/comm")).strip()
    result = run("exec", box, "sh", "-c", "echo out; echo err >&2; exit 5", ok=5)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
    assert text(run("exec", "-i", box, "wc", "-c", input="y" * 1_000_000)).strip() == "1000000"
    assert text(run("exec", "-e", "K=v w", "--workdir", "/etc", box, "sh", "-c", "echo $K; pwd")) == "v w\n/etc\n"
    run("exec", box, "/bin/nonsense", ok=127)
    run("exec", box, "/etc/passwd", ok=126)
    run("exec", "absent-workspace", "true", ok=125)


def on_terminal(site, *words, keys=b"", until=b"", seconds=120):
    main, side = pty.openpty()
    process = site.popen(*words, stdin=side, stdout=side, stderr=side)
    heard, end = b"", time.monotonic() + seconds
    os.set_blocking(main, False)
    sent = False
    while time.monotonic() < end and process.poll() is None:
        try:
            heard += os.read(main, 65536)
        except BlockingIOError:
            time.sleep(0.01)
        if not sent and until in heard:
            os.write(main, keys)
            sent = True
    status = process.wait(5)
    try:
        heard += os.read(main, 65536)
    except OSError:
        pass
    os.close(main), os.close(side)
    return status, heard


def test_exec_on_a_terminal(shared_site, box):
    status, heard = on_terminal(shared_site, "exec", "-it", box, "--", "sh", "-c",
                                "tty; stty size; echo go; read x; echo \"[$x]\"; exit 4", keys=b"abc\r", until=b"go")
    assert status == 4 and b"[abc]" in heard and b"/dev/pts/" in heard


def test_run_on_a_terminal_detach_and_console(shared_site, shared_busybox, name):
    script = "echo go; while read x; do echo \"[$x]\"; done"
    status, heard = on_terminal(shared_site, "run", "-it", "--name", name, "busybox", "--", "sh", "-c", script,
                                keys=b"one\r\x10\x11", until=b"go")
    assert status == 0 and b"detached" in heard
    assert shared_site.json("show", name)["state"] == "running"
    status, heard = on_terminal(shared_site, "console", name, keys=b"two\r\x10\x11", until=b"connected")
    assert status == 0
    shared_site.wait(lambda: "[two]" in text(shared_site.carrel("logs", name)))
    shared_site.carrel("rm", "-f", name)


def test_life_of_a_workspace(shared_site, box):
    run, state = shared_site.carrel, lambda: shared_site.json("show", box)["state"]
    for verb, after in (("pause", "paused"), ("resume", "running"), ("stop", "stopped"), ("start", "running"),
                        ("restart", "running")):
        assert text(run(verb, box, timeout=180)).strip() == box
        assert state() == after
    run("exec", box, "true")
    run("pause", box)
    assert "paused" in text(run("ls", "--state", "paused"))
    run("resume", box)
    operation = text(run("stop", "-d", "-t", "1s", box)).strip()
    run("operation", "wait", operation)
    assert operation in text(run("operation", "ls", "-a")) and shared_site.json("operation", "show",
                                                                                operation)["state"] == "done"
    assert state() == "stopped"


def test_names_ids_and_labels(shared_site, box):
    run = shared_site.carrel
    show = shared_site.json("show", box)
    assert shared_site.json("show", show["id"][:6])["name"] == box
    run("rename", box, box[:30] + "-2")
    run("rename", box[:30] + "-2", box)
    run("set", box, "-l", "team=blue", "-l", "test=")
    assert text(run("ls", "-q", "-l", "team=blue")) == box + "\n"
    assert shared_site.json("show", box)["spec"]["labels"] == {"team": "blue"}


def test_growing_a_disk(shared_site, box):
    size = lambda: int(text(shared_site.carrel("exec", box, "--", "sh", "-c", "df -k / | tail -1 | awk '{print $2}'")))
    before = size()
    shared_site.carrel("set", box, "--disk", "256M", timeout=180)
    if size() < before * 2:  # a kernel that lets root not resize what is mounted: at the next start
        shared_site.carrel("restart", "-w", box, timeout=180)
    assert size() > before * 2
    assert shared_site.carrel("set", box, "--disk", "32M", ok=(2, 5, 7)).stderr


def test_logs(shared_site, shared_busybox, name):
    shared_site.carrel("deploy", "busybox", "--name", name, "--", "sh", "-c",
                       "for i in 1 2 3 4 5; do echo line $i; done; sleep 1000")
    shared_site.wait(lambda: "line 5" in text(shared_site.carrel("logs", name)))
    assert text(shared_site.carrel("logs", "-n", "2", name)) == "line 4\nline 5\n"
    process = shared_site.popen("logs", "-f", name, stdout=subprocess.PIPE)
    assert process.stdout.readline().strip() in (b"line 1", "line 1")
    shared_site.carrel("rm", "-f", name)
    assert process.wait(120) in (0, 9)


def test_logs_of_what_never_ran(shared_site, shared_busybox, name):
    shared_site.carrel("deploy", "busybox", "--name", name, "--", "/bin/nonsense", ok=(1, 4))
    assert text(shared_site.carrel("logs", name, ok=(0, 4, 5))) == ""
    assert "nonsense" in text(shared_site.carrel("why", name))
    shared_site.carrel("rm", "-f", name)


def test_cp(shared_site, box, tmp_path):
    run = shared_site.carrel
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/sub/f").write_bytes(os.urandom(1_500_000))
    os.symlink("f", tmp_path / "src/sub/link")
    run("cp", tmp_path / "src", f"{box}:/tmp")
    run("cp", f"{tmp_path}/src/.", f"{box}:/new")
    run("cp", tmp_path / "src/sub/f", f"{box}:/tmp/renamed")
    for path in ("/tmp/src/sub", "/new/sub", "/tmp"):
        out = tmp_path / path.replace("/", "_")
        run("cp", f"{box}:{path}", out)
        file = out / ("f" if path != "/tmp" else "renamed")
        assert file.read_bytes() == (tmp_path / "src/sub/f").read_bytes()
    assert os.readlink(tmp_path / "_new_sub/link") == "f"
    assert text(run("exec", box, "--", "stat", "-c", "%u:%g", "/tmp/renamed")).strip() == "0:0"
    run("cp", f"{box}:/etc/absent", tmp_path, ok=4)
    run("cp", tmp_path / "src/sub/f", f"{box}:/absent/folder/f", ok=4)
    data = run("cp", f"{box}:/new", "-", binary=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {"new", "new/sub", "new/sub/f"} <= set(tar.getnames())
    run("exec", box, "mkdir", "/again")
    run("cp", "-", f"{box}:/again", input=data, binary=True)
    assert text(run("exec", box, "ls", "/again/new/sub")).split() == ["f", "link"]
    copy_a_tree(shared_site, box, tmp_path / "copies")


def test_wait(shared_site, box):
    run = shared_site.carrel
    run("wait", box)  # a program is ready when it runs
    run("wait", "--for", "running", box)
    assert "not paused yet" in run("wait", "--for", "paused", "--timeout", "1s", box, ok=9).stderr
    name = f"{box}-ends"
    run("deploy", "busybox", "--name", name, "--", "true")
    run("wait", "--for", "stopped", name)
    assert "is stopped" in run("wait", name, ok=5).stderr
    assert "--timeout" in run("wait", "--timeout", "soon", box, ok=2).stderr
    run("wait", "absent-workspace", ok=4)
    run("rm", name)


def test_snapshots(shared_site, box):
    run = shared_site.carrel
    run("exec", box, "sh", "-c", "echo one > /state; sync")
    run("stop", "-t", "0s", box)
    run("snapshot", "create", box, "first", timeout=180)
    assert [s["name"] for s in shared_site.json("snapshot", "ls", box)] == ["first"]
    run("start", box)
    run("exec", box, "sh", "-c", "echo two > /state; sync")
    run("stop", "-t", "0s", box)
    run("snapshot", "restore", box, "first", timeout=180)
    run("start", box)
    assert text(run("exec", box, "cat", "/state")) == "one\n"
    run("stop", "-t", "0s", box)
    run("snapshot", "rm", box, "first")
    assert shared_site.json("snapshot", "ls", box) == []


def test_volumes_that_stay(shared_site, shared_busybox, name):
    run, volume = shared_site.carrel, name[:30] + "-v"
    for step in ("echo kept > /data/x", "cat /data/x"):
        out = run("run", "--rm", "-v", f"{volume}:64M:/data,keep", "busybox", "--", "sh", "-c", step, timeout=180)
    assert text(out) == "kept\n"
    shared_site.wait(lambda: volume in text(run("volume", "ls")))
    run("volume", "rm", volume)
    shared_site.wait(lambda: volume not in text(run("volume", "ls")))


def test_why_doctor_version_events(shared_site, box):
    run = shared_site.carrel
    assert text(run("why", box)) and text(run("doctor"))
    assert shared_site.json("version")["service"]["version"]
    events = [json.loads(line) for line in text(run("events", "--format", "json")).splitlines()]
    assert any(box in json.dumps(e) or shared_site.json("show", box)["id"] in json.dumps(e) for e in events)
    process = shared_site.popen("events", "-f", "--after", "0")
    assert process.stdout.readline()


def test_dry_run_changes_nothing(shared_site, shared_busybox):
    before = shared_site.json("ls")
    plan = text(shared_site.carrel("deploy", "busybox", "--name", "dry", "--dry-run", "--", "true"))
    assert "mount" in plan or "overlay" in plan
    assert shared_site.json("ls") == before


def test_rungs_of_the_ladder(shared_site, shared_busybox, name):
    for until, state in (("staged", "staged"), ("prepared", "prepared"), ("paused", "paused")):
        shared_site.carrel("deploy", "busybox", "--name", name, "--until", until, "--", "sleep", "1000", timeout=180)
        assert shared_site.json("show", name)["state"] == state
        shared_site.carrel("start" if until != "paused" else "resume", name)
        assert shared_site.json("show", name)["state"] == "running"
        shared_site.carrel("rm", "-f", name)


def test_import_and_export(shared_site, shared_busybox, busybox_tar, name, tmp_path):
    run = shared_site.carrel
    run("image", "export", "busybox", tmp_path / "x.oci", timeout=180)
    run("image", "import", name + ":v1", tmp_path / "x.oci", timeout=180)
    run("image", "export", "--format-image", "tar", "busybox", tmp_path / "x.tar", timeout=180)
    (tmp_path / "root").mkdir()
    with tarfile.open(tmp_path / "x.tar") as tar:
        tar.extractall(tmp_path / "root")
    run("image", "import", name + "-dir", tmp_path / "root", timeout=180)
    with open(busybox_tar, "rb") as archive:
        run("image", "import", name + "-tar", "-", input=archive.read(), timeout=60, binary=True)
    for image in (name + ":v1", name + "-dir", name + "-tar"):
        assert text(run("run", "--rm", image, "--", "/bin/busybox", "echo", "alive")) == "alive\n"
        assert shared_site.json("image", "show", image)["name"] == image
    run("image", "rm", name + ":v1", name + "-dir", name + "-tar")
    assert name not in text(run("image", "ls"))


def test_an_interrupted_import_leaves_nothing(shared_site, name):
    reader, writer = os.pipe()
    process = shared_site.popen("image", "import", name, "-", stdin=reader)
    info = tarfile.TarInfo("big")
    info.size = 1 << 30
    os.write(writer, info.tobuf())
    for _ in range(100):
        os.write(writer, b"z" * 10000)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 10
    os.close(writer), os.close(reader)
    assert name not in text(shared_site.carrel("image", "ls"))
    shared_site.wait(lambda: not [p for p in (shared_site.state / "store/tmp").glob("session-*")])


def test_a_failed_import_says_why(shared_site, name):
    """Not that a pipe broke: the service's reason, although there was much more to send."""
    reader, writer = os.pipe()
    process = shared_site.popen("image", "import", name, "-", "--format-image", "tar", stdin=reader)
    os.close(reader)
    try:
        for _ in range(20000):
            os.write(writer, b"no archive at all" * 4000)
    except BrokenPipeError:
        pass
    os.close(writer)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 8, said
    assert "archive" in said.decode() and "roken pipe" not in said.decode() and "reset" not in said.decode()


def test_an_export_is_seen_and_cancelled(shared_site, name, tmp_path):
    with tarfile.open(tmp_path / "big.tar", "w") as archive:
        info = tarfile.TarInfo("data")
        info.size = 60 << 20
        with open("/dev/urandom", "rb") as noise:
            archive.addfile(info, noise)
    run = shared_site.carrel
    run("image", "import", name, tmp_path / "big.tar", timeout=180)
    child = shared_site.popen("image", "export", name, tmp_path / "out.tar", stderr=subprocess.PIPE)

    def under_way():
        return [o for o in shared_site.json("operation", "ls") if o["kind"] == "image-export" and o["image"] == name
                and o["progress"]["done"] and o["progress"]["total"] >= 60 << 20]
    shared_site.wait(lambda: under_way() or child.poll() is not None)
    operations = under_way()
    assert operations and operations[0]["step"] == "pack", child.stderr.read()
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 10
    assert [p.name for p in tmp_path.iterdir()] == ["big.tar"]
    shared_site.wait(lambda: not under_way())
    child = shared_site.popen("image", "export", name, tmp_path / "out.tar", stderr=subprocess.PIPE)
    shared_site.wait(under_way)
    run("operation", "cancel", under_way()[0]["id"])
    assert child.wait(60) != 0
    assert [p.name for p in tmp_path.iterdir()] == ["big.tar"]
    # what is not a terminal sees lines, with what is done of how much
    done = run("image", "export", name, tmp_path / "out.tar", timeout=180)
    assert (tmp_path / "out.tar").stat().st_size > 60 << 20 and "warning" not in done.stderr
    run("image", "rm", name)


def test_sockets_that_stay_behind_are_told(shared_site, name, tmp_path):
    (tmp_path / "root").mkdir()
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(tmp_path / "root/control"))
    said = shared_site.carrel("image", "import", name, tmp_path / "root").stderr
    assert "1 socket was left out" in said
    one.close()
    shared_site.carrel("image", "rm", name)


def test_completion_knows_real_names(shared_site, box):
    assert box in [line.split("\t")[0] for line in text(shared_site.carrel("__complete", "show", box[:3])).splitlines()]
    assert "busybox" in text(shared_site.carrel("__complete", "run", "busy"))


def test_bad_names_everywhere(shared_site):
    for bad in ("../x", "a/b", "x\n", "\x1b[2J", "x" * 5000, "é", "%00", "."):
        for verb in ("show", "why", "start", "rm"):
            assert "\x1b" not in shared_site.carrel(verb, bad, ok=(2, 4)).stderr
        shared_site.carrel("deploy", "busybox", "--name", bad, ok=2)
        shared_site.carrel("image", "show", bad, ok=(2, 4))


def test_every_option_lands_in_the_spec(shared_site, shared_busybox, name, tmp_path):
    """What --help offers for deploy, and what the service keeps of it; the other way of saying it is a spec file."""
    (tmp_path / "user-data").write_text("#cloud-config\n")
    (tmp_path / "key.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMK7bjk86cvhbGCqzzuiqhHiKO48ArQ+/kQZVI4Onjag me\n")
    options = {"--cpu": "0.5", "--memory": "64M", "--disk": "96M", "--processes": "500", "--env": "A=b", "--user": "1:2",
               "--workdir": "/tmp",
               "--volume": f"{name}:32M:/data:ro", "--label": "kind=all", "--hostname": "h1", "--restart": "on-failure",
               "--until": "prepared",
               "--network": "none", "--engine": "workspace", "--isolation": "namespace", "--mode": "program",
               "--stop-timeout": "3s"}
    shared_site.carrel("deploy", "busybox", "--name", name, *(word for pair in options.items() for word in pair), "--travels",
                       "--", "sleep", "7")
    spec = shared_site.workspace(name)["spec"]
    assert spec == {
        "name": name, "image": "busybox", "engine": "workspace", "mode": "program", "command": ["sleep", "7"],
        "environment": {"A": "b"}, "user": "1:2", "directory": "/tmp", "hostname": "h1", "labels": {"kind": "all"},
        "restart": "on-failure",
        "resources": {"cpu": 0.5, "memory": 64 << 20, "disk": 96 << 20, "processes": 500}, "until": "prepared",
        "network": "none",
        "volumes": [{"name": name, "size": 32 << 20, "mount": "/data", "read-only": True}], "travels": True, "stop-timeout": 3}
    shared_site.carrel("rm", name)
    rules = {"--network": "default", "--publish": "127.0.0.1:18081:80", "--allow": "wan", "--deny": "192.0.2.0/24",
             "--from": "198.51.100.0/24 tcp/22",
             "--group": name, "--user-data": str(tmp_path / "user-data"), "--ssh-key": str(tmp_path / "key.pub"),
             "--until": "prepared"}
    shared_site.carrel("network", "create", "default", ok=None)
    shared_site.carrel("deploy", "busybox", "--name", name, *(word for pair in rules.items() for word in pair), "--", "sleep",
                       "7")
    spec = shared_site.workspace(name)["spec"]
    assert spec["networks"] == [{"network":
                                 "default"}] and spec["publish"] == ["127.0.0.1:18081:80"] and spec["allow"] == ["wan"]
    assert spec["deny"] == ["192.0.2.0/24"] and spec["from"] == ["198.51.100.0/24 tcp/22"] and spec["groups"] == [name]
    assert spec["user-data"] == "#cloud-config\n" and spec["ssh-keys"] == [(tmp_path / "key.pub").read_text().strip()]
    assert (name in [w["name"] for w in shared_site.json("ls", "--image", "busybox")]
            and not shared_site.json("ls", "--image", "nothing"))
    shared_site.carrel("rm", name)
    shared_site.carrel("deploy", "busybox", "--name", name, "--isolated", "--until", "prepared", "--", "sleep", "7")
    assert shared_site.workspace(name)["spec"]["isolated"] is True
    shared_site.carrel("rm", name)


def test_each_of_several_failures_is_told_once(shared_site, shared_busybox, name):
    shared_site.carrel("deploy", "busybox", "--name", name, "--until", "prepared", "--", "true")
    failed = shared_site.carrel("rm", name + "-a", name + "-b", name, ok=4)
    assert failed.stdout.split() == [name] and failed.stderr.count("error: no workspace") == 2
