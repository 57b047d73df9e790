# SPDX-License-Identifier: Apache-2.0
"""
carrel set --cpu, --memory, --processes: what the kernel holds a workspace to, changed while it lives, in both engines.

Limits are read from the kernel's own files, and felt by a program that takes more.
"""
import contextlib
import json
import os
import pathlib
import uuid

import pytest

from conftest import TIMEOUT, give_kernel, host_cgroups

MIB = 1 << 20
HOLD = "dd if=/dev/zero of=/dev/shm/held bs=1M count={} 2>/dev/null"  # memory that nobody can take away
FILES = {"memory": ("memory.limit_in_bytes", "memory.max"), "processes": ("pids.max",)}


@pytest.fixture(scope="module")
def site(shared_site, shared_busybox):
    return shared_site


@pytest.fixture(scope="module")
def machines(site, request):
    give_kernel(site, request.getfixturevalue("kernel"))
    return site


@pytest.fixture
def name():
    return "s" + uuid.uuid4().hex[:8]


def limit(site, name, key, inner=""):
    """What the kernel says: bytes, processes, thousandths of a processor. None: no limit."""
    for folder in map(pathlib.Path, host_cgroups(site.workspace(name)["id"])):
        folder = folder / inner
        for file in FILES.get(key, ()):
            if (folder / file).exists():
                text = (folder / file).read_text().strip()
                return None if text == "max" or int(text) >= 1 << 62 else int(text)
        if key == "cpu" and (folder / "cpu.cfs_quota_us").exists():
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            return None if quota < 0 else quota // 100
        if key == "cpu" and (folder / "cpu.max").exists():
            quota = (folder / "cpu.max").read_text().split()[0]
            return None if quota == "max" else int(quota) // 100
    raise AssertionError(f"no group of {name} limits {key}")


def limits(site, name):
    return limit(site, name, "cpu"), limit(site, name, "memory"), limit(site, name, "processes")


def throttled(site, name, inner=""):
    for folder in map(pathlib.Path, host_cgroups(site.workspace(name)["id"])):
        with contextlib.suppress(OSError):
            return int(dict(line.split() for line in (folder / inner / "cpu.stat").read_text().splitlines())["nr_throttled"])
    raise AssertionError(f"no group of {name} counts how often it is throttled")


def is_felt(site, name, inner=""):
    """Of a program that computes: a limit so small that it is reached on a busy host too."""
    site.carrel("set", name, "--cpu", "0.02")
    before = throttled(site, name, inner)
    site.wait(lambda: throttled(site, name, inner) >= before + 3, what="a limit that is felt")


def resources(site, name):
    return site.workspace(name)["spec"].get("resources", {})


def deploy(site, name, *options):
    site.carrel("deploy", "--name", name, *options, "busybox", "--", "sleep", "10000")
    return site.wait_state(name, "running")


def run(site, name, text, ok=0):
    return site.carrel("exec", name, "--", "sh", "-c", text, ok=ok)


def processors():
    return os.sysconf("SC_NPROCESSORS_ONLN")


# --- namespaces ---


def test_limits_are_set_changed_and_taken_away_while_it_runs(site, name):
    deploy(site, name)
    assert limits(site, name) == (None, None, 4096)
    site.carrel("set", name, "--cpu", "0.5", "--memory", "64M", "--processes", "30")
    assert limits(site, name) == (500, 64 * MIB, 30)
    assert resources(site, name)["cpu"] == 0.5 and resources(site, name)["memory"] == 64 * MIB
    assert run(site, name, "dd if=/dev/zero of=/dev/null bs=100M count=1", ok=None).returncode == 137  # the kernel killed it
    assert "can't fork" in run(site, name, "for i in $(seq 40); do sleep 300 & done", ok=None).stderr
    site.carrel("set", name, "--processes", "100")
    busy = site.popen("exec", name, "--", "sh", "-c", "echo on; while :; do :; done")
    assert busy.stdout.readline() == b"on\n"
    is_felt(site, name)
    busy.kill()
    site.carrel("set", name, "--memory", "300M", "--cpu", "0.75")
    assert limits(site, name) == (750, 300 * MIB, 100)
    run(site, name, "dd if=/dev/zero of=/dev/null bs=100M count=1")
    site.carrel("set", name, "--cpu", "none", "--memory", "none", "--processes", "none")
    assert limits(site, name) == (None, None, 4096)
    assert "cpu" not in resources(site, name) and "memory" not in resources(site, name)
    site.carrel("rm", "-f", name)


