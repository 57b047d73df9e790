# SPDX-License-Identifier: Apache-2.0
"""
Suspend and resume in the engine `workspace`, by a real CRIU: programs and whole systems go on where they were, with their processes,
open files, pipes, sockets and connections; whatever is killed on the way, the workspace goes on or is suspended, never neither.

CRIU: $CARREL_CRIU, or one that tools/get-criu fetches into the cache folder. Where none works, all of this is skipped with the reason.
"""
import contextlib
import fcntl
import os
import pathlib
import shutil
import signal
import tempfile
import termios
import threading
import time

import pytest

import conftest

@pytest.fixture(scope="module")
def sites(prefix, criu, busybox_tar):
    # carrel-checkpoint covers /tmp for itself
    plan = pathlib.Path(tempfile.mkdtemp(prefix="carrel-test-faults-", dir="/var/tmp")) / "plan"
    plan.write_text("")
    site = conftest.Site(prefix, env={"CARREL_CRIU": criu, "CARREL_FAULTS": str(plan)})
    site.faults = plan
    conftest.import_image(site, "busybox", busybox_tar)
    yield site
    problems = site.close()
    shutil.rmtree(plan.parent)
    assert not problems, "\n".join(problems)


@pytest.fixture
def site(sites):
    yield sites
    sites.faults.write_text("")
    if not sites.node.running():
        sites.node.start()
    for item in sites.api("GET", "/v1/workspaces?limit=1000")[1]["items"]:
        sites.carrel("rm", "-f", item["name"], ok=None)


def inside(site, name, command, **how):
    return site.carrel("exec", name, "--", "sh", "-c", command, **how).stdout


def pids(site, name):
    return inside(site, name, "for p in /proc/[0-9]*; do read -r c 2>/dev/null < $p/comm && echo ${p#/proc/} $c; done")


COUNTER = "i=0; while true; do i=$((i+1)); echo tick $i; usleep 100000; done"


def ticks(site, name):
    return [int(line.split()[1]) for line in site.carrel("logs", name).stdout.splitlines() if line.startswith("tick ")]


def test_program_goes_on(site):
    """The counter is in the memory of a shell: after the resume it counts on, leaving nothing out, in the log and in the state."""
    site.carrel("deploy", "busybox", "--name", "counter", "--", "sh", "-c", COUNTER)
    site.wait(lambda: len(ticks(site, "counter")) > 3)
    site.carrel("suspend", "counter")
    state = site.workspace("counter")
    assert state["state"] == "suspended" and not state.get("pid")
    assert not conftest.host_processes("\0", *site.ids(), state["id"]), "suspended, and still there"
    before = ticks(site, "counter")
    site.carrel("resume", "counter")
    site.wait(lambda: len(ticks(site, "counter")) > len(before) + 3)
    seen = ticks(site, "counter")
    assert seen == list(range(1, len(seen) + 1))
    assert site.workspace("counter")["state"] == "running"


def test_limits_and_disks_are_changed_while_it_is_suspended(site):
    """They hold when it goes on. Less than it had in memory is refused, as it would not come back."""
    site.carrel("deploy", "busybox", "--name", "w", "--memory", "200M", "--disk", "64M", "--", "sh", "-c", COUNTER)
    inside(site, "w", "dd if=/dev/urandom of=/dev/shm/held bs=1M count=50 2>/dev/null")
    kib = int(inside(site, "w", "df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"))
    site.carrel("suspend", "w")
    before = site.workspace("w")["spec"]
    assert "which does not come back into 20.0 MiB" in site.carrel("set", "w", "--memory", "20M", ok=None).stderr
    assert site.workspace("w")["spec"] == before
    site.carrel("set", "w", "--memory", "150M", "--cpu", "0.5", "--disk", "128M")
    assert site.workspace("w")["state"] == "suspended"
    site.carrel("resume", "w")
    folders = [pathlib.Path(f) for f in conftest.host_cgroups(site.workspace("w")["id"])]
    files = ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max")
    texts = [(f / n).read_text().strip() for f in folders for n in files if (f / n).exists()]
    assert str(150 << 20) in texts and ("50000" in texts or "50000 100000" in texts), texts
    if "next start" not in site.workspace("w").get("notice", ""):  # in use it is grown where the host can
        site.wait(lambda: int(inside(site, "w", "df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2")) > kib + 32 * 1024)


