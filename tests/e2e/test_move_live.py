# SPDX-License-Identifier: Apache-2.0
"""
A workspace changes its engine while it runs, with its memory: from namespaces into an emulated machine and back. What fails on the way leaves
it running where it was, with its memory. One workspace is moved again and again, since each machine boots.
"""
import os
import pathlib
import shutil
import signal
import tempfile
import time

import pytest

import conftest
from guest_tools import kernel_package
from network_tools import eventually

# A count in a shell's memory; a pipe between two processes, a file in tmpfs, a file that is open and removed.
PROGRAM = r"""
echo kept > /dev/shm/note; exec 7> /gone; rm /gone; echo still >&7
(while true; do echo x; usleep 500000; done) | while read x; do :; done &
i=0; while true; do i=$((i+1)); echo tick $i; usleep 200000; done
"""
LONG = 240


@pytest.fixture(scope="module")
def sites(prefix, criu, busybox_tar):
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86 is not installed")
    package = kernel_package()
    if not package:
        pytest.skip("apt-get download of a cloud kernel does not work here")
    plan = pathlib.Path(tempfile.mkdtemp(prefix="carrel-test-faults-", dir="/var/tmp")) / "plan"
    plan.write_text("")
    site = conftest.Site(prefix, env={"CARREL_CRIU": criu, "CARREL_FAULTS": str(plan)})
    site.faults = plan
    conftest.import_image(site, "busybox", busybox_tar)
    conftest.give_kernel(site, package)
    yield site
    problems = site.close()
    shutil.rmtree(plan.parent)
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def running(sites):
    sites.carrel("run", "-d", "--travels", "--network", "none", "--name", "t", "busybox", "--", "sh", "-c", PROGRAM)
    sites.wait(lambda: ticks(sites) and len(ticks(sites)) > 3, timeout=60)
    return sites


@pytest.fixture
def site(running):
    yield running
    running.faults.write_text("")
    if not running.node.running():
        running.node.start()


def ticks(site):
    return [int(line.split()[1]) for line in site.carrel("logs", "t").stdout.splitlines() if line.startswith("tick ")]


def processes(site):
    return site.carrel("exec", "t", "--", "sh", "-c",
                       "for p in /proc/[0-9]*; do read -r c 2>/dev/null < $p/comm && echo ${p#/proc/} $c; done",
                       timeout=LONG).stdout


def engine(site):
    return site.workspace("t")["engine"]


def memory_files(site):
    folder = site.state / "node/workspaces" / site.workspace("t")["id"] / "memory"
    return {p.name for p in folder.iterdir()} if folder.exists() else set()


def tidy(site):
    """In the folder of its memory is nothing but what the engine it runs under works with; templates are as they were."""
    own = {"criu.log"} if engine(site) == "workspace" else {"ram", "base", "machine.json"}
    site.wait(lambda: memory_files(site) <= own, timeout=60, what=f"that only {own} is left")
    assert {p.stat().st_mode & 0o777 for p in (site.state / "node/templates").glob("*/ram")} <= {0o444}


def counts_on(site):
    """Nothing is left out and nothing is said twice."""
    before = len(ticks(site))
    site.wait(lambda: len(ticks(site)) > before + 2, timeout=LONG)
    seen = ticks(site)
    assert seen == list(range(1, len(seen) + 1))
    tidy(site)


def move(site, to, ok=0):
    return site.carrel("move", "t", "--live", "--engine", to, timeout=LONG, ok=ok)


def check(site, to):
    return site.json("move", "--live", "--check", "--engine", to, "t")


