# SPDX-License-Identifier: Apache-2.0
"""
Memory states that something changed at a place that nobody chose: a resume refuses and says why, touches neither the state nor the workspace,
and takes the state as soon as it is whole again. Seeds: $CARREL_TEST_SEED, else new ones in each run; a failure tells its own.
CARREL_TEST_SWEEP=all tries many more.
"""
import json
import os
import random
import secrets

import pytest

from conftest import Site, give_kernel, import_image

TRIALS = 400 if os.environ.get("CARREL_TEST_SWEEP") == "all" else 24
# The name is in its memory only: one that began anew has another.
COUNT = ("read name < /proc/sys/kernel/random/uuid; i=0; while usleep 50000; do i=$((i+1)); echo $name > /name; echo $i > /n; "
         "done")


@pytest.fixture(scope="module")
def namespaces(prefix, criu, busybox_tar):
    site = Site(prefix, env={"CARREL_CRIU": criu})
    import_image(site, "busybox", busybox_tar)
    yield site
    problems = site.close()
    assert not problems, "\n".join(problems)


@pytest.fixture(scope="module")
def machines(shared_site, shared_busybox, kernel):
    return give_kernel(shared_site, kernel)


class Damage:
    """One change of one file, and its undoing."""

    def __init__(self, chance, path):
        self.path, self.size = path, path.stat().st_size
        self.kind = chance.choice(("flip", "flip", "flip", "cut", "longer", "zeros", "gone"))
        self.at = chance.randrange(self.size) if self.size else 0
        self.was = b""
        with open(path, "r+b") as f:
            f.seek(self.at)
            if self.kind == "flip" and self.size:
                self.was = f.read(1)
                self.write(f, bytes([self.was[0] ^ 1 << chance.randrange(8)]))
            elif self.kind == "zeros":
                self.was = f.read(chance.randrange(1, 5000))
                self.write(f, bytes(len(self.was)))
            elif self.kind == "cut":
                with open(path, "rb") as whole:
                    whole.seek(self.at)
                    self.was = whole.read()
                f.truncate(self.at)
        if self.kind == "longer":
            os.truncate(path, self.size + chance.randrange(1, 5000))
        if self.kind == "gone":
            path.rename(path.parent / ".gone")

    def write(self, f, content):
        f.seek(self.at)
        f.write(content)

    def harmless(self):
        return self.kind == "zeros" and not any(self.was) or self.kind in ("flip", "cut") and not self.size

    def undo(self):
        if self.kind == "gone":
            (self.path.parent / ".gone").rename(self.path)
        os.truncate(self.path, self.size)
        with open(self.path, "r+b") as f:
            self.write(f, self.was)

    def __str__(self):
        return f"{self.kind} at {self.at} of {self.path.name} ({self.size} bytes)"


def look(folder):
    return {p.name: (p.stat().st_size, p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.iterdir()}


def try_all(site, engine, files_of, trials):
    seed = int(os.environ.get("CARREL_TEST_SEED") or secrets.randbits(32))
    chance = random.Random(seed)
    how = ("-d", "--network", "none", "--memory", "128M", "--name", "d")
    site.carrel("run", "--engine", engine, *how, "busybox", "--", "sh", "-c", COUNT)
    site.number("d", "/n", above=2)
    name = site.says("d", "cat", "/name")
    folder = site.state / "node/workspaces" / site.workspace("d")["id"] / "memory"

    def suspend():
        site.carrel("suspend", "d")
        site.wait(lambda: files_of(json.loads((folder / "manifest.json").read_text())), what="digests of all files")
    suspend()
    for _ in range(trials):
        manifest = json.loads((folder / "manifest.json").read_text())
        damage = Damage(chance, folder / chance.choice([*files_of(manifest), "manifest.json"]))
        case = f"seed {seed}: {damage}"
        before = look(folder)
        done = site.carrel("resume", "d", ok=None)
        state = site.workspace("d")["state"]
        if done.returncode == 0:  # what is written about it in the manifest may be of no consequence
            assert damage.harmless() or damage.path.name == "manifest.json", case
            assert site.says("d", "cat", "/name") == name, f"{case}: it began anew"
            suspend()
            continue
        assert damage.path.name == "manifest.json" and damage.kind == "gone" or state == "suspended", f"{case}: {state}"
        assert "carrel: error: " in done.stderr, case
        assert not any(word in done.stderr for word in ("internal", "died", "ended")), f"{case}: {done.stderr}"
        assert look(folder) == before, f"{case}: the state was touched\n{before}\n{look(folder)}"
        damage.undo()
    site.carrel("resume", "d")
    assert site.says("d", "cat", "/name") == name
    site.carrel("rm", "-f", "d")


def test_memory_of_processes(namespaces):
    try_all(namespaces, "workspace", lambda manifest: [f["name"] for f in manifest["files"]], TRIALS)


def test_memory_of_a_machine(machines):
    def files(manifest):
        known = all("digest" in f or "sparse-digest" in f for f in manifest["files"])
        return [f["name"] + (".packed" if "packed" in f else "") for f in manifest["files"]] if known else []
    try_all(machines, "emulator", files, TRIALS // 3)