def test_less_than_is_in_use_is_refused_and_nothing_is_changed(site, name):
    deploy(site, name, "--memory", "200M", "--disk", "64M", "-v", "data:32M:/data")
    run(site, name, HOLD.format(100))
    before, spec = limits(site, name), site.workspace(name)["spec"]
    done = site.carrel("set", name, "--memory", "50M", "--cpu", "0.5", "--disk", "96M", "--volume", "data:64M", ok=None)
    assert (done.returncode and "of memory is in use, and cannot be held in 50.0 MiB" in done.stderr
            and "end programs" in done.stderr)
    assert limits(site, name) == before and site.workspace(name)["spec"] == spec
    site.wait(lambda: "error" not in site.workspace(name), what="the end of the refusal")
    assert run(site, name, "ls -l /dev/shm/held | wc -l").stdout == "1\n"
    run(site, name, "rm /dev/shm/held")
    site.carrel("set", name, "--memory", "50M")
    assert limits(site, name)[1] == 50 * MIB
    site.carrel("rm", "-f", name)


def test_what_the_page_cache_holds_is_no_obstacle(site, name):
    deploy(site, name, "--memory", "200M", "--disk", "256M")
    run(site, name, "dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null; sync; cat /big >/dev/null")
    site.carrel("set", name, "--memory", "50M")
    assert limits(site, name)[1] == 50 * MIB
    site.carrel("rm", "-f", name)


def test_paused_and_stopped(site, name):
    deploy(site, name)
    site.carrel("pause", name)
    site.carrel("set", name, "--cpu", "0.5", "--memory", "64M")
    assert site.workspace(name)["state"] == "paused" and limits(site, name) == (500, 64 * MIB, 4096)
    site.carrel("resume", name)
    site.carrel("stop", "-t", "0s", name)
    site.carrel("set", name, "--cpu", "0.25", "--memory", "32M", "--processes", "40")
    assert site.workspace(name)["state"] == "stopped"
    site.carrel("start", name)
    site.wait_state(name, "running")
    assert limits(site, name) == (250, 32 * MIB, 40)
    site.carrel("restart", name)
    site.wait_state(name, "running")
    assert limits(site, name) == (250, 32 * MIB, 40)
    site.carrel("rm", "-f", name)


def test_bad_input(site, name):
    deploy(site, name, "--memory", "64M")
    before = site.workspace(name)["spec"]
    has = processors()
    for words, said in ((("--cpu", "0"), "cpu"), (("--cpu", "-1"), "cpu"), (("--cpu", "lots"), "cpu"),
                        (("--memory", "0"), "memory"),
                        (("--memory", "1K"), "memory"), (("--memory", "many"), "memory"), (("--processes", "0"), "processes"),
                        (("--processes", "1.5"), "processes"), (("--disk", "none"), "disk")):
        done = site.carrel("set", name, *words, ok=2)
        assert said in done.stderr, (words, done.stderr)
    assert f"has {has} processors, not {has + 1}" in site.carrel("set", name, "--cpu", has + 1, ok=None).stderr
    assert "of memory, not 15.0 TiB" in site.carrel("set", name, "--memory", "15T", ok=None).stderr
    for body, said in (({"cpus": 2}, "unknown key"), ([], "must be an object"), ({"memory": []}, "memory"),
                       ("x", "must be an object")):
        status, answer, _ = site.api("PATCH", f"/v1/workspaces/{name}", {"resources": body})
        assert status == 400 and said in json.dumps(answer), (body, answer)
    assert "nothing to set" in site.carrel("set", name, ok=2).stderr
    assert site.workspace(name)["spec"] == before and limits(site, name) == (None, 64 * MIB, 4096)
    status, answer, _ = site.api("PATCH", f"/v1/workspaces/{name}", {"resources": {"memory": None}})
    assert status == 200, answer
    site.wait(lambda: limits(site, name)[1] is None)
    site.carrel("rm", "-f", name)


# --- deaths ---


@pytest.fixture(scope="module")
def faulty(new_module_site, faults, busybox_tar):
    faults.write_text("")
    made = new_module_site(env={"CARREL_FAULTS": str(faults)})
    made.carrel("image", "import", "busybox", busybox_tar)
    return made


def consumed(faults, text):
    if text in faults.read_text():
        pytest.skip("no fault points: this build has none (meson setup -Dfaults=true)")


@pytest.mark.parametrize("point", ["limits-change-begin", "grow-begin", "task-resize-begin", "task-resize-end"])
def test_an_agent_that_dies_goes_on_with_it(faulty, faults, name, point):
    deploy(faulty, name)
    faults.write_text(f"{point} kill\n")
    asked = faulty.popen("set", name, "--cpu", "0.5", "--memory", "64M")
    faulty.wait(lambda: not faulty.node.running() or asked.poll() is not None, what="the agent's death")
    consumed(faults, "kill")
    faulty.node.start()
    assert asked.wait(TIMEOUT) == 0, asked.stderr.read()
    assert limits(faulty, name) == (500, 64 * MIB, 4096)
    faulty.carrel("rm", "-f", name)


