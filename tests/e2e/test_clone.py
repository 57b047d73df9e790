# SPDX-License-Identifier: Apache-2.0
"""Clones: running copies of a running machine, each itself; copies of what is stopped; nothing half made."""
import contextlib
import os
import pathlib
import signal
import subprocess
import time
import uuid

import pytest

from conftest import give_kernel, import_image
from network_tools import PATIENCE

RUN = ("run", "--engine", "emulator", "-d")
COUNT = "i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.05; done"


@pytest.fixture(scope="module")
def site(machine_site):
    machine_site.carrel("network", "create", "default", "--ipv4", "10.87.0.0/24", "--ipv6", "fd87::/64")
    return machine_site


@pytest.fixture
def name():
    return "c" + uuid.uuid4().hex[:8]


def inside(site, name, *command):
    return site.carrel("exec", name, "--", *command).stdout


def count(site, name):
    return site.number(name, "/n")


def machine(site, name, *options):
    site.carrel(*RUN, "--name", name, *options, "busybox", "--", "sh", "-c", COUNT)
    site.wait_state(name, "running")
    site.wait(lambda: count(site, name) > 3)


def goes_on(site, name):
    seen = count(site, name)
    site.wait(lambda: count(site, name) > seen)


def remove(site, *names):
    for name in names:
        site.carrel("rm", "-f", name)


def test_clones_of_a_running_machine(site, name):
    machine(site, name, "--hostname", "of-the-original")
    assert inside(site, name, "hostname") == "of-the-original\n"
    site.says(name, "grep", " /run/carrel tmpfs", "/proc/mounts")  # it is ready for clones
    inside(site, name, "sh", "-c", "echo kept > /kept; mkdir -p /etc/carrel/cloned.d; echo old > /etc/machine-id;"
           "printf '#!/bin/sh\\necho $1 $2 > /told\\n' > /etc/carrel/cloned.d/tell; chmod +x /etc/carrel/cloned.d/tell; "
           "mkfifo /p;"
           "echo $RANDOM > /dev/null")
    before = count(site, name)
    names = [f"{name}-{i}" for i in (1, 2, 3)]
    assert site.carrel("clone", name, "-n", "3").stdout.split() == names
    everyone = [name, *names]
    assert [site.workspace(each)["state"] for each in everyone] == ["running"] * 4
    for each in everyone:
        assert count(site, each) >= before
        goes_on(site, each)
        assert inside(site, each, "cat", "/kept") == "kept\n"
    for i, each in enumerate(names, 1):
        assert site.workspace(each)["began"] == "clone"
        assert inside(site, each, "cat", "/run/carrel/clone", "/told") == f"{i}\n{i} {each}\n"
    for what in (["hostname"], ["cat", "/etc/hostname"], ["cat", "/etc/machine-id"], ["cat", "/proc/sys/kernel/random/uuid"],
                 ["sh", "-c", "ip addr show eth0 | grep ether"], ["sh", "-c", "ip addr show eth0 | grep 'inet '"]):
        if what == ["cat", "/etc/hostname"]:
            assert [inside(site, each, *what).strip() for each in names] == names
        else:
            assert len({inside(site, each, *what) for each in everyone}) == len(everyone), what
    original = site.workspace(name)
    for i, each in enumerate(names, 1):  # as the service has it, and reachable
        found = site.workspace(each)
        assert found["clone_of"] == {"id": original["id"], "name": name, "number": i}
        shown = inside(site, each, "ip", "addr", "show", "eth0")
        for interface, mine in ((found["interfaces"][0], True), (original["interfaces"][0], False)):
            for what in ("ipv4", "ipv6"):
                assert (f" {interface[what].split('/')[0]}/" in shown) == mine, (what, interface, shown)
        site.says(each, "ping", "-c", "1", "-W", "2", "10.87.0.1")
        site.says(each, "ping", "-c", "1", "-W", "2", "fd87::1")
        assert "carrel" in inside(site, each, "grep", " /run/carrel tmpfs", "/proc/mounts")
    assert "clone_of" not in original
    inside(site, names[0], "sh", "-c", "echo own > /kept")
    assert {inside(site, each, "cat", "/kept") for each in everyone if each != names[0]} == {"kept\n"}
    site.wait(lambda: site.workspace(name)["snapshots"] == [])
    ram = {os.stat(site.state / "node/workspaces" / site.workspace(each)["id"] / "memory/base").st_ino for each in names}
    assert len(ram) == 1
    remove(site, name)  # they need nothing of it
    seen = count(site, names[1])
    site.carrel("suspend", names[1])
    site.wait_state(names[1], "suspended")
    site.carrel("resume", names[1])
    site.wait_state(names[1], "running")
    assert count(site, names[1]) >= seen
    goes_on(site, names[1])
    site.carrel("clone", names[2], "--name-prefix", f"{name}-x")  # of a clone
    goes_on(site, f"{name}-x-1")
    site.carrel("restart", names[2])
    site.wait_state(names[2], "running")
    assert inside(site, names[2], "hostname").strip() == names[2]
    remove(site, *names, f"{name}-x-1")


