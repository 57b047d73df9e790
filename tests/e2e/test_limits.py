# SPDX-License-Identifier: Apache-2.0
"""Limits as a user meets them: what is promised is there, what is more is refused inside, and the host does not notice."""
import hashlib
import os
import pathlib
import time
import uuid

import pytest

import conftest


@pytest.fixture
def name():
    return "l" + uuid.uuid4().hex[:8]


@pytest.fixture
def here(shared_site, shared_busybox):
    return shared_site


def test_memory_beyond_the_limit_ends_the_eater_only(here, name):
    here.carrel("deploy", "busybox", "--name", name, "-m", "48MiB", "--", "sleep", "1000")
    # tail keeps what has no line end in memory
    done = here.carrel("exec", name, "--", "sh", "-c", "head -c 200000000 /dev/zero | tail -c 190000000 | wc -c", ok=None,
                       timeout=120)
    assert "190000000" not in done.stdout
    assert here.workspace(name)["state"] == "running"
    assert here.carrel("exec", name, "--", "echo", "alive").stdout == "alive\n"
    here.carrel("rm", "-f", name)


def test_a_program_killed_for_memory_is_told(here, name):
    here.carrel("deploy", "busybox", "--name", name, "-m", "48MiB", "--", "sh", "-c", "exec tail /dev/zero")
    assert here.wait_state(name, "stopped", "failed")["exit_status"] == 137
    assert "reached the memory limit" in here.carrel("why", name).stdout
    here.carrel("rm", name)