def test_there_and_back(site):
    answer = check(site, "emulator")
    assert (answer["level"], answer["engine"], answer["to"]) == ("memory", "workspace",
                                                                 "emulator") and "into a machine" in answer["way"], answer
    shell = next(line for line in processes(site).splitlines() if line.startswith("2 "))
    said = move(site, "emulator").stderr
    assert engine(site) == "emulator"
    operation = site.api("GET", "/v1/operations")[1]["items"][-1]
    assert (operation["result"]["from"] == "workspace" and operation["result"]["stood_still_ms"] > 0
            and "it stood still for" in said)
    assert list((site.state / "node/templates").iterdir()), "the machine was not made ready ahead"
    counts_on(site)
    assert shell in processes(site)
    assert site.carrel("exec", "t", "--", "cat", "/dev/shm/note", timeout=LONG).stdout == "kept\n"
    assert "(deleted)" in site.carrel("exec", "t", "--", "ls", "-l", "/proc/2/fd/7", timeout=LONG).stdout
    site.carrel("exec", "t", "--", "sh", "-c", "echo there > /written", timeout=LONG)
    answer = check(site, "workspace")
    assert (answer["level"], answer["engine"]) == ("memory",
                                                   "emulator") and "namespaces" in answer["way"] and answer["notes"], answer
    assert "it stood still for" in move(site, "workspace").stderr
    assert engine(site) == "workspace"
    counts_on(site)
    assert shell in processes(site)
    assert site.carrel("exec", "t", "--", "cat", "/written", "/dev/shm/note").stdout == "there\nkept\n"


def test_it_goes_on_where_it_was(site):
    """Into a machine that cannot be made, out of one whose memory is not taken: back, with the memory, and the wish with it."""
    assert engine(site) == "workspace"
    for fault in ("travel-ahead", "travel-images", "runner.arrived"):
        site.faults.write_text(f"{fault} ENOSPC\n")
        done = move(site, "emulator", ok=None)
        site.faults.write_text("")
        assert done.returncode != 0 and "move" in done.stderr, done.stderr
        site.wait(lambda: site.workspace("t")["state"] == "running", timeout=LONG)
        assert engine(site) == "workspace" and site.workspace("t")["spec"]["engine"] == "workspace"
        counts_on(site)


def test_a_program_that_chose_by_the_processor_is_named(site):
    """Started without the environment that binds the libraries, as PostgreSQL is by Debian's scripts, or what su - starts."""
    def named():
        return [note for note in check(site, "emulator").get("notes", []) if "without the environment" in note]
    assert named() == []
    site.carrel("exec", "t", "--", "sh", "-c", "env -i setsid sleep 1000 </dev/null >/dev/null 2>&1 &")
    site.wait(lambda: " sleep\n" in processes(site), timeout=60)
    site.wait(lambda: [note for note in named() if "(sleep)" in note], timeout=60)
    assert len(named()) == 1 and check(site, "emulator")["level"] == "memory"
    site.carrel("exec", "t", "--", "killall", "sleep")
    site.wait(lambda: named() == [], timeout=60)


def test_a_visitor_keeps_it(site):
    visitor = site.popen("exec", "t", "--", "sleep", "1000")
    site.wait(lambda: " sleep\n" in processes(site), timeout=60)
    for answer in (check(site, "emulator"), site.json("suspend", "--check", "t")):
        assert answer["level"] == "volumes" and "exec" in answer["reason"] and len(answer["obstacles"]) == 1, answer
    done = move(site, "emulator", ok=None)
    assert done.returncode != 0 and "exec" in done.stderr
    site.carrel("exec", "t", "--", "killall", "sleep")
    visitor.wait(timeout=60)
    site.wait(lambda: check(site, "emulator")["level"] == "memory", timeout=60)
    assert engine(site) == "workspace"
    counts_on(site)


def test_the_agent_dies(site):
    """At the moment when it is neither here nor there: suspended, and on its way."""
    site.faults.write_text("travel-images kill\n")
    mover = site.popen("move", "t", "--live", "--engine", "emulator")
    site.wait(lambda: not site.node.running(), timeout=LONG)
    site.faults.write_text("")
    site.node.start()
    mover.wait(timeout=LONG)
    site.wait(lambda: site.workspace("t")["state"] == "running" and engine(site) == "emulator", timeout=LONG)
    counts_on(site)


