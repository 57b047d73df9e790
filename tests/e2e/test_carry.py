# SPDX-License-Identifier: Apache-2.0
"""Whole workspaces in one file: out of one service, into another."""
import contextlib
import os
import pathlib
import random
import signal
import subprocess
import uuid

import pytest

from conftest import give_kernel, import_image
from network_tools import eventually


@pytest.fixture(scope="module")
def there(new_module_site):
    """Another service, with nothing in it."""
    return new_module_site()


@pytest.fixture
def here(shared_site, shared_busybox):
    return shared_site


@pytest.fixture
def name():
    return "c" + uuid.uuid4().hex[:8]


def inside(site, name, *command, **how):
    return site.carrel("exec", name, "--", *command, **how).stdout


def make(site, name, *options, script="echo one > /one; mkdir /d; ln /one /d/two; ln -s one /three; rm -f /etc/passwd; "
                                      "dd if=/dev/urandom of=/random bs=65536 count=40 2>/dev/null; md5sum /random > /sum"):
    site.carrel("run", "-d", "--network", "none", "--name", name, *options, "busybox", "--", "sleep", "100000")
    site.wait_state(name, "running")
    inside(site, name, "sh", "-c", script)
    site.carrel("stop", "-t", "0s", name)
    site.wait_state(name, "stopped")
    return site.workspace(name)


@pytest.fixture(scope="module")
def bundle(shared_site, shared_busybox, tmp_path_factory):
    """(file, the workspace as it was)"""
    name, path = "b" + uuid.uuid4().hex[:8], tmp_path_factory.mktemp("bundle") / "one.bundle"
    was = make(shared_site, name, "--label", "team=blue", "--memory", "200M", "--volume", "data:32M:/data")
    shared_site.carrel("export", name, path)
    return path, was


def workspaces(site):
    return [w["name"] for w in site.api("GET", "/v1/workspaces?limit=1000")[1]["items"]]


def nothing_half_made(site, before):
    site.wait(lambda: workspaces(site) == before, what="removal of what was half made")
    assert not list(site.state.glob("node/workspaces/*/volumes/*.new"))


def tool(site, *words, ok=0):
    done = subprocess.run([site.program("carrel-bundle"), *words], capture_output=True)
    assert done.returncode == ok, done.stderr
    return done


def test_into_another_service(there, bundle, name):
    path, was = bundle
    assert there.carrel("import", path).stdout.strip() == was["name"]
    now = there.workspace(was["name"])
    assert now["id"] == was["id"] and now["state"] == "prepared"
    assert now["spec"]["labels"] == {"team": "blue"} and now["spec"]["resources"] == was["spec"]["resources"]
    assert now["image"]["digest"] == was["image"]["digest"]
    there.carrel("start", was["name"])
    there.wait_state(was["name"], "running")
    assert (inside(there, was["name"], "sh", "-c",
                  "cat /one /d/two /three; md5sum /random | diff - /sum; test -e /etc/passwd || echo gone")
            == "one\none\none\ngone\n")
    there.carrel("import", "--start", "--name", name, path)
    assert there.workspace(name)["id"] != was["id"], "a second copy is another workspace"
    assert inside(there, name, "cat", "/d/two") == "one\n"
    there.carrel("rm", "-f", was["name"], name)


def test_only_a_regular_file_is_written(here, bundle, tmp_path):
    """A rename would put a file in the place of a device. A link stays, and what it leads to is the bundle."""
    name, fifo, link = bundle[1]["name"], tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("")
    for target in (fifo, tmp_path):
        assert "no regular file" in here.carrel("export", name, target, ok=2).stderr
        assert "no regular file" in here.carrel("image", "export", "busybox", target, ok=2).stderr
    assert "standard output" in here.carrel("export", name, "-", ok=2).stderr
    here.carrel("export", name, link)
    assert fifo.is_fifo() and link.is_symlink() and (tmp_path / "file").read_bytes() == bundle[0].read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo", "file", "link"]


def test_a_running_workspace_is_refused(here, name, tmp_path):
    here.carrel("run", "-d", "--network", "none", "--name", name, "busybox", "--", "sleep", "100000")
    here.wait_state(name, "running")
    refused = here.carrel("export", name, tmp_path / "f", ok=5)
    assert "at rest" in refused.stderr and not list(tmp_path.iterdir())
    assert here.workspace(name)["state"] == "running"
    here.carrel("rm", "-f", name)