def test_fork_bomb_is_contained(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--processes", "40", "--cpu", "0.5", "--", "sleep", "1000")
    # Each shell begets others until no more can be made; those that exist stay.
    bomb = here.popen("exec", name, "--", "sh", "-c", "for i in 1 2 3 4 5; do (while :; do sleep 1000 & done) & done; wait")
    processes = id_range(here, name)

    def full():
        return len(conftest.host_processes("\0", *processes)) >= 30
    here.wait(full, timeout=120, what="a full workspace")
    assert len(conftest.host_processes("\0", *processes)) <= 40
    here.carrel("stop", name, "-t", "0s")
    assert conftest.host_processes("\0", *processes) == []
    bomb.wait(60)
    here.carrel("rm", "-f", name)


def id_range(site, name):
    pid = site.workspace(name)["pid"]
    return int(pathlib.Path(f"/proc/{pid}/uid_map").read_text().split()[1]), 65536


def cpu_seconds(folder_name):
    for mount in conftest.cgroup_mounts():
        for folder in pathlib.Path(mount).glob(f"*/{folder_name}"):
            if (folder / "cpuacct.usage").exists():
                return int((folder / "cpuacct.usage").read_text()) / 1e9
    for mount in conftest.cgroup_mounts():
        for folder in pathlib.Path(mount).glob(f"*/{folder_name}"):
            if (folder / "cpu.stat").exists() and "usage_usec" in (folder / "cpu.stat").read_text():
                return int(dict(l.split() for l in (folder / "cpu.stat").read_text().splitlines())["usage_usec"]) / 1e6
    return None


def test_cpu_cap_holds_over_seconds(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--cpu", "0.25", "--", "sh", "-c",
                "(while :; do :; done) & while :; do :; done")
    identity = here.workspace(name)["id"]
    if cpu_seconds(identity) is None:
        pytest.skip("no cgroup here that counts processor time")
    begun, first = time.monotonic(), cpu_seconds(identity)
    deadline = begun + 3
    while time.monotonic() < deadline:  # a measurement over time: nothing else could tell
        time.sleep(0.1)
    used = (cpu_seconds(identity) - first) / (time.monotonic() - begun)
    # Upper bound only, with a period of slack: a busy machine may give less, never more.
    assert used < 0.25 * 1.2 + 0.05
    here.carrel("rm", "-f", name)


def test_disk_is_full_at_the_promised_size(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--disk", "64MiB", "-v", "data:32MiB:/data", "--", "sleep", "1000")
    for place, size in (("/root", 64), ("/data", 32)):
        done = here.carrel("exec", name, "--", "sh", "-c",
                           f"dd if=/dev/zero of={place}/big bs=1M count={size * 2}; echo status $?")
        assert "No space left" in done.stderr and "status 1" in done.stdout
        got = int(here.carrel("exec", name, "--", "stat", "-c", "%s", f"{place}/big").stdout)
        assert size * 0.7 * 2**20 < got <= size * 2**20
    # The rest of the workspace goes on, and space that is given back is there again.
    here.carrel("exec", name, "--", "sh", "-c", "rm /root/big /data/big; echo x > /root/x; cat /root/x")
    here.carrel("rm", "-f", name)


def test_removed_files_give_space_back_to_the_host(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--disk", "256MiB", "--", "sleep", "1000")
    identity = here.workspace(name)["id"]
    volume = here.state / "node" / "workspaces" / identity / "volumes" / "root.ext4"

    def used():
        return volume.stat().st_blocks * 512
    here.carrel("exec", name, "--", "sh", "-c", "dd if=/dev/urandom of=/root/big bs=1M count=100 2>/dev/null; sync")
    here.wait(lambda: used() > 100 * 2**20, timeout=120)
    here.carrel("exec", name, "--", "sh", "-c", "rm /root/big; sync")
    here.wait(lambda: used() < 60 * 2**20, timeout=120)
    here.carrel("rm", "-f", name)


def host_picture(site):
    """What a workspace must not change: files of /etc, mounts, host name, routes, kernel settings."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk("/etc"):
        folders.sort()
        for file in sorted(files):
            path = os.path.join(folder, file)
            status = os.lstat(path)
            digest.update(f"{path} {status.st_mode} {status.st_uid} {status.st_size}".encode())
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as f:
                    digest.update(f.read())
    # what other tests mount meanwhile, and this instance itself, is left out
    others = ("/tmp/", "/var/tmp/", "/run/netns", str(site.folder), os.environ.get("CARREL_TEST_DIR", "/var/tmp"))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
        mounts = sorted(line.split(" ", 2)[2] for line in f if not line.split()[4].startswith(others) and "carrel" not in line)
    settings = [pathlib.Path(p).read_text() for p in ("/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern",
                                                      "/proc/sys/vm/swappiness", "/proc/net/route")]
    return {"etc": digest.hexdigest(), "mounts": mounts, "settings": settings}


def test_hostile_session_changes_nothing_on_the_host(here, name, alone_on_the_host):
    before = host_picture(here)
    here.carrel("deploy", "busybox", "--name", name, "-m", "128MiB", "--processes", "60", "--", "sleep", "1000")
    # Should the walls be missing altogether, the attack does not begin.
    attack = f"""
        [ "$(readlink /proc/self/ns/user)" != "{os.readlink('/proc/self/ns/user')}" ] || exit 99
        [ "$(readlink /proc/self/ns/pid)" != "{os.readlink('/proc/self/ns/pid')}" ] || exit 99
        [ "$(readlink /proc/self/ns/mnt)" != "{os.readlink('/proc/self/ns/mnt')}" ] || exit 99
        hostname stolen; mount -t tmpfs none /mnt; mount -o remount,rw /sys; mount -o remount,rw /proc/sys
        echo 1 > /proc/sys/vm/swappiness; echo '|/bin/false' > /proc/sys/kernel/core_pattern; echo c > /proc/sysrq-trigger
        mknod /tmp/sda b 8 0; dd if=/tmp/sda of=/dev/null count=1; mknod /tmp/kmem c 1 2; cat /tmp/kmem | head -c 1
        insmod /bin/busybox; ip link set lo down; umount -a; kill -9 -1; rm -rf /etc /bin 2>/dev/null
        for i in 1 2 3 4; do echo 0 > /sys/fs/cgroup/pids.max; done; reboot -f; halt -f; echo o > /proc/sysrq-trigger
    """
    assert here.carrel("exec", name, "--", "sh", "-c", attack, ok=None).returncode != 99
    here.carrel("rm", "-f", name)
    assert host_picture(here) == before