def test_of_a_paused_machine_they_wait_as_long_as_they_are_paused(new_site, kernel, busybox_tar, name):
    site = new_site(node_args=("--boot-timeout", f"{int(12 * PATIENCE)}s"))
    import_image(site, "busybox", busybox_tar)
    give_kernel(site, kernel)
    machine(site, name)
    site.carrel("pause", name)
    for snapshot in ("one", "two"):  # QEMU saves one that stands only once
        site.carrel("snapshot", "create", "--memory", name, snapshot)
    begun = time.monotonic()
    site.carrel("clone", name)
    site.wait_state(f"{name}-1", "paused")
    site.wait(lambda: time.monotonic() - begun > 16 * PATIENCE)  # their identity is not given up
    assert site.workspace(f"{name}-1")["state"] == "paused"
    site.carrel("resume", f"{name}-1")
    goes_on(site, f"{name}-1")
    assert inside(site, f"{name}-1", "cat", "/etc/hostname", "/run/carrel/clone") == f"{name}-1\n1\n"
    remove(site, name, f"{name}-1")


def test_of_a_stopped_workspace_the_volumes_are_copied(site, name):
    site.carrel("run", "-d", "--name", name, "busybox", "--", "sh", "-c", "echo kept > /kept; sleep 1000")
    site.wait_state(name, "running")
    refused = site.carrel("clone", name, ok=None)
    assert refused.returncode and "stop it" in refused.stderr
    site.says(name, "cat", "/kept", until=lambda text: text == "kept\n")
    site.carrel("stop", "--timeout", "0s", name)
    site.wait_state(name, "stopped")
    site.carrel("clone", name, "-n", "2")
    for each in (f"{name}-1", f"{name}-2"):
        site.wait_state(each, "prepared")
    remove(site, name)
    site.carrel("start", f"{name}-2")
    site.wait_state(f"{name}-2", "running")
    assert inside(site, f"{name}-2", "cat", "/kept") == "kept\n"
    remove(site, f"{name}-1", f"{name}-2")


def test_what_is_refused(site, name):
    site.carrel("deploy", "busybox", "--name", name, "--until", "prepared", "--", "sleep", "1000")
    site.wait_state(name, "prepared")
    site.carrel("deploy", "busybox", "--name", f"{name}-2", "--until", "staged", "--", "true")
    taken = site.carrel("clone", name, "-n", "2", ok=None)
    assert taken.returncode and "taken" in taken.stderr
    assert not site.workspace(f"{name}-1")
    assert site.carrel("clone", name, "-n", "0", ok=None).returncode
    assert site.api("POST", f"/v1/workspaces/{name}/clone", {"count": 1000})[0] == 400
    assert site.api("POST", f"/v1/workspaces/{name}/clone", {"number": 1})[0] == 400
    assert site.api("POST", "/v1/workspaces/nobody/clone", {})[0] == 404
    remove(site, name, f"{name}-2")


def test_an_idempotency_key_makes_them_once(site, name):
    site.carrel("deploy", "busybox", "--name", name, "--until", "prepared", "--", "sleep", "1000")
    site.wait_state(name, "prepared")
    answers = [site.api("POST", f"/v1/workspaces/{name}/clone", {"count": 2}, headers={"Idempotency-Key": name})
               for _ in range(2)]
    assert [a[0] for a in answers] == [202, 202]
    assert answers[0][1]["id"] == answers[1][1]["id"]
    for i in (1, 2):
        site.wait_state(f"{name}-{i}", "prepared")
    remove(site, name, f"{name}-1", f"{name}-2")


def revive(site):
    for daemon in (site.service, site.node):
        if not daemon.running():
            daemon.start()


FAULTS = ["snapshot-begin EIO", "snapshot-memory ENOSPC", "private-memory EIO", "runner.suspend EIO", "runner.saved EIO",
          "snapshot-rename ENOSPC",
          "snapshot-begin kill", "snapshot-memory kill", "runner.saved kill", "clone-memory EIO", "clone-memory kill",
          "runner.loaded EIO", "runner.loaded kill", "runner.resumed kill", "service:committed kill", "service:assigned kill"]