def test_program_goes_on_elsewhere(site, new_site, criu, busybox_tar, tmp_path):
    """Another service gives it other ids of the host, and the second of the same bundle another id, too."""
    there = new_site(env={"CARREL_CRIU": criu})
    conftest.import_image(there, "busybox", busybox_tar)
    site.carrel("deploy", "busybox", "--name", "counter", "--volume", "data:16M:/data", "--", "sh", "-c",
                "echo mine >/data/file; chown 1000 /data/file; echo mine >/dev/shm/file; chown 1000 /dev/shm/file; " + COUNTER)
    site.wait(lambda: len(ticks(site, "counter")) > 3)
    assert "namespaces" in site.carrel("snapshot", "create", "--memory", "counter", ok=None).stderr
    site.carrel("suspend", "counter")
    site.carrel("export", "counter", tmp_path / "f")
    for name in ("counter", "second"):
        there.carrel("import", "--name", name, tmp_path / "f")
    for name in ("counter", "second"):
        there.carrel("resume", name)
        there.wait(lambda name=name: len(ticks(there, name)) > 3)
        assert ticks(there, name)[0] > 3, "it began anew"
        assert inside(there, name, "stat -c %u /data/file /dev/shm/file; echo $(id -u)").split() == ["1000", "1000", "0"]


def test_a_site_below_tmp(prefix, criu, busybox_tar, monkeypatch):
    """carrel-checkpoint covers /tmp for itself."""
    monkeypatch.setenv("CARREL_TEST_DIR", "/tmp")
    there = conftest.Site(prefix, env={"CARREL_CRIU": criu})
    conftest.import_image(there, "busybox", busybox_tar)
    there.carrel("deploy", "busybox", "--name", "one", "--network", "none", "--", "sleep", "1000")
    before = there.carrel("exec", "one", "--", "pidof", "sleep", ok=None).stdout
    there.carrel("suspend", "one")
    there.carrel("resume", "one")
    assert there.carrel("exec", "one", "--", "pidof", "sleep", ok=None).stdout == before
    there.carrel("rm", "-f", "one")
    assert not there.close()


def test_again_and_again(site):
    site.carrel("deploy", "busybox", "--name", "counter", "--", "sh", "-c", COUNTER)
    for _ in range(3):
        n = len(ticks(site, "counter"))
        site.wait(lambda n=n: len(ticks(site, "counter")) > n + 2)
        site.carrel("suspend", "counter")
        site.carrel("resume", "counter")
    seen = ticks(site, "counter")
    assert seen == list(range(1, len(seen) + 1))


def test_exit_status_is_told(site):
    site.carrel("deploy", "busybox", "--name", "ends", "--", "sh", "-c",
                "trap 'exit 42' TERM; while true; do usleep 50000; done")
    site.wait_state("ends", "running")
    site.carrel("suspend", "ends")
    site.carrel("resume", "ends")
    site.carrel("stop", "ends")
    assert site.wait_state("ends", "stopped", "failed")["exit_status"] == 42


def test_what_a_program_holds(site):
    """A removed file that is open, a FIFO, a pipe with something in it, a background child, an environment, a working folder."""
    script = ("cd /tmp 2>/dev/null || cd /; export WORD=kept; echo removed > gone; exec 5<gone; rm gone; mkfifo pipe; exec "
              "6<>pipe; echo inthepipe >&6; "
              "sleep 1000 & while [ ! -e go ]; do usleep 50000; done; read -r a <&5; read -r b <&6; echo $WORD $a $b $PWD $! "
              "> said; "
              "kill $! && echo child >> said; while true; do usleep 100000; done")
    site.carrel("deploy", "busybox", "--name", "holds", "--", "sh", "-c", script)
    site.says("holds", "ls", "/tmp", "/", until=lambda text: "pipe" in text)
    folder = "/tmp" if "pipe" in inside(site, "holds", "ls /tmp") else "/"
    site.carrel("suspend", "holds")
    site.carrel("resume", "holds")
    inside(site, "holds", f"touch {folder}/go")
    said = site.says("holds", "cat", f"{folder}/said", until=lambda text: text.count("\n") == 2)
    words = said.split()
    assert words[:4] == ["kept", "removed", "inthepipe", folder] and words[-1] == "child"


def test_input_that_was_not_read(site):
    """What was written to the standard input before, and not read yet, is read afterwards."""
    attached = site.popen("run", "-i", "--name", "reader", "busybox", "--", "sh", "-c",
                          "while [ ! -e /go ]; do usleep 50000; done; read -r line; echo got $line; while true; do usleep "
                          "100000; done")
    site.wait_state("reader", "running")
    attached.stdin.write(b"hello there\n")
    attached.stdin.flush()
    pid = site.workspace("reader")["pid"]

    def waiting():
        child = (children(pid) or [pid])[0]  # before it is there the first process has another input
        with open(f"/proc/{child}/fd/0", "rb", buffering=0) as pipe:
            return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0\0\0\0"), "little")
    site.wait(lambda: waiting() == 12, what="the input in the pipe")
    site.carrel("suspend", "reader")
    site.carrel("resume", "reader")
    inside(site, "reader", "touch /go")
    site.wait(lambda: "got hello there" in site.carrel("logs", "reader").stdout)


