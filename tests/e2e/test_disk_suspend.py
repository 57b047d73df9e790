# SPDX-License-Identifier: Apache-2.0
"""Workspaces that boot a disk are suspended, go on, and are carried to other sites with their memory."""
import json
import os
import shutil
import struct
import subprocess
import tarfile
import uuid

import pytest

import disk_guest
from disk_tools import boot_disk, need_qemu_img, qemu_img
from test_disk_machine import await_host, await_log, deploy
from test_suspend import damage

SPEC = """
name: {name}
image: linux
engine: emulator
network: none
resources: {{memory: 192MiB}}
"""
COUNT = "(i=0; while :; do i=$((i+1)); echo $i >/tmp/new; mv /tmp/new /tmp/count; sleep 0.1; done) >/dev/null 2>&1 </dev/null &"


def ready(site, guest_disk):
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86 is not installed")
    await_host(site)
    if "linux" not in [i["name"] for i in site.json("image", "ls")]:
        site.carrel("image", "import", "linux", guest_disk)
    return site


@pytest.fixture
def here(shared_site, guest_disk):
    return ready(shared_site, guest_disk)


@pytest.fixture
def name(here):
    name = "m" + uuid.uuid4().hex[:8]
    yield name
    here.carrel("rm", "-f", name, ok=None)


@pytest.fixture(scope="module")
def there(new_module_site):
    """Another service, with nothing in it."""
    site = new_module_site()
    await_host(site)
    return site


def inside(site, name, *words, **how):
    return site.carrel("exec", name, "--", *words, **how).stdout


def counting(site, name, tmp_path, more=""):
    deploy(site, tmp_path, SPEC.format(name=name) + more)
    await_log(site, name, "READY")
    inside(site, name, "sh", "-c", COUNT)
    inside(site, name, "sh", "-c", "echo kept >/disk/kept; sync")
    return count(site, name)


def count(site, name):
    return site.number(name, "/tmp/count")


def goes_on(site, name, before):
    site.wait_state(name, "running")
    seen = count(site, name)
    assert seen >= before, "it began anew"
    site.wait(lambda: count(site, name) > seen)
    assert inside(site, name, "cat", "/disk/kept", "/disk/count") == "kept\n1\n"
    inside(site, name, "sh", "-c", "echo $(date) >/disk/written && sync")


def memory_of(site, name):
    return site.state / "node/workspaces" / site.workspace(name)["id"] / "memory"


def test_suspended_and_resumed(here, name, tmp_path):
    before = counting(here, name, tmp_path)
    assert here.json("suspend", "--check", name)["level"] == "memory"
    here.carrel("suspend", name, timeout=180)
    assert (memory_of(here, name) / "manifest.json").exists() and (memory_of(here, name) / "seed").exists()
    here.carrel("resume", name, timeout=180)
    goes_on(here, name, before)
    log = here.carrel("logs", name).stdout
    assert log.count("STARTS") == 1, "it booted again"
    before = count(here, name)
    here.carrel("suspend", name)
    here.node.kill()
    here.node.start()
    await_host(here)
    here.carrel("resume", name)
    goes_on(here, name, before)
    here.carrel("stop", "--timeout", "60s", name)
    assert here.wait_state(name, "stopped")["exit_status"] == 0, "its power button works as before"


