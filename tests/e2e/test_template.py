# SPDX-License-Identifier: Apache-2.0
"""Machines that go on from a template instead of booting: what is theirs alone, what is shared, and what happens when a template is no good."""
import os
import time
import pathlib
import shutil
import signal
import uuid

import pytest

from conftest import give_kernel, import_image

RUN = ("run", "--engine", "emulator")
FIRST = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; hostname; cat /proc/uptime; date +%s"


@pytest.fixture(scope="module")
def site(machine_site):
    """An agent that has one template."""
    machine_site.carrel(*RUN, "--rm", "busybox", "--", "true")
    wait_template(machine_site)
    return machine_site


@pytest.fixture
def name():
    return "t" + uuid.uuid4().hex[:8]


def templates(site):
    folder = site.state / "node/templates"
    return sorted(p for p in folder.iterdir() if len(p.name) == 64) if folder.is_dir() else []


def wait_template(site, count=1):
    site.wait(lambda: len(templates(site)) >= count)
    return templates(site)[0]


def began(site, name):
    return site.wait_state(name, "running")["began"]


def start(site, name, *command, options=()):
    site.carrel(*RUN, *options, "-d", "--name", name, "busybox", "--", *(command or ("sleep", "1000")))
    return began(site, name)


def inside(site, name, *command):
    return site.carrel("exec", name, "--", *command).stdout


def test_each_start_is_itself(site, name):
    seen = [site.carrel(*RUN, "--rm", "--name", f"{name}-{i}", "busybox", "--", "sh", "-c", FIRST).stdout.split()
            for i in range(2)]
    assert [s[2] for s in seen] == [f"{name}-0", f"{name}-1"]
    # the kernel's random numbers, and what it makes of the first of them
    assert seen[0][0] != seen[1][0] and seen[0][1] != seen[1][1]
    assert all(abs(int(s[5]) - time.time()) < 600 for s in seen)


def test_it_says_how_it_began_and_runs_as_any_other(site, name, tmp_path):
    assert start(site, name, options=("--disk", "3G")) == "template"
    assert int(inside(site, name, "df", "-k", "/").split()[8]) > 2 << 20  # the volume is its own, whatever its size
    (tmp_path / "file").write_text("carried\n")
    site.carrel("cp", tmp_path / "file", f"{name}:/tmp/file")
    site.carrel("restart", name)
    assert began(site, name) == "template"
    assert inside(site, name, "cat", "/tmp/file") == "carried\n"
    site.carrel("rm", "-f", name)


def test_they_are_listed_and_removed(site, name):
    assert start(site, name) == "template"
    folder = wait_template(site)
    found = site.json("template", "ls")
    assert [t["id"] for t in found] == [folder.name]
    assert (found[0]["engine"], found[0]["memory"], found[0]["processors"]) == ("emulator", 512 << 20,
                                                                                1) and found[0]["size"] > 1 << 20
    short = folder.name[:12]
    assert short in site.carrel("template", "ls", "--host", site.workspace(name)["host"]).stdout
    assert "no host 'nowhere'" in site.carrel("template", "ls", "--host", "nowhere", ok=None).stderr
    assert "no template 'ffff'" in site.carrel("template", "rm", "ffff", ok=None).stderr
    assert site.carrel("__complete", "template", "rm", short).stdout.startswith(folder.name)
    assert site.carrel("template", "rm", short).stdout == f"{short}\n"
    assert site.json("template", "ls") == [] and not folder.exists()
    assert inside(site, name, "echo", "alive") == "alive\n"  # what went on from it has its memory
    site.carrel("restart", name)
    assert began(site, name) == "boot"
    wait_template(site)
    site.carrel("rm", "-f", name)


def test_memory_is_shared_until_it_is_written(site, name):
    assert start(site, name) == "template"
    pid = site.workspace(name)["pid"]
    ram = os.stat(wait_template(site) / "ram")
    found = [line for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines() if line.split()[4] == str(ram.st_ino)]
    assert found and all(line.split()[1].endswith("p") for line in found)
    opened = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    flags = [pathlib.Path(f"/proc/{pid}/fdinfo/{fd}").read_text() for fd in os.listdir(f"/proc/{pid}/fd")
             if os.stat(f"/proc/{pid}/fd/{fd}").st_ino == ram.st_ino]
    assert all(int(f.split("flags:")[1].split()[0], 8) & os.O_ACCMODE == os.O_RDONLY for f in flags), opened
    root = pathlib.Path(f"/proc/{pid}/root/machine/memory")  # the kernel refuses it, whoever asks in there
    with pytest.raises(OSError):
        os.open(root, os.O_RDWR)
    before = (wait_template(site) / "ram").stat().st_mtime_ns
    inside(site, name, "sh", "-c", "dd if=/dev/urandom of=/dev/shm/x bs=1M count=20 2>/dev/null || dd if=/dev/urandom of=/x "
                                   "bs=1M count=20")
    assert (wait_template(site) / "ram").stat().st_mtime_ns == before
    site.carrel("rm", "-f", name)