def test_a_service_that_dies_remembers_what_was(faulty, faults, name):
    """The refusal comes to a service that was started anew: the sizes before are the wish again."""
    deploy(faulty, name, "--memory", "200M")
    run(faulty, name, HOLD.format(100))
    before = faulty.workspace(name)["spec"]
    faulty.node.stop()
    faulty.carrel("set", "-d", name, "--memory", "50M")
    assert faulty.carrel("set", name, "--cpu", "0.5", ok=None).stderr.count("is busy: resize") == 1
    faulty.service.kill()
    faulty.service.start()
    assert faulty.workspace(name)["spec"] != before
    faulty.node.start()
    faulty.wait(lambda: faulty.workspace(name)["spec"] == before, what="the sizes before")
    assert limits(faulty, name) == (None, 200 * MIB, 4096)
    faulty.carrel("rm", "-f", name)


def test_a_limit_that_cannot_be_written_changes_nothing(faulty, faults, name):
    deploy(faulty, name, "--memory", "200M")
    faults.write_text("limits-change-begin EIO\n")
    done = faulty.carrel("set", name, "--memory", "100M", ok=None)
    consumed(faults, "EIO")
    assert done.returncode and limits(faulty, name) == (None, 200 * MIB, 4096)
    faulty.wait(lambda: resources(faulty, name)["memory"] == 200 * MIB)
    faulty.carrel("rm", "-f", name)


# --- machines ---


def test_a_machine_is_held_at_once_and_grows_at_its_next_start(machines, name):
    site = machines
    deploy(site, name, "--engine", "emulator", "--memory", "256M")
    assert site.workspace(name)["machine"] == {"processors": 1, "memory": 256 * MIB}
    assert limit(site, name, "cpu", "processors") is None
    held = limit(site, name, "memory")
    assert "next start" not in site.carrel("set", name, "--cpu", "0.25").stderr
    assert limit(site, name, "cpu", "processors") == 250
    busy = site.popen("exec", name, "--", "sh", "-c", "echo on; while :; do :; done")
    assert busy.stdout.readline() == b"on\n"
    is_felt(site, name, "processors")
    busy.kill()

    told = site.carrel("set", name, "--memory", "384M", "--cpu", "none").stderr
    assert "memory: 256 MiB now, 384 MiB from the next start" in told
    assert limit(site, name, "memory") == held and limit(site, name, "cpu", "processors") is None
    found = site.workspace(name)
    assert found["machine"]["memory"] == 256 * MIB and "from the next start" in found["notice"]

    run(site, name, "echo kept > /dev/shm/kept")
    site.carrel("snapshot", "create", "--memory", name, "then")
    site.carrel("clone", name)  # both go on with what the memory knows
    clone = f"{name}-1"
    assert run(site, clone, "cat /dev/shm/kept").stdout == "kept\n"
    assert site.workspace(clone)["machine"]["memory"] == 256 * MIB and limit(site, clone, "memory") == held
    site.carrel("rm", "-f", clone)

    site.carrel("pause", name)
    if processors() > 1:
        told = site.carrel("set", name, "--cpu", "1.5").stderr
        assert "processors: 1 now, 2 from the next start; memory: 256 MiB now" in told
        assert limit(site, name, "cpu", "processors") == 1500
    site.carrel("resume", name)

    site.carrel("suspend", name)  # the state binds the devices: a resume goes on with what it had
    told = site.carrel("set", name, "--memory", "192M").stderr
    assert "memory: 256 MiB now, 192 MiB from the next start" in told and "a resume goes on with what it had" in told
    site.carrel("resume", name)
    assert run(site, name, "cat /dev/shm/kept").stdout == "kept\n"
    assert site.workspace(name)["machine"]["memory"] == 256 * MIB and limit(site, name, "memory") == held

    site.carrel("restart", name)
    found = site.wait_state(name, "running")
    assert found["machine"] == {"processors": min(2, processors()), "memory": 192 * MIB} and "notice" not in found
    assert limit(site, name, "memory") == held - 64 * MIB
    assert run(site, name, "grep -c ^processor /proc/cpuinfo").stdout == f"{min(2, processors())}\n"
    total = int(run(site, name, "awk '/MemTotal/ { print $2 }' /proc/meminfo").stdout)
    assert 100 * 1024 < total < 192 * 1024

    site.carrel("stop", "-t", "0s", name)
    site.carrel("snapshot", "restore", name, "then")
    found = site.wait_state(name, "running")
    assert found["machine"] == {"processors": 1, "memory": 256 * MIB}
    assert run(site, name, "cat /dev/shm/kept").stdout == "kept\n"
    assert limit(site, name, "memory") == held

    site.carrel("move", name, "--engine", "workspace")  # other engine, same limits
    site.wait_state(name, "running")
    assert limit(site, name, "memory") == 192 * MIB and "machine" not in site.workspace(name)
    site.carrel("rm", "-f", name)