def test_uefi_with_old_devices_and_a_data_disk(here, name, tmp_path):
    """What its firmware remembers and what is on all disks belong to the state; a snapshot with memory brings the same back."""
    if not os.path.exists("/usr/share/OVMF/OVMF_CODE_4M.fd"):
        pytest.skip("ovmf is not installed")
    deploy(here, tmp_path, SPEC.format(name=name).replace("192", "512")
           + "machine: {firmware: uefi, nic: e1000}\nvolumes: [{name: data, size: 32MiB, mount: /data}]\n")
    await_log(here, name, "READY")
    inside(here, name, "sh", "-c", COUNT)
    (inside(here, name, "sh", "-c", "echo kept >/disk/kept; sync; echo first | dd of=/dev/vdb bs=512 conv=sync,fsync "
                                    "2>/dev/null"))
    low = count(here, name)
    here.carrel("snapshot", "create", "--memory", name, "then", timeout=180)
    inside(here, name, "sh", "-c", "echo second | dd of=/dev/vdb bs=512 conv=sync,fsync 2>/dev/null; echo lost >/disk/kept; "
                                   "sync")
    here.carrel("suspend", name, timeout=180)
    names = [v["name"] for v in json.loads((memory_of(here, name) / "manifest.json").read_text())["volumes"]]
    assert sorted(names) == ["data", "nvram", "root"]
    here.carrel("resume", name, timeout=180)
    here.wait(lambda: count(here, name) > low)
    assert inside(here, name, "head", "-c", "6", "/dev/vdb") == "second"
    here.carrel("stop", "-t", "0s", name)
    here.carrel("snapshot", "restore", name, "then", timeout=180)
    goes_on(here, name, low)
    assert inside(here, name, "sh", "-c", "head -c 5 /dev/vdb; ls -d /sys/firmware/efi") == "first/sys/firmware/efi\n"


def test_nvme_is_refused_and_runs_on(here, name, tmp_path):
    (tmp_path / "boot.raw").write_bytes(boot_disk(b"BOOTED HERE"))
    here.carrel("image", "import", "sector", tmp_path / "boot.raw")
    deploy(here, tmp_path, f"name: {name}\nimage: sector\nengine: emulator\nnetwork: none\nmachine: {{disk-bus: nvme}}\n")
    await_log(here, name, "BOOTED HERE")
    assert "NVMe" in here.json("suspend", "--check", name)["reason"]
    assert "NVMe" in here.carrel("suspend", name, ok=7).stderr
    assert here.wait_state(name, "running")


def test_what_does_not_fit_is_refused_and_stays(here, name, tmp_path):
    (tmp_path / "boot.raw").write_bytes(boot_disk(b"BOOTED HERE"))
    here.carrel("image", "import", "sector", tmp_path / "boot.raw")
    deploy(here, tmp_path, f"name: {name}\nimage: sector\nengine: emulator\nnetwork: none\nresources: {{memory: 64MiB}}\n")
    await_log(here, name, "BOOTED HERE")
    here.carrel("suspend", name)
    memory = memory_of(here, name)
    for file, at in (("state", 3000), ("seed", 40000)):
        damage(memory / file, at)
        assert "damaged" in here.carrel("resume", name, ok=8).stderr
        damage(memory / file, at)
    volume = memory.parent / "volumes/root.qcow2"
    size = volume.stat().st_size
    manifest = (memory / "manifest.json").read_text()
    (memory / "manifest.json").write_text(json.dumps(dict(json.loads(manifest), layout="sha256:" + 64 * "0")))
    assert "devices" in here.carrel("resume", name, ok=None).stderr
    (memory / "manifest.json").write_text(manifest)
    assert here.wait_state(name, "suspended") and volume.stat().st_size == size
    here.carrel("resume", name)
    here.wait_state(name, "running")


# --- carried ---


def test_carried_with_its_memory(here, there, name, tmp_path):
    before = counting(here, name, tmp_path)
    here.carrel("suspend", name)
    was = here.wait_state(name, "suspended")
    here.carrel("export", name, tmp_path / "whole")
    here.carrel("export", "--base", "linux", name, tmp_path / "thin")
    assert (tmp_path / "thin").stat().st_size < (tmp_path / "whole").stat().st_size - (20 << 20)
    there.carrel("import", tmp_path / "whole", timeout=300)
    now = there.wait_state(name, "suspended")
    assert now["id"] == was["id"] and now["image"]["digest"] == was["image"]["digest"]
    there.carrel("resume", name, timeout=180)
    goes_on(there, name, before)
    there.carrel("stop", "--timeout", "60s", name)
    there.carrel("start", name)
    await_log(there, name, "STARTS 2")
    there.carrel("rm", "-f", name)
    there.carrel("import", "--start", tmp_path / "thin", timeout=300)  # the image stayed there
    goes_on(there, name, before)
    there.carrel("rm", "-f", name)