def test_suspend_and_snapshots_keep_what_it_wrote(site, name):
    start(site, name, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /n; sleep 0.05; done")
    site.number(name, "/n", above=3)  # "running" does not mean that it has written
    site.carrel("snapshot", "create", "--memory", name, "then")
    site.carrel("suspend", name)
    found = site.wait_state(name, "suspended")
    assert not (site.state / "node/workspaces" / found["id"] / "memory/ram").stat().st_nlink > 1
    site.carrel("resume", name)
    assert began(site, name) == "memory"
    site.number(name, "/n", above=site.number(name, "/n"))
    site.carrel("suspend", name)  # now its memory is a file of its own
    site.wait_state(name, "suspended")
    site.carrel("stop", "--discard-memory", name)
    site.wait_state(name, "stopped")
    site.carrel("snapshot", "restore", name, "then")
    site.wait(lambda: site.workspace(name)["state"] in ("suspended", "running"))
    if site.workspace(name)["state"] == "suspended":
        site.carrel("resume", name)
    site.wait_state(name, "running")
    site.number(name, "/n", above=3)
    site.carrel("rm", "-f", name)


@pytest.mark.parametrize("file,damage", [("ram", "flip"), ("ram", "truncate"), ("state", "missing"), ("manifest.json", "flip")])
def test_a_damaged_template_is_noticed_and_the_machine_boots(site, name, file, damage):
    path = wait_template(site) / file
    site.node.stop()
    os.chmod(path, 0o600)
    if damage == "flip":
        with open(path, "r+b") as f:
            f.seek(path.stat().st_size // 2 if file == "state" else 0)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 0xff]))
    elif damage == "truncate":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    site.node.start()
    assert start(site, name) == "boot"
    assert "damaged" in site.workspace(name)["notice"]
    wait_template(site)
    site.carrel("restart", name)
    assert began(site, name) == "template"
    site.carrel("rm", "-f", name)


def test_other_memory_is_another_template(site, name):
    assert start(site, name, options=("--memory", "256M")) == "boot"
    wait_template(site, 2)
    site.carrel("restart", name)
    assert began(site, name) == "template"
    site.carrel("rm", "-f", name)
    for path in templates(site):
        assert (path / "ram").stat().st_nlink == 1
        if (path / "ram").stat().st_size == 256 << 20:
            shutil.rmtree(path)


def test_a_late_machine_boots_and_the_template_is_tried_again(site, faults, name):
    folder = wait_template(site)
    made = (folder / "ram").stat().st_ino
    faults.write_text("runner.template ETIMEDOUT\n")
    assert start(site, name) == "boot"
    if not faults.read_text().startswith("#"):
        pytest.skip("built without fault points (-Dfaults=true)")
    assert "booted" in site.workspace(name)["notice"]
    site.carrel("restart", name)
    assert began(site, name) == "template"
    assert (folder / "ram").stat().st_ino == made
    site.carrel("rm", "-f", name)


def test_a_machine_that_cannot_go_on_from_it_boots(site, faults, name):
    wait_template(site)
    faults.write_text("runner.template EIO\n")
    assert start(site, name) == "boot"
    if not faults.read_text().startswith("#"):
        pytest.skip("built without fault points (-Dfaults=true)")
    assert "booted" in site.workspace(name)["notice"]
    assert not templates(site)  # and it is not tried again by this agent: QEMU would not load it the next time either
    site.carrel("restart", name)
    assert began(site, name) == "boot"
    site.carrel("rm", "-f", name)


def test_switched_off(new_site, kernel, busybox_tar, name):
    site = new_site(node_args=["--templates", "0"])
    import_image(site, "busybox", busybox_tar)
    give_kernel(site, kernel)
    assert start(site, name) == "boot"
    assert not (site.state / "node/templates").exists()
    site.carrel("rm", "-f", name)


def test_an_agent_that_dies_while_it_makes_one_leaves_nothing(new_site, kernel, busybox_tar, name):
    site = new_site()
    import_image(site, "busybox", busybox_tar)
    give_kernel(site, kernel)
    start(site, name)
    folder = site.state / "node/templates"
    site.wait(lambda: folder.is_dir() and any(p.name.endswith(".new") for p in folder.iterdir()))
    site.node.kill()
    site.node.start()
    assert not any(p.name.endswith(".new") for p in folder.iterdir())
    known = site.workspace(name)["id"]
    site.wait(lambda: [p.name for p in (site.run / "node/workspaces").iterdir()] == [known])
    os.kill(site.wait_state(name, "running")["pid"], signal.SIGKILL)
    site.wait(lambda: site.workspace(name)["state"] in ("failed", "stopped"))
    site.carrel("rm", name)
