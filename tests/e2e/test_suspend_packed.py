# SPDX-License-Identifier: Apache-2.0
"""The memory of suspended workspaces is packed when it rests, and goes on from there; whatever is killed or damaged, it is whole or refused."""
import json
import os
import pathlib
import subprocess
import uuid

import pytest

from conftest import give_kernel, import_image
from test_suspend import count, counting, damage, folder, goes_on, revived, settled

NAME = "packed"
RESTS = "1ms"  # it is plain for a moment, and then it is packed


@pytest.fixture(scope="module")
def site(new_module_site, kernel, busybox_tar):
    plan = pathlib.Path(f"/var/tmp/carrel-packed-faults-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    plan.write_text("")
    site = new_module_site(node_args=["--memory-after", RESTS], env={"CARREL_FAULTS": str(plan)})
    give_kernel(site, kernel)
    import_image(site, "busybox", busybox_tar)
    site.plan = plan
    counting(site, NAME)
    yield site
    plan.unlink()


def files(site):
    return {p.name for p in folder(site, NAME).iterdir()}


def is_packed(site):
    there = files(site)
    return "ram.packed" in there and not there & {"ram", "ram.packed.new", "manifest.json.new"}


def is_left_alone(site):
    check = site.carrel("suspend", "--check", NAME, ok=None)
    return check.returncode == 0 and "worked on" not in check.stdout + check.stderr


def reached(site, point, fault, verb):
    """The verb is asked for, and the fault has done what it does: who was killed is killed and there again."""
    of_agent, before = fault == "kill" and not point.startswith("memory."), site.node.process.pid
    site.plan.write_text(f"{point} {fault}\n")
    asked = site.popen(verb, NAME, stderr=subprocess.DEVNULL)
    while asked.poll() is None:
        revived(site)
    site.wait(lambda: site.plan.read_text().startswith("#"), what=f"{point} reached")
    site.wait(lambda: revived(site) or not of_agent or site.node.process.pid != before, what=f"an agent killed at {point}")
    return settled(site, NAME)


def packed(site):
    site.wait_state(NAME, "suspended")
    # a fault may strike late
    site.wait(lambda: revived(site) or (is_packed(site) and is_left_alone(site)), what="packed memory")
    return folder(site, NAME)


def suspended(site):
    if site.workspace(NAME)["state"] != "suspended":
        site.carrel("suspend", NAME)
    return packed(site)


def test_it_is_packed_and_goes_on(site):
    before = count(site, NAME)
    memory = suspended(site)
    manifest = json.loads((memory / "manifest.json").read_text())
    ram = next(f for f in manifest["files"] if f["name"] == "ram")
    assert ram["stored"] == (memory / "ram.packed").stat().st_size < ram["length"] / 8
    site.wait(lambda: site.workspace(NAME)["memory_bytes"] < ram["length"] / 8)
    assert site.json("suspend", "--check", NAME)["level"] == "memory"
    site.node.kill()
    site.node.start()
    site.wait_state(NAME, "suspended")
    assert is_packed(site)
    site.carrel("resume", NAME)
    goes_on(site, NAME, before)
    site.wait(lambda: files(site) == {"ram", "machine.json"}, what="nothing left of the packed memory")


def test_damaged_in_any_part_it_is_refused_and_stays(site):
    before = count(site, NAME)
    memory = suspended(site)
    path, manifest = memory / "ram.packed", (memory / "manifest.json").read_bytes()
    length = path.stat().st_size
    table = int.from_bytes(path.read_bytes()[length - 56:length - 48], "little")
    whole = path.read_bytes()

    def refused(what):
        check = site.json("suspend", "--check", NAME)
        assert check["level"] == "volumes" and "memory" in check["reason"], (what, check)
        done = site.carrel("resume", NAME, ok=None)
        assert done.returncode != 0 and "memory" in done.stderr, (what, done.stderr)
        assert site.wait_state(NAME, "suspended")["state"] == "suspended"
        assert (memory / "manifest.json").read_bytes() == manifest and not (memory / "ram").exists()

    for what, at in (("start", 9), ("length", 17), ("head", 64 + 5), ("pages", 64 + 20), ("stored bytes", 64 + 80 + 100),
                     ("the middle", table // 2),
                     ("table", table + 3), ("a digest in the table", table + 20), ("footer", length - 60),
                     ("the whole's digest", length - 3)):
        damage(path, at)
        refused(what)
        damage(path, at)
    for size in (length - 1, table, 64, 10, 0):
        os.truncate(path, size)
        refused(f"cut at {size}")
        path.write_bytes(whole)
    path.write_bytes(whole + b"more")
    refused("longer")
    path.unlink()
    refused("gone")
    path.write_bytes(whole)
    path.chmod(0o600)
    site.carrel("resume", NAME)
    goes_on(site, NAME, before)


@pytest.fixture
def at_once(site):
    """The same site, where memory is packed by the suspend itself."""
    def again(after):
        site.node.kill()
        site.node.arguments[site.node.arguments.index("--memory-after") + 1] = after
        site.node.start()
        settled(site, NAME)
    again("0s")
    yield site
    again(RESTS)


def test_at_once_no_plain_memory_is_left(at_once):
    site, before = at_once, count(at_once, NAME)
    site.carrel("suspend", NAME)
    assert is_packed(site)
    ram = next(f for f in json.loads((folder(site, NAME) / "manifest.json").read_text())["files"] if f["name"] == "ram")
    assert ram["stored"] == (folder(site, NAME) / "ram.packed").stat().st_size and "sparse-digest" not in ram
    assert site.json("suspend", "--check", NAME)["level"] == "memory"
    damage(folder(site, NAME) / "ram.packed", ram["stored"] // 2)
    assert site.json("suspend", "--check", NAME)["level"] == "volumes"
    damage(folder(site, NAME) / "ram.packed", ram["stored"] // 2)
    site.carrel("resume", NAME)
    goes_on(site, NAME, before)
    for point, fault in (("pack-now", "ENOSPC"), ("memory.pack", "kill"), ("suspend-saved", "ENOSPC"),
                         ("suspend-saved", "kill")):
        before = count(site, NAME)
        if reached(site, point, fault, "suspend")["state"] == "suspended":  # the wish was still there for the next agent
            site.carrel("resume", NAME)
        goes_on(site, NAME, before)
        assert "ram" in files(site) and (fault == "kill" or "ram.packed" not in files(site)), (point, fault, files(site))


def test_what_nobody_waits_for_goes_in_the_end(at_once):
    """Large files lose their names before a command ends, and their room afterwards; by the next agent, when this one is killed meanwhile."""
    site, before = at_once, count(at_once, NAME)
    for verb, state in (("suspend", "suspended"), ("resume", "running")):
        assert reached(site, "tidy", "kill", verb)["state"] == state
        site.wait(lambda: revived(site) or not any(n.endswith(".left") for n in files(site)), what=f"nothing left by a {verb}")
        assert "ram" in files(site) if state == "running" else is_packed(site)
    goes_on(site, NAME, before)


def test_a_resume_ends_the_packing(site):
    """The process that packs stands still where nobody lets it go on, and the resume does not wait for it. Who waited for its turn gets it."""
    before = count(site, NAME)
    counting(site, "other")
    fifo = site.folder / "fifo"
    os.mkfifo(fifo)
    site.plan.write_text(f"memory.pack wait {fifo}\n")
    site.carrel("suspend", NAME)
    site.wait(lambda: site.plan.read_text().startswith("#"), what="a packing that waits")
    assert "ram.packed.new" in files(site)
    site.carrel("suspend", "other")
    site.wait_state("other", "suspended")
    assert "ram" in {p.name for p in folder(site, "other").iterdir()}
    site.carrel("resume", NAME)
    goes_on(site, NAME, before)
    assert not files(site) & {"ram.packed", "ram.packed.new"}
    site.wait(lambda: "ram" not in {p.name for p in folder(site, "other").iterdir()}, what="packed memory of the other one")
    site.carrel("rm", "-f", "other")


def test_exported_packed_and_imported(site, new_site, kernel, tmp_path):
    before = count(site, NAME)
    memory = suspended(site)
    stored = (memory / "ram.packed").read_bytes()
    site.carrel("export", NAME, tmp_path / "f")
    there = new_site(node_args=["--memory-after", "0s"])
    give_kernel(there, kernel)
    there.carrel("import", tmp_path / "f")
    assert (folder(there, NAME) / "ram.packed").read_bytes() == stored
    there.carrel("resume", NAME)
    goes_on(there, NAME, before)
    site.carrel("resume", NAME)
    goes_on(site, NAME, before)


FAULTS = (("suspend", "pack-begin", "ENOSPC"), ("suspend", "pack-rename", "kill"), ("suspend", "pack-manifest", "kill"),
          ("suspend", "pack-replaced", "kill"),
          ("suspend", "memory.pack", "kill"), ("resume", "unpack-begin", "ENOSPC"), ("resume", "memory.unpack", "kill"),
          ("resume", "unpacked", "kill"), ("resume", "launch-end", "kill"))


def test_killed_at_each_step_it_is_whole(site):
    for verb, point, fault in FAULTS:
        state = settled(site, NAME)["state"]
        if verb == "suspend" and state == "suspended":
            site.carrel("resume", NAME)
        if verb == "resume":
            suspended(site)
        before = 0 if verb == "resume" else count(site, NAME)
        found = reached(site, point, fault, verb)
        if verb == "suspend":
            assert found["state"] == "suspended", (point, fault, found)
            if fault == "kill" and point.startswith("pack"):  # the next agent packs it to its end
                packed(site)
            else:  # not for ever, but not at once either
                assert "ram" in files(site)
            site.carrel("resume", NAME)
            goes_on(site, NAME, before)
        elif found["state"] == "suspended":
            assert is_packed(site), (point, fault, files(site))
            site.carrel("resume", NAME)
            goes_on(site, NAME, 1)
        else:
            assert found["state"] == "running", (point, fault, found)
            goes_on(site, NAME, 1)
        assert not files(site) & {"ram.packed", "ram.packed.new"}, (point, fault)


# --- what CRIU wrote ---

TICKS = ("big=$(head -c 3000000 /dev/urandom | base64); i=0; while true; do i=$((i+1)); echo tick $i ${#big}; usleep 100000; "
         "done")


@pytest.fixture(scope="module")
def namespaces(new_module_site, criu, busybox_tar):
    plan = pathlib.Path(f"/var/tmp/carrel-packed-faults-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    plan.write_text("")
    site = new_module_site(node_args=["--memory-after", RESTS], env={"CARREL_CRIU": criu, "CARREL_FAULTS": str(plan)})
    import_image(site, "busybox", busybox_tar)
    site.plan = plan
    site.carrel("deploy", "busybox", "--name", NAME, "--network", "none", "--", "sh", "-c", TICKS)
    site.wait(lambda: ticks(site), what="the first tick")
    yield site
    site.carrel("rm", "-f", NAME)
    plan.unlink()


def ticks(site):
    return [int(line.split()[1]) for line in site.carrel("logs", NAME).stdout.splitlines() if line.startswith("tick ")]


def ticks_on(site):
    """The same shell, with all it had: no number is left out, none comes twice."""
    site.wait_state(NAME, "running")
    before = len(ticks(site))
    site.wait(lambda: len(ticks(site)) > before + 2, what="more ticks")
    seen = ticks(site)
    assert seen == list(range(1, len(seen) + 1))
    assert len({line.split()[2] for line in site.carrel("logs", NAME).stdout.splitlines() if line.startswith("tick ")}) == 1


def pages(site):
    """The manifest's row of the largest file, the names of all that it has packed, and of those that will be."""
    rows = json.loads((folder(site, NAME) / "manifest.json").read_text())["files"]
    plain = {row["name"] for row in rows if "packed" not in row and row["length"] >= 1 << 20}
    return max(rows, key=lambda row: row["length"]), {row["name"] for row in rows if "packed" in row}, plain


def packed_images(site):
    site.wait_state(NAME, "suspended")
    site.wait(lambda: not pages(site)[2] and not any(n.endswith(".new") for n in files(site)) and is_left_alone(site),
              what="packed images")
    large, names, _ = pages(site)
    assert large["name"] in names and large["length"] > 3000000
    assert not names & files(site) and {n + ".packed" for n in names} <= files(site)
    return folder(site, NAME) / (large["name"] + ".packed"), large


def test_processes_are_packed_and_go_on(namespaces):
    site = namespaces
    site.carrel("suspend", NAME)
    path, large = packed_images(site)
    assert large["stored"] == path.stat().st_size < large["length"]
    assert site.json("suspend", "--check", NAME)["level"] == "memory"
    site.node.kill()
    site.node.start()
    packed_images(site)
    site.carrel("resume", NAME)
    ticks_on(site)
    site.wait(lambda: not any(n.endswith(".packed") for n in files(site)) if folder(site, NAME).exists() else True,
              what="nothing left that is packed")


def test_packed_processes_that_are_damaged_stay(namespaces):
    site = namespaces
    site.carrel("suspend", NAME)
    path, large = packed_images(site)
    whole, manifest = path.read_bytes(), (path.parent / "manifest.json").read_bytes()

    def refused(what):
        assert site.json("suspend", "--check", NAME)["level"] == "volumes", what
        done = site.carrel("resume", NAME, ok=None)
        assert done.returncode != 0 and large["name"] in done.stderr, (what, done.stderr)
        assert site.wait_state(NAME, "suspended")["state"] == "suspended"
        assert (path.parent / "manifest.json").read_bytes() == manifest and large["name"] not in files(site), what

    for what, at in (("start", 20), ("a head", 64 + 20), ("stored bytes", len(whole) // 2),
                     ("the whole's digest", len(whole) - 3)):
        damage(path, at)
        refused(what)
        damage(path, at)
    os.truncate(path, len(whole) - 1)
    refused("cut")
    path.write_bytes(whole)
    for point, fault in (("unpack-begin", "ENOSPC"), ("memory.unpack", "kill"), ("unpack-end", "ENOSPC")):
        found = reached(site, point, fault, "resume")
        assert found["state"] == "suspended", (point, fault, found)
        assert large["name"] not in files(site), (point, fault)
    reached(site, "unpack-end", "kill", "resume")  # the next agent does what was wished
    ticks_on(site)