@pytest.fixture
def sector(here, name, tmp_path):
    """A stopped workspace of a small disk with a snapshot; its folder."""
    (tmp_path / "boot.raw").write_bytes(boot_disk(b"BOOTED HERE"))
    here.carrel("image", "import", "sector", tmp_path / "boot.raw")
    deploy(here, tmp_path, f"name: {name}\nimage: sector\nengine: emulator\nnetwork: none\nresources: {{memory: 64MiB}}\n")
    await_log(here, name, "BOOTED HERE")
    here.carrel("stop", "-t", "0s", name)
    here.carrel("snapshot", "create", name, "one")
    return here.state / "node/workspaces" / here.workspace(name)["id"]


def test_snapshots_of_disks_are_carried(here, there, name, sector, tmp_path):
    here.carrel("export", "--snapshots", name, tmp_path / "f")
    there.carrel("import", tmp_path / "f")
    assert [s["name"] for s in there.workspace(name)["snapshots"]] == ["one"]
    there.carrel("snapshot", "restore", name, "one")
    there.carrel("start", name)
    await_log(there, name, "BOOTED HERE")
    there.carrel("rm", "-f", name)


def lie(path, at, data):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize("where", ["volumes/root.qcow2", "snapshots/*/root.ext4"])
def test_a_disk_that_names_other_files_is_not_taken_in(here, there, name, sector, tmp_path, where):
    """A bundle is anybody's: what is in it must not make QEMU open anything."""
    [disk] = sector.glob(where)
    whole = disk.read_bytes()
    shadow = b"/etc/shadow"
    lies = {
        "a backing file": [(8, struct.pack(">QI", 0x200, len(shadow))), (0x200, shadow)],
        "for its data": [(72, struct.pack(">Q", 4)), (104, struct.pack(">II", 0x44415441, len(shadow)) + shadow)],
        "encrypted": [(32, struct.pack(">I", 2))],
        "used for something else": [(40, struct.pack(">Q", 0x10000))],
        "no qcow2": [(0, b"QFI\0")],
    }
    for word, changes in lies.items():
        for at, data in changes:
            lie(disk, at, data)
        here.carrel("export", "--snapshots", name, tmp_path / "bad")
        refused = there.carrel("import", tmp_path / "bad", ok=None)
        assert refused.returncode != 0 and word in refused.stderr, (word, refused.stderr)
        there.wait(lambda: there.api("GET", f"/v1/workspaces/{name}")[0] == 404)
        disk.write_bytes(whole)
        (tmp_path / "bad").unlink()
    here.carrel("export", "--snapshots", name, tmp_path / "good")
    there.carrel("import", tmp_path / "good")
    there.carrel("rm", "-f", name)


def test_the_disk_alone_for_other_systems(here, name, tmp_path):
    need_qemu_img()
    deploy(here, tmp_path, SPEC.format(name=name).replace("{memory", "{disk: 128MiB, memory"))
    await_log(here, name, "READY")
    inside(here, name, "sh", "-c", "echo written >/disk/mine; sync")
    assert "at rest" in here.carrel("export", "--as", "raw", name, tmp_path / "raw", ok=5).stderr
    here.carrel("stop", "--timeout", "60s", name)
    for form in ("raw", "qcow2", "vmdk", "ova"):
        here.carrel("export", "--as", form, name, tmp_path / form)
    assert subprocess.run(["mtype", "-i", f"{tmp_path / 'raw'}@@{disk_guest.START * 512}", "::/mine"],
                          capture_output=True).stdout == b"written\n"
    for form in ("qcow2", "vmdk"):
        qemu_img("compare", "-f", "raw", "-F", form, tmp_path / "raw", tmp_path / form)
    with tarfile.open(tmp_path / "ova") as archive:
        assert archive.getnames() == ["machine.ovf", "machine.mf", "disk0.vmdk"]
        archive.extract("disk0.vmdk", tmp_path)
    qemu_img("compare", "-f", "raw", "-F", "vmdk", tmp_path / "raw", tmp_path / "disk0.vmdk")
    assert "no format" in here.carrel("export", "--as", "vdi", name, tmp_path / "vdi", ok=2).stderr
    assert not list(tmp_path.glob("*.part"))