def test_out_of_a_machine_fails(site):
    assert engine(site) == "emulator"
    for fault in ("travel-departed", "runner.commit"):
        site.faults.write_text(f"{fault} ENOSPC\n")
        done = move(site, "workspace", ok=None)
        site.faults.write_text("")
        assert done.returncode != 0, done.stderr
        site.wait(lambda: site.workspace("t")["state"] == "running", timeout=LONG)
        assert engine(site) == "emulator"
        counts_on(site)
    site.node.kill()
    site.node.arguments += ["--guest-volumes", "copied"]
    site.node.start()
    done = move(site, "workspace", ok=None)
    assert done.returncode != 0 and "guest-volumes: copied" in done.stderr, done.stderr
    assert engine(site) == "emulator"
    counts_on(site)
    site.node.kill()
    del site.node.arguments[-2:]
    site.node.start()
    move(site, "workspace")
    counts_on(site)


# Where a process dies on the way: the agent, the runner of the other side, CRIU's helper, the service. Which it is follows from
# the point.
INTO = ["checkpoint.dumped", "runner.committed", "runner.template", "runner.arrived", "launch-end"]
OUT = ["travel-departed", "runner.committed", "checkpoint.resume", "service:committed"]
if os.environ.get("CARREL_TEST_SWEEP") == "all":
    INTO += ["suspend-saved", "suspend-commit", "task-suspend-end", "task-start-begin", "volumes-begin", "launch-begin",
             "runner.taps", "engine.started", "task-start-end", "service:before-commit", "service:assigned"]
    OUT += ["suspend-saved", "suspend-commit", "task-suspend-end", "task-start-begin", "volumes-begin", "launch-begin",
            "checkpoint.namespaces", "checkpoint.restored", "engine.started", "task-start-end", "service:assigned"]
# The runner dies whose workspace has no memory elsewhere: as when it dies at any other time.
LOST = (("emulator", "runner.suspend"), ("emulator", "runner.went"), ("workspace", "runner.commit"))


def machines_of(site):
    """Processes of QEMU that have this workspace's name."""
    name, found = site.workspace("t")["id"].encode(), []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if b"qemu-system" in words.split(b"\0")[0] and name in words:
            found.append(int(process.name))
    return found


def revive(site):
    for daemon in (site.service, site.node):
        if not daemon.running():
            daemon.start()


def die(site, to, point):
    """The move is begun, somebody dies at the point, and is started again."""
    site.faults.write_text(f"{point} kill\n")
    mover = site.popen("move", "t", "--live", "--engine", to)
    eventually(lambda: "#" in site.faults.read_text() or mover.poll() is not None, LONG)
    reached = "#" in site.faults.read_text()
    site.faults.write_text("")
    while mover.poll() is None:
        revive(site)
        time.sleep(0.1)
    revive(site)
    site.wait(lambda: any(h["connected"] for h in site.api("GET", "/v1/hosts")[1]["items"]), what="the host's connection")
    assert reached, f"{point} was not reached on the way to {to}: {mover.communicate()}\n{site.node.log()[-2000:]}"


def test_whoever_dies(site):
    """It runs in one place, with its memory and its files, and nothing is left of the other place."""
    left = {"emulator": list(INTO), "workspace": list(OUT)}
    if not list((site.state / "node").glob("templates/*")):
        move(site, "emulator")  # else a template's runner comes to these points first
    while any(left.values()):
        to = "workspace" if engine(site) == "emulator" else "emulator"
        if not left[to]:
            move(site, to)
            continue
        point = left[to].pop(0)
        die(site, to, point)
        eventually(lambda: site.workspace("t")["state"] == "running" and not site.workspace("t").get("operation"), LONG,
                   f"after {point}: that it runs")
        counts_on(site)
        eventually(lambda: len(machines_of(site)) == (engine(site) == "emulator"), 60, f"after {point}: one place")
        assert site.carrel("exec", "t", "--", "cat", "/dev/shm/note", timeout=LONG).stdout == "kept\n"