def test_suspended_outlives_the_daemons(site):
    site.carrel("deploy", "busybox", "--name", "counter", "--", "sh", "-c", COUNTER)
    site.wait(lambda: len(ticks(site, "counter")) > 2)
    site.carrel("suspend", "counter")
    site.node.kill()
    site.service.kill()
    site.service.start()
    site.node.start()
    assert site.workspace("counter")["state"] == "suspended"
    site.carrel("resume", "counter")
    n = len(ticks(site, "counter"))
    site.wait(lambda: len(ticks(site, "counter")) > n + 2)
    seen = ticks(site, "counter")
    assert seen == list(range(1, len(seen) + 1))


def test_commands_that_run_in_it(site):
    site.carrel("deploy", "busybox", "--name", "visited", "--", "sleep", "1000")
    visitor = site.popen("exec", "visited", "--", "sh", "-c", "echo here; sleep 1000")
    assert visitor.stdout.readline() == b"here\n"
    refused = site.carrel("suspend", "visited", ok=None)
    assert refused.returncode != 0 and "exec" in refused.stderr
    assert site.workspace("visited")["state"] == "running"
    assert inside(site, "visited", "echo alive") == "alive\n"


def test_without_criu(prefix, site):
    """Told beforehand, with what to do; nothing is done."""
    site.carrel("deploy", "busybox", "--name", "stays", "--", "sleep", "1000")
    site.node.stop()
    site.node.env = {**site.node.env, "CARREL_CRIU": "/nonexistent/criu"}
    site.node.start()
    try:
        refused = site.carrel("suspend", "stays", ok=None)
        assert refused.returncode != 0 and "CRIU" in refused.stderr and "get-criu" in refused.stderr
        site.wait(lambda: "CRIU" in site.carrel("suspend", "--check", "stays", ok=None).stdout, what="the reason")
        assert site.workspace("stays")["state"] == "running"
    finally:
        site.node.stop()
        site.node.env = site.environment
        site.node.start()


def goes_on(site, name):
    """It counts further, and nothing was left out: the suspension did not happen."""
    site.wait(lambda: site.workspace(name)["state"] == "running")
    n = len(ticks(site, name))
    site.wait(lambda: len(ticks(site, name)) > n + 2, what="further ticks")
    seen = ticks(site, name)
    assert seen == list(range(1, len(seen) + 1))


@pytest.mark.parametrize("fault", ["checkpoint.dumped kill", "checkpoint.dumped ENOSPC", "runner.suspend EIO",
                                   "runner.saved EIO", "runner.commit EIO",
                                   "suspend-manifest ENOSPC", "suspend-saved EIO", "suspend-saved kill", "suspend-commit kill"])
def test_a_suspension_that_fails_changes_nothing(site, fault):
    site.carrel("deploy", "busybox", "--name", "counter", "--", "sh", "-c", COUNTER)
    site.wait(lambda: len(ticks(site, "counter")) > 2)
    site.faults.write_text(fault + "\n")
    killed = fault.startswith("suspend-") and fault.endswith("kill")
    site.carrel("suspend", *(["--detach"] if killed else []), "counter", ok=None)
    # the agent; a new one does what is wished, so the counter is suspended in the end, and goes on when it is asked to
    if killed:
        site.node.process.wait(60)
        site.node.start()
        site.wait_state("counter", "suspended")
        site.carrel("resume", "counter")
    elif site.faults.read_text().startswith("#"):
        goes_on(site, "counter")
        site.carrel("suspend", "counter")
        site.carrel("resume", "counter")
    goes_on(site, "counter")


@pytest.mark.parametrize("fault", ["checkpoint.namespaces EIO", "checkpoint.namespaces kill", "checkpoint.resume ENOSPC"])
def test_a_resume_that_fails_leaves_it_suspended(site, fault):
    site.carrel("deploy", "busybox", "--name", "counter", "--", "sh", "-c", COUNTER)
    site.wait(lambda: len(ticks(site, "counter")) > 2)
    site.carrel("suspend", "counter")
    site.faults.write_text(fault + "\n")
    assert site.carrel("resume", "counter", ok=None).returncode != 0
    assert site.workspace("counter")["state"] == "suspended"
    site.carrel("resume", "counter")
    goes_on(site, "counter")


@pytest.mark.parametrize("fault", ["checkpoint.restored kill", "checkpoint.restored EIO"])
def test_a_helper_that_dies_when_they_run_again_takes_nobody_along(site, fault):
    """The memory state is used up then: what is not adopted would be lost."""
    site.carrel("deploy", "busybox", "--name", "counter", "--", "sh", "-c", COUNTER)
    site.wait(lambda: len(ticks(site, "counter")) > 2)
    site.carrel("suspend", "counter")
    site.faults.write_text(fault + "\n")
    site.carrel("resume", "counter")
    goes_on(site, "counter")