def test_faults_leave_all_or_say_so(site, faults, name):
    """After each fault the original goes on (unless its own runner was killed), and no clone is half there."""
    machine(site, name)
    site.wait(lambda: site.json("template", "ls"))
    if site.workspace(name)["began"] != "template":  # one of the faults is for memory that is mapped privately
        site.carrel("restart", name)
        assert site.wait_state(name, "running")["began"] == "template"
        site.number(name, "/n", above=3)
    for n, fault in enumerate(FAULTS):
        prefix = f"{name}-{n}"
        faults.write_text(fault + "\n")
        done = site.popen("clone", name, "-n", "2", "--name-prefix", prefix, stdout=subprocess.DEVNULL)
        while done.poll() is None:
            revive(site)
            time.sleep(0.05)
        if not faults.read_text().startswith("#") and n == 0:
            pytest.skip("built without fault points (-Dfaults=true)")
        assert faults.read_text().startswith("#"), (fault, done.stderr.read())
        revive(site)
        if fault == "runner.saved kill":  # its machine goes with it
            site.wait(lambda: site.workspace(name)["state"] in ("stopped", "failed"))
            assert done.returncode
            site.wait(lambda: not site.workspace(f"{prefix}-1"))
            site.carrel("start", name)
        site.wait_state(name, "running")
        goes_on(site, name)
        settled = ("running", "failed", "suspended", "stopped")
        site.wait(lambda: all((site.workspace(f"{prefix}-{i}") or {"state": "failed"})["state"] in settled for i in (1, 2)))
        for i in (1, 2):
            found = site.workspace(f"{prefix}-{i}")
            if found and found["state"] == "running":
                goes_on(site, f"{prefix}-{i}")
            if found:
                remove(site, f"{prefix}-{i}")
        site.wait(lambda: site.workspace(name)["snapshots"] == [])
        folder = site.state / "node/workspaces" / site.workspace(name)["id"] / "snapshots"
        site.wait(lambda: not folder.is_dir() or not list(folder.iterdir()))
    remove(site, name)


def qemu_of(site, name):
    """The process of a machine that has none in its report yet."""
    wanted = f"carrel-{site.workspace(name)['id']}".encode()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"qemu-system-x86_64") and any(word.split(b",")[0] == wanted for word in words):
                return int(process.name)
    return None


def test_whoever_is_killed_the_others_go_on(site, name):
    """A clone's QEMU, wherever its start is; then its runner; then the original's QEMU, with whatever was made of its snapshot."""
    machine(site, name)
    doing = site.popen("clone", name, "-n", "2", "--name-prefix", f"{name}-a", stdout=subprocess.DEVNULL)
    victim = site.wait(lambda: site.workspace(f"{name}-a-1") and qemu_of(site, f"{name}-a-1"))
    os.kill(victim, signal.SIGKILL)
    doing.wait()  # nothing is under way any longer
    found = site.wait_state(f"{name}-a-1", "failed", "stopped", "suspended")
    site.wait_state(f"{name}-a-2", "running")
    goes_on(site, f"{name}-a-2")
    goes_on(site, name)
    if found["state"] == "suspended":  # it had not lived yet, so nothing is lost
        site.carrel("resume", f"{name}-a-1")
        goes_on(site, f"{name}-a-1")
    runner = int(pathlib.Path(f"/proc/{site.workspace(f'{name}-a-2')['pid']}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(runner, signal.SIGKILL)
    site.wait_state(f"{name}-a-2", "failed", "stopped")
    goes_on(site, name)
    remove(site, f"{name}-a-1", f"{name}-a-2")
    site.wait(lambda: site.workspace(name)["snapshots"] == [])
    doing = site.popen("clone", name, "-n", "2", "--name-prefix", f"{name}-b", stdout=subprocess.DEVNULL)
    site.wait(lambda: site.workspace(f"{name}-b-1"))
    os.kill(site.workspace(name)["pid"], signal.SIGKILL)
    site.wait_state(name, "failed", "stopped")
    doing.wait()
    site.wait(lambda: not site.workspace(name)["snapshots"])
    for each in (f"{name}-b-1", f"{name}-b-2"):  # all that there was to copy had been copied, or there is none
        if site.workspace(each):
            goes_on(site, each)
            remove(site, each)
    site.carrel("start", name)
    goes_on(site, name)
    known = {p.name for p in (site.state / "node/workspaces").iterdir()}
    assert known == {site.workspace(name)["id"]}
    remove(site, name)


def test_memory_grows_only_with_what_they_write(site, name):
    machine(site, name)
    site.carrel("clone", name, "-n", "3")
    names = [f"{name}-{i}" for i in (1, 2, 3)]
    assert [inside(site, each, "cat", "/run/carrel/clone") for each in names] == ["1\n", "2\n", "3\n"]  # without hooks too
    for each in names:
        site.wait_state(each, "running")
        pid = site.workspace(each)["pid"]
        inode = str((site.state / "node/workspaces" / site.workspace(each)["id"] / "memory/base").stat().st_ino)
        written = resident = 0
        mine = False
        for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if "-" in line.split()[0]:
                mine = line.split()[4] == inode
            elif mine and line.startswith("Anonymous:"):
                written += int(line.split()[1])
            elif mine and line.startswith("Rss:"):
                resident += int(line.split()[1])
        assert 0 < written < resident
    os.kill(site.workspace(names[0])["pid"], signal.SIGKILL)  # the others do not mind
    site.wait(lambda: site.workspace(names[0])["state"] in ("failed", "stopped"))
    for each in (name, *names[1:]):
        goes_on(site, each)
    remove(site, name, *names)