def test_qemu_dies(site, tmp_path):
    """While the workspace is not in it yet: another one takes its place."""
    if engine(site) == "emulator":
        move(site, "workspace")
    os.mkfifo(tmp_path / "go")
    site.faults.write_text(f"runner.template wait {tmp_path / 'go'}\n")
    mover = site.popen("move", "t", "--live", "--engine", "emulator")
    eventually(lambda: "#" in site.faults.read_text(), LONG)
    for pid in machines_of(site):
        os.kill(pid, signal.SIGKILL)
    with open(tmp_path / "go", "w"):
        pass
    assert mover.wait(LONG) == 0, mover.stderr.read()
    assert engine(site) == "emulator"
    counts_on(site)


def test_what_dies_with_its_memory(site):
    """Its files are there, and nothing else of it."""
    for to, point in LOST:
        if engine(site) == to:
            site.carrel("move", "t", "--engine", "workspace" if to == "emulator" else "emulator", "--timeout", "0s",
                        timeout=LONG)
        site.carrel("exec", "t", "--", "sh", "-c", f"echo {point} > /last; sync", timeout=LONG)
        die(site, to, point)
        site.wait(lambda: site.workspace("t")["state"] == "stopped", timeout=LONG)
        eventually(lambda: not machines_of(site), 60, f"after {point}: no machine")
        assert not memory_files(site), point
        site.carrel("start", "t", timeout=LONG)
        assert site.carrel("exec", "t", "--", "cat", "/last", timeout=LONG).stdout == f"{point}\n"
        tidy(site)
    site.carrel("rm", "-f", "t")


def test_what_was_not_started_to_travel(running):
    running.carrel("run", "-d", "--network", "none", "--name", "stays", "busybox", "--", "sleep", "1000")
    answer = running.json("move", "--live", "--check", "--engine", "emulator", "stays")
    assert answer["level"] == "volumes" and "travel" in answer["reason"] and answer["hint"], answer
    done = running.carrel("move", "stays", "--live", "--engine", "emulator", ok=None)
    assert done.returncode != 0 and "travel" in done.stderr
    running.carrel("rm", "-f", "stays")


def test_a_whole_system(running):
    """systemd and its services: same processes, same boot, and the system still starts what it is asked to."""
    site = running
    image = conftest.import_image(site, "debian", conftest.build_debian(conftest.DEBIAN_PACKAGES))
    site.carrel("deploy", image, "--travels", "--network", "none", "--name", "system", "--memory", "1GiB", timeout=LONG)
    site.carrel("wait", "system", timeout=LONG)

    def inside(command):
        return site.carrel("exec", "system", "--", "sh", "-c", command, timeout=LONG).stdout

    def services():
        return inside("systemctl show -P MainPID ssh cron dbus systemd-journald count")
    inside("systemctl start ssh cron; systemd-run --unit=count sh -c 'i=0; while sleep 1; do i=$((i+1)); echo $i > /run/count;"
           " done'")
    before = services()
    assert "0\n" not in before.splitlines(keepends=True), before
    for to in ("emulator", "workspace"):
        counted = int(inside("sleep 2; cat /run/count"))
        site.carrel("move", "system", "--live", "--engine", to, timeout=2 * LONG)
        assert site.workspace("system")["engine"] == to and services() == before
        eventually(lambda: int(inside("cat /run/count") or 0) > counted, LONG, f"that the service counts on in {to}")
        assert inside(f"systemd-run --wait -q touch /root/{to} && ls /root").split()[-1] in ("emulator", "workspace")
    assert inside("ls /root").split() == ["emulator", "workspace"]
    site.carrel("rm", "-f", "system")