def test_what_is_thrown_away_goes_on_too(site):
    """Its overlay is volatile, which the kernel does not mount a second time by itself."""
    status, answer, _ = site.api("POST", "/v1/workspaces",
                                 {"spec": {"name": "brief", "image": "busybox", "command": ["sh", "-c", COUNTER],
                                           "remove-on-exit": True}})
    assert status == 201, answer
    site.wait_state("brief", "running")
    site.wait(lambda: len(ticks(site, "brief")) > 2)
    inside(site, "brief", "echo kept > /file")
    site.carrel("suspend", "brief")
    site.carrel("resume", "brief")
    assert inside(site, "brief", "cat /file") == "kept\n"
    goes_on(site, "brief")
    site.carrel("stop", "-t", "0s", "brief")
    site.wait(lambda: site.workspace("brief") is None, what="its removal")


def children(pid):
    with contextlib.suppress(OSError):
        return [int(c) for c in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def of_criu(site):
    """Processes of CRIU's in the site's folders."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"swrk" in (process / "cmdline").read_bytes() and str(site.state) in os.readlink(process / "cwd"):
                found.append(process.name)
    return found


@pytest.mark.parametrize("after_ms", [5, 20, 50, 120])
def test_criu_is_killed(site, after_ms):
    """At some moment of its work: whether it was early or late, the workspace goes on or is suspended."""
    site.carrel("deploy", "busybox", "--name", "counter", "--", "sh", "-c", COUNTER)
    site.wait(lambda: len(ticks(site, "counter")) > 2)
    first = site.workspace("counter")["pid"]
    runner = int([line for line in pathlib.Path(f"/proc/{first}/status").read_text().splitlines()
                  if line.startswith("PPid")][0].split()[1])
    before = set(children(runner))

    def hunt():
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for pid in set(children(runner)) - before:
                with contextlib.suppress(OSError):
                    if b"swrk" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                        time.sleep(after_ms / 1000)
                        os.kill(pid, signal.SIGKILL)
                        return
            time.sleep(0.001)
    hunter = threading.Thread(target=hunt)
    hunter.start()
    site.carrel("suspend", "counter", ok=None)
    hunter.join()
    site.wait(lambda: not of_criu(site), what="an end of all that CRIU forked")
    if site.workspace("counter")["state"] == "suspended":
        site.carrel("resume", "counter")
    goes_on(site, "counter")


def test_damaged_image_is_refused(site):
    site.carrel("deploy", "busybox", "--name", "counter", "--", "sh", "-c", COUNTER)
    site.wait(lambda: len(ticks(site, "counter")) > 2)
    site.carrel("suspend", "counter")
    folder = site.state / "node/workspaces" / site.workspace("counter")["id"] / "memory"
    victim = folder / "pages-1.img"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    refused = site.carrel("resume", "counter", ok=None)
    assert refused.returncode != 0 and "pages-1.img" in refused.stderr
    assert site.workspace("counter")["state"] == "suspended"
    victim.write_bytes(whole)
    site.carrel("resume", "counter")
    goes_on(site, "counter")


@pytest.fixture(scope="module")
def debian(sites):
    return conftest.import_image(sites, "debian", conftest.build_debian(conftest.DEBIAN_PACKAGES))


def test_system_goes_on(site, debian):
    """A whole Debian, twice: services are the same processes, can be restarted, and it shuts down cleanly."""
    site.carrel("deploy", debian, "--name", "system", "--memory", "1GiB", timeout=120)
    site.wait(lambda: inside(site, "system", "systemctl is-system-running --wait 2>/dev/null",
                             ok=None).strip() in ("running", "degraded"))
    inside(site, "system", "systemctl start ssh cron; systemd-run --unit=count -p Restart=no sh -c "
                           "'i=0; while true; do i=$((i+1)); echo $i > /run/count; sleep 0.1; done'")
    ask = "systemctl show -p MainPID --value ssh cron count dbus | tr '\\n' ' '"
    before = inside(site, "system", ask)
    for _ in range(2):
        site.carrel("suspend", "system")
        site.carrel("resume", "system")
        assert inside(site, "system", ask) == before
        site.number("system", "/run/count", above=site.number("system", "/run/count"))
        assert inside(site, "system", "systemctl is-active ssh cron count dbus").split() == ["active"] * 4
        assert inside(site, "system", "systemctl restart cron && systemctl is-active cron").strip() == "active"
        before = inside(site, "system", ask)
    inside(site, "system", "ip link add mine type veth peer name its")
    refused = site.carrel("suspend", "system", ok=None)
    assert refused.returncode != 0 and "interface" in refused.stderr
    assert inside(site, "system", ask) == before
    site.carrel("stop", "system", "-t", "60s")
    assert site.workspace("system")["state"] == "stopped"