def test_two_exports_are_the_same_bytes(here, bundle, tmp_path):
    path, was = bundle
    here.carrel("export", was["name"], tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_without_what_the_other_side_has(here, there, bundle, name, tmp_path, busybox_tar):
    path, was = bundle
    thin = tmp_path / "thin"
    here.carrel("export", "--base", "busybox", was["name"], thin)
    assert thin.stat().st_size < path.stat().st_size
    for base in (path, tmp_path / "list"):
        if base == tmp_path / "list":
            base.write_text("\n".join(p["digest"] for p in here.json("image", "show", "busybox")["partitions"]))
        here.carrel("export", "--base", base, was["name"], tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == thin.read_bytes()
    there.carrel("image", "import", "base", busybox_tar, timeout=300)
    there.carrel("import", "--start", "--name", name, thin)
    assert inside(there, name, "cat", "/one") == "one\n"
    there.carrel("rm", "-f", name)


def test_snapshots_go_with_it(here, there, name, tmp_path):
    make(here, name)
    here.carrel("snapshot", "create", name, "first")
    here.carrel("start", name)
    here.wait_state(name, "running")
    inside(here, name, "sh", "-c", "echo changed > /one; sync")
    here.carrel("stop", "-t", "0s", name)
    here.carrel("export", "--snapshots", name, tmp_path / "f")
    there.carrel("import", tmp_path / "f")
    assert [s["name"] for s in there.workspace(name)["snapshots"]] == ["first"]
    there.carrel("start", name)
    assert inside(there, name, "cat", "/one") == "changed\n"
    there.carrel("stop", "-t", "0s", name)
    there.carrel("snapshot", "restore", name, "first")
    there.carrel("start", name)
    assert inside(there, name, "cat", "/one") == "one\n"
    there.carrel("rm", "-f", name)
    here.carrel("rm", "-f", name)


def test_an_interrupted_export_goes_on(here, bundle, tmp_path):
    path, was = bundle
    whole, target, part = path.read_bytes(), tmp_path / "f", tmp_path / "f.part"
    for length in (5, 200, len(whole) // 3, len(whole) // 2 + 7, len(whole) - 3000, len(whole) - 64):
        part.write_bytes(whole[:length])
        here.carrel("export", was["name"], target)
        assert target.read_bytes() == whole and not part.exists()
        target.unlink()
    part.write_bytes(whole[:len(whole) // 2] + bytes(100) + whole[len(whole) // 2 + 100:])
    here.carrel("export", was["name"], target)
    assert target.read_bytes() == whole
    target.unlink()
    child = here.popen("export", was["name"], target)
    here.wait(lambda: part.exists() and part.stat().st_size > 0 or child.poll() is not None)
    child.send_signal(signal.SIGINT)
    child.wait(30)
    # the host may still be ending the first
    here.wait(lambda: here.carrel("export", was["name"], target, ok=None).returncode == 0)
    assert target.read_bytes() == whole


def test_an_export_of_what_changed_meanwhile_begins_anew(here, name, tmp_path):
    make(here, name)
    here.carrel("export", name, tmp_path / "old")
    (tmp_path / "f.part").write_bytes((tmp_path / "old").read_bytes()[:-5000])
    here.carrel("start", name)
    here.wait_state(name, "running")
    inside(here, name, "sh", "-c", "echo new > /new; sync")
    here.carrel("stop", "-t", "0s", name)
    assert "from the start" in here.carrel("export", name, tmp_path / "f").stderr
    tool(here, "verify", tmp_path / "f")
    here.carrel("rm", "-f", name)


def test_cut_and_changed_bundles_are_refused(there, bundle, tmp_path):
    path, was = bundle
    whole, before = path.read_bytes(), workspaces(there)
    bad = tmp_path / "bad"
    chance = random.Random(int(os.environ.get("CARREL_TEST_SEED", "7")))
    lengths = [0, 7, 15, 100, len(whole) // 2, len(whole) - 64, len(whole) - 1]
    for length in lengths:
        bad.write_bytes(whole[:length])
        refused = there.carrel("import", bad, ok=None)
        assert refused.returncode in (2, 8), refused.stderr
    bad.write_bytes(whole + b"x")
    assert there.carrel("import", bad, ok=None).returncode == 8
    for _ in range(12):
        at = chance.randrange(len(whole))
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1:])
        refused = there.carrel("import", bad, ok=None)
        if refused.returncode == 0:  # in a part of the image, which is here already
            tool(there, "verify", bad, ok=1)
            there.carrel("rm", "-f", was["name"])
            continue
        assert refused.returncode in (2, 7, 8), (at, refused.returncode, refused.stderr)
        assert "hecksum" in refused.stderr or "bundle" in refused.stderr
    nothing_half_made(there, before)


def writer_of(path):
    """Whether a process of ours has it open still."""
    for fd in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(fd) == str(path):
                return True
    return False


def unfinished(site):
    return [p for p in site.state.glob("node/workspaces/*/volumes/root.ext4.new") if p.stat().st_blocks]


@pytest.fixture(scope="module")
def large(shared_site, shared_busybox, tmp_path_factory):
    """A bundle whose transfer takes a while."""
    name, path = "l" + uuid.uuid4().hex[:8], tmp_path_factory.mktemp("large") / "bundle"
    make(shared_site, name, "--memory", "200M",
         script="dd if=/dev/urandom of=/random bs=1048576 count=96 2>/dev/null; md5sum /random > /sum")
    shared_site.carrel("export", name, path)
    return path, name


class HalfWay:
    """An import that has sent one half and waits; goes_on() lets it."""

    def __init__(self, site, path, tmp_path):
        self.fifo, self.plan = tmp_path / "fifo", tmp_path / "faults"
        os.mkfifo(self.fifo)
        self.plan.write_text(f"import.half wait {self.fifo}\n")
        self.child = site.popen("import", path, stderr=subprocess.PIPE,
                                env={**site.environment, "CARREL_FAULTS": str(self.plan)})
        site.wait(lambda: self.plan.read_text().startswith("#") or self.child.poll() is not None, what="one half of the import")
        if self.child.poll() is not None:
            assert b"import.half" not in pathlib.Path(site.program("carrel")).read_bytes(), self.child.stderr.read()
            pytest.skip("fault points are not compiled in (-Dfaults=true)")
        site.wait(lambda: sum(p.stat().st_blocks for p in unfinished(site)) * 512 > 20 << 20, what="what was sent, on disk")

    def goes_on(self):
        """And ends; returns what it said."""
        def ended():
            with contextlib.suppress(OSError):  # it does not wait yet, was interrupted, or is gone
                os.close(os.open(self.fifo, os.O_WRONLY | os.O_NONBLOCK))
            return self.child.poll() is not None
        eventually(ended, what="the end of the first import")
        return self.child.stderr.read()


@pytest.mark.parametrize("whom", ("interrupt", "client", "service", "node"))
def test_an_interrupted_import_goes_on(new_site, large, whom, tmp_path):
    there = new_site()
    path, name = large
    first = HalfWay(there, path, tmp_path)
    if whom in ("interrupt", "client"):
        first.child.send_signal(signal.SIGINT if whom == "interrupt" else signal.SIGKILL)
    else:
        daemon = there.service if whom == "service" else there.node
        daemon.kill()
        daemon.start()
    told = first.goes_on()
    assert first.child.returncode, "it was interrupted"
    if whom == "interrupt":
        assert "goes on" in str(told)
    half = there.workspace(name)
    assert half and half["state"] == "prepared"
    for use in (("start", name), ("clone", name), ("export", name, path.with_name("half")),
                ("cp", f"{name}:/sum", path.with_name("sum")), ("set", "--label", "a=b", name)):
        assert "not imported whole" in there.carrel(*use, ok=5).stderr
    # the host may still be ending the first
    done = there.wait(lambda: (d := there.carrel("import", "--start", path, ok=None)).returncode == 0 and d)
    assert "goes on" in done.stderr and there.workspace(name)["id"] == half["id"]
    assert inside(there, name, "sh", "-c", "md5sum /random | diff - /sum && echo same") == "same\n"
    assert not list(there.state.glob("node/workspaces/*/import.json")) and not unfinished(there)


def test_what_was_there_is_compared_and_not_sent_again(new_site, large, tmp_path):
    """Half of the file is there, some of it damaged meanwhile: only what is missing or wrong is sent."""
    there = new_site()
    path, name = large
    first = HalfWay(there, path, tmp_path)
    first.child.kill()
    first.goes_on()
    there.wait(lambda: not writer_of(unfinished(there)[0]))
    [half] = unfinished(there)
    with open(half, "r+b") as file:
        at = os.lseek(file.fileno(), 8 << 20, os.SEEK_DATA)
        file.seek(at)
        file.write(b"damaged meanwhile")
    there.wait(lambda: there.carrel("import", "--start", path, ok=None).returncode == 0)
    assert inside(there, name, "sh", "-c", "md5sum /random | diff - /sum && echo same") == "same\n"


def test_a_half_import_is_given_up(new_site, large, bundle, tmp_path):
    there = new_site()
    path, name = large
    first = HalfWay(there, path, tmp_path)
    first.child.kill()
    first.goes_on()
    refused = there.carrel("import", "--name", name, bundle[0], ok=5)  # another bundle under its name
    assert name in refused.stderr
    there.carrel("rm", "-f", name)
    there.wait(lambda: not workspaces(there))
    there.carrel("import", path)


def test_an_imported_volume_is_not_believed(there, here, name, tmp_path):
    """Somebody else's bytes: checked before this host's kernel mounts them."""
    make(here, name)
    volume = here.state / "node/workspaces" / here.workspace(name)["id"] / "volumes/root.ext4"
    subprocess.run(["debugfs", "-w", "-R", "clri upper/one", volume], check=True, capture_output=True)
    here.carrel("export", name, tmp_path / "f")
    there.carrel("import", tmp_path / "f")
    refused = there.carrel("start", name, ok=8)
    assert "is not mounted here" in refused.stderr
    there.carrel("rm", "-f", name)
    here.carrel("rm", "-f", name)


def test_kept_volumes_with_data_are_not_written_over(here, there, name, tmp_path):
    kept = "k" + uuid.uuid4().hex[:8]
    make(here, name, "--volume", f"{kept}:32M:/k,keep", script="echo mine > /k/file; sync")
    here.carrel("export", name, tmp_path / "f")
    there.carrel("import", "--start", tmp_path / "f")
    assert inside(there, name, "cat", "/k/file") == "mine\n"
    there.carrel("rm", "-f", name)
    assert "holds data" in there.carrel("import", tmp_path / "f", ok=5).stderr
    there.wait(lambda: name not in workspaces(there))
    there.wait(lambda: there.carrel("volume", "rm", kept, ok=None).returncode == 0)
    here.carrel("rm", "-f", name)


# --- with memory ---


def test_a_suspended_machine_goes_on_elsewhere(here, there, kernel, name, tmp_path):
    """Once with its id, and once more beside that one. It was restored before, and can be suspended again."""
    for site in (here, there):
        give_kernel(site, kernel)
    here.carrel("run", "-d", "--network", "none", "--engine", "emulator", "--memory", "256M", "--name", name, "busybox", "--",
                "sh", "-c",
                "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; echo $i > /dev/shm/count; sleep 0.2; done", timeout=180)
    here.number(name, "/dev/shm/count", above=3)
    here.carrel("snapshot", "create", "--memory", name, "before", timeout=180)
    here.carrel("stop", "-t", "0s", name)
    here.carrel("snapshot", "restore", name, "before", timeout=180)
    here.wait_state(name, "running")
    here.carrel("suspend", name, timeout=180)
    was = here.wait_state(name, "suspended")
    here.carrel("export", name, tmp_path / "f", timeout=180)
    there.carrel("import", tmp_path / "f", timeout=180)
    there.carrel("import", "--name", name + "-too", tmp_path / "f", timeout=180)
    now = there.wait_state(name, "suspended")
    assert now["id"] == was["id"] and now["engine"] == "emulator" and now["run"] == was["run"]
    for one in (name, name + "-too"):
        there.carrel("resume", one, timeout=180)
        there.wait_state(one, "running")
        first = there.number(one, "/dev/shm/count")
        assert first > 3, "it went on, and did not begin anew"
        there.number(one, "/dev/shm/count", above=first)
    there.carrel("suspend", name, timeout=180)
    for one in (name, name + "-too"):
        there.carrel("rm", "-f", one)
    here.carrel("rm", "-f", name)


def test_addresses_are_kept_or_new(world, new_site, busybox_tar, name, tmp_path):
    here = new_site(world=world)
    import_image(here, "busybox", busybox_tar)
    assert here.api("POST", "/v1/networks", {"name": "default", "ipv4": "10.88.0.0/24", "ipv6": "fd00:88::/64"})[0] == 201
    here.carrel("run", "-d", "--name", name, "busybox", "--", "sleep", "100000")
    here.wait_state(name, "running")
    here.carrel("stop", "-t", "0s", name)
    was = here.workspace(name)["interfaces"][0]
    here.carrel("export", name, tmp_path / "f")
    here.carrel("rm", name)
    here.carrel("import", tmp_path / "f")
    now = here.workspace(name)["interfaces"][0]
    assert [now[k] for k in ("network", "mac", "ipv4", "ipv6")] == [was[k] for k in ("network", "mac", "ipv4", "ipv6")]
    assert "--new-addresses" in here.carrel("import", "--name", name + "b", tmp_path / "f", ok=5).stderr
    here.carrel("import", "--start", "--new-addresses", "--name", name + "b", tmp_path / "f")
    other = here.workspace(name + "b")["interfaces"][0]
    assert other["network"] == "default" and other["ipv4"] != was["ipv4"] and other["mac"] != was["mac"]
