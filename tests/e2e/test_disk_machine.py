# SPDX-License-Identifier: Apache-2.0
"""Disk images boot as they are, under QEMU's emulator."""
import json
import os
import shutil
import socket
import struct
import subprocess
import time
import uuid

import pytest

from disk_tools import boot_disk
from network_tools import World
from test_networks import make_network

RUN = ("run", "--engine", "emulator", "-d", "--network", "none")


@pytest.fixture
def here(shared_site):
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86 is not installed")
    await_host(shared_site)
    return shared_site


def await_host(site):
    """An agent is ready before the service has heard of it."""
    deadline = time.monotonic() + 120
    while not any(h["connected"] for h in site.api("GET", "/v1/hosts")[1]["items"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def name():
    return "d" + uuid.uuid4().hex[:8]


@pytest.fixture
def sector(here, tmp_path):
    """An image whose boot sector writes to screen and serial line, and halts."""
    (tmp_path / "boot.raw").write_bytes(boot_disk(b"BOOTED HERE"))
    here.carrel("image", "import", "sector", tmp_path / "boot.raw")
    return "sector"


def await_log(site, name, text, timeout=120, count=1):
    """Returns the log when `text` is in it; output is no event."""
    deadline = time.monotonic() + timeout
    while (log := site.carrel("logs", name).stdout).count(text) < count:
        assert time.monotonic() < deadline, f"{text!r} did not come:\n{log}"
        time.sleep(0.2)
    return log


def test_boot_sector_console_and_log(here, name, sector):
    assert here.json("image", "show", sector)["machine"]["firmware"] == "bios"
    here.carrel(*RUN, "--name", name, sector)
    here.wait_state(name, "running")
    await_log(here, name, "BOOTED HERE")
    here.carrel("stop", "--timeout", "0", name)
    here.carrel("rm", name)


class Rfb:
    """Enough of RFC 6143 to see a frame buffer."""

    def __init__(self, connection):
        self.connection = connection
        assert self.take(12) == b"RFB 003.008\n"
        connection.sendall(b"RFB 003.008\n")
        types = self.take(self.take(1)[0])
        assert 1 in types  # None
        connection.sendall(b"\1")
        assert self.take(4) == bytes(4)
        connection.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.take(4))
        self.take(16)
        self.name = self.take(struct.unpack(">I", self.take(4))[0])
        connection.sendall(struct.pack(">BxHi", 2, 1, 0))  # raw encoding

    def take(self, count):
        data = b""
        while len(data) < count:
            piece = self.connection.recv(count - len(data))
            assert piece, f"the end after {len(data)} of {count} bytes"
            data += piece
        return data

    def update(self):
        """The pixels of the rectangles of one whole update."""
        self.connection.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, self.width, self.height))
        while (kind := self.take(1)[0]) != 0:
            assert kind == 2  # bell
        pixels = b""
        for _ in range(struct.unpack(">xH", self.take(3))[0]):
            _, _, width, height, encoding = struct.unpack(">HHHHi", self.take(12))
            assert encoding == 0
            pixels += self.take(width * height * 4)
        return pixels


def test_display(here, name, sector, tmp_path):
    here.carrel(*RUN, "--name", name, sector)
    await_log(here, name, "BOOTED HERE")
    path = tmp_path / "v"
    viewer = here.popen("display", name, "--listen", path, stdout=subprocess.PIPE)
    assert viewer.stdout.readline().strip() in (str(path), str(path).encode())
    for _ in range(2):  # one after the other
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(60)
            connection.connect(str(path))
            rfb = Rfb(connection)
            assert rfb.width >= 640 and rfb.height >= 350
            assert any(rfb.update())
    viewer.terminate()
    viewer.wait(30)
    assert not path.exists()
    here.carrel("rm", "--force", name)


# --- a real guest ---


@pytest.fixture
def linux(here, guest_disk):
    if "linux" not in [i["name"] for i in here.json("image", "ls")]:
        here.carrel("image", "import", "linux", guest_disk)
    return "linux"


SPEC = """
name: {name}
image: linux
engine: emulator
network: none
user-data: |
  #cloud-config
  hostname: from-user-data
ssh-keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEXAMPLE me@here"]
"""


def deploy(site, tmp_path, text):
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    site.carrel("deploy", path)


def between(log, first, last):
    return log.replace("\r", "").split(first, 1)[1].split(last, 1)[0]


def copies_by_the_agent(here, name, tmp_path):
    """`cp` in its ways; whatever comes of it, nothing is left in the guest's /tmp."""
    inside = lambda *words: here.carrel("exec", name, "--", *words).stdout
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "data").write_bytes(os.urandom(300_001))
    (source / "sub" / "-empty name").touch()
    (source / "link").symlink_to("data")
    (source / "data").chmod(0o640)
    inside("mkdir", "/srv")
    here.carrel("cp", source, f"{name}:/srv/")
    assert (inside("stat", "-c", "%a %s", "/srv/source/data") == "640 300001\n"
            and inside("readlink", "/srv/source/link") == "data\n")
    here.carrel("cp", f"{name}:/srv/source", tmp_path / "back")
    assert (tmp_path / "back" / "data").read_bytes() == (source / "data").read_bytes()
    assert (tmp_path / "back" / "sub" / "-empty name").exists() and os.readlink(tmp_path / "back" / "link") == "data"
    here.carrel("cp", f"{name}:/srv/source/sub/-empty name", tmp_path / "empty")
    assert (tmp_path / "empty").read_bytes() == b""
    here.carrel("cp", source / "data", f"{name}:/srv/renamed")
    tar = here.carrel("cp", f"{name}:/srv/renamed", "-", binary=True).stdout
    here.carrel("cp", "-", f"{name}:/srv/sub/..", input=tar, binary=True, ok=4)  # no such folder
    here.carrel("cp", "-", f"{name}:/srv/source/sub/", input=tar, binary=True)
    assert inside("cmp", "/srv/source/sub/renamed", "/srv/source/data") == ""
    assert "there is no /srv/nothing" in here.carrel("cp", f"{name}:/srv/nothing", tmp_path, ok=4).stderr
    assert "No such file" in here.carrel("cp", f"{name}:/nowhere/x", "-", ok=4).stderr
    here.carrel("cp", "-", f"{name}:/srv/renamed", input=tar, binary=True, ok=(1, 5))  # no folder
    assert here.carrel("cp", "-", f"{name}:/srv", input="this is no tar", ok=None).returncode
    inside("mv", "/bin/tar", "/bin/tar-")
    assert "guest's tar, and there is none" in here.carrel("cp", f"{name}:/srv/renamed", tmp_path, ok=7).stderr
    inside("mv", "/bin/tar-", "/bin/tar")
    inside("mount", "-t", "tmpfs", "-o", "size=100k", "none", "/tmp")
    assert "no room" in here.carrel("cp", source / "data", f"{name}:/srv/", ok=6).stderr
    assert "No space left" in here.carrel("cp", f"{name}:/srv/renamed", "-", binary=True, ok=6).stderr.decode()
    assert inside("ls", "-A", "/tmp") == ""
    inside("umount", "/tmp")
    # a reader that goes away in the middle of something endless
    inside("sh", "-c", "mkdir /srv/large && head -c 30000000 /dev/zero >/srv/large/zeros")
    reader = here.popen("cp", f"{name}:/srv/large", "-", stdout=subprocess.PIPE)
    assert reader.stdout.read(1)
    reader.kill()
    reader.stdout.close()
    left = lambda: here.carrel("exec", name, "--", "sh", "-c", "ls -A /tmp; pidof tar; echo end", ok=None).stdout
    here.wait(lambda: left() == "end\n", what="a clean /tmp", timeout=120)


def forbids_and_feels_no_button(here, name, tmp_path):
    """An agent that may not open files, in a guest that its agent must ask to shut down."""
    agent = ("qemu-ga -d -b guest-file-open -p /dev/$(basename $(grep -l guest_agent /sys/class/virtio-ports/*/name | xargs "
             "dirname)) -m virtio-serial -t /run")
    script = f"rm /etc/acpi/PWRF/00000080; sleep 1; killall qemu-ga; while pidof qemu-ga; do sleep 1; done; {agent}"
    await_log(here, name, "READY", count=2)
    here.wait(lambda: here.carrel("exec", name, "--", "true", ok=None).returncode == 0, what="an agent")
    here.carrel("exec", name, "--", "sh", "-c", f"setsid sh -c '{script}' </dev/null >/dev/null 2>&1 &")
    here.wait(lambda: "does not allow guest-file-open" in here.carrel("cp", f"{name}:/init", tmp_path, ok=None).stderr,
              what="a refusal", timeout=120)
    assert here.carrel("exec", name, "--", "ls", "-A", "/tmp").stdout == ""
    here.carrel("stop", "--timeout", "30s", name)
    assert here.wait_state(name, "stopped")["exit_status"] == 0 and "ASKED" in here.carrel("logs", name).stdout


def test_bios_seed_agent_button_and_snapshot(here, name, linux, tmp_path):
    deploy(here, tmp_path, SPEC.format(name=name))
    log = await_log(here, name, "READY")
    assert "FIRMWARE bios" in log and "STARTS 1" in log
    assert "SERIAL vda disk0" in log.replace("\r", "")
    meta = json.loads(between(log, "--- meta-data", "--- network"))
    assert meta["local-hostname"] == name and meta["public-keys"][0].endswith("me@here")
    assert meta["instance-id"] == here.json("show", name)["id"]
    assert json.loads(between(log, "--- network-config", "--- user")) == {"version": 2, "ethernets": {}}
    assert "hostname: from-user-data" in between(log, "--- user-data", "---\n")
    # programs by the guest's agent
    done = here.carrel("exec", name, "--", "sh", "-c", "echo out; echo err >&2; uname -r; exit 7", ok=7)
    assert done.stdout.startswith("out\n") and "cloud" in done.stdout and "err\n" in done.stderr
    assert len(here.carrel("exec", name, "--", "head", "-c", "300000", "/dev/zero", binary=True).stdout) == 300000
    refused = here.carrel("exec", name, "--", "no-such-program", ok=127)
    assert "No such file" in refused.stderr
    assert "standard input" in here.carrel("exec", "-i", name, "--", "cat", ok=125, input="x").stderr
    copies_by_the_agent(here, name, tmp_path)
    # a larger disk while it runs
    sectors = lambda: int(here.carrel("exec", name, "--", "cat", "/sys/block/vda/size").stdout)
    before = sectors()
    here.carrel("set", name, "--disk", "12G")
    here.wait(lambda: sectors() == 12 << 21 > before, what="the larger disk")
    # frozen by the agent while it is paused, and thawed: the agent answers nothing else in between
    here.carrel("pause", name)
    here.carrel("resume", name)
    assert here.wait(lambda: here.carrel("exec", name, "--", "sh", "-c", "echo on > /count2 && cat /count2",
                                         ok=None).stdout == "on\n")
    # its button
    here.carrel("stop", "--timeout", "60s", name)
    stopped = here.wait_state(name, "stopped")
    assert stopped["exit_status"] == 0 and "BUTTON" in here.carrel("logs", name).stdout
    # what it wrote stays, and a snapshot brings it back
    here.carrel("snapshot", "create", name, "one")
    here.carrel("start", name)
    await_log(here, name, "STARTS 2")
    forbids_and_feels_no_button(here, name, tmp_path)
    here.carrel("snapshot", "restore", name, "one")
    here.carrel("start", name)
    log = await_log(here, name, "STARTS 2", count=2)
    assert "STARTS 3" not in log
    here.carrel("rm", "--force", name)


def test_uefi_nvme_and_a_bigger_disk(here, name, linux, tmp_path):
    if not os.path.exists("/usr/share/OVMF/OVMF_CODE_4M.fd"):
        pytest.skip("ovmf is not installed")
    deploy(here, tmp_path, SPEC.format(name=name)
           + "machine: {firmware: uefi, disk-bus: nvme, display: none}\nresources: {disk: 3GiB}\n")
    log = await_log(here, name, "READY")
    assert "FIRMWARE uefi" in log and "STARTS 1" in log and "from-user-data" in log
    assert "SERIAL nvme0n1 disk0" in log.replace("\r", "")
    size = here.carrel("exec", name, "--", "cat", "/sys/block/nvme0n1/size").stdout
    assert int(size) * 512 == 3 << 30
    assert "no display" in here.carrel("display", name, input="", ok=7).stderr
    here.carrel("pause", name)
    here.carrel("resume", name)
    here.carrel("stop", "--timeout", "60s", name)
    assert here.wait_state(name, "stopped")["exit_status"] == 0
    here.carrel("rm", name)


def test_agent_restarts_and_mounts_no_disk(here, name, sector):
    here.carrel(*RUN, "--name", name, sector)
    await_log(here, name, "BOOTED HERE")
    here.node.kill()
    here.node.start()
    await_host(here)
    assert "no agent answers" in here.carrel("exec", name, "--", "true", ok=125).stderr
    assert here.json("show", name)["state"] == "running"
    assert "mount erofs" not in here.node.log()
    here.carrel("rm", "--force", name)


def test_guest_without_agent_and_button(here, name, sector):
    here.carrel(*RUN, "--name", name, sector)
    await_log(here, name, "BOOTED HERE")
    assert "no agent answers" in here.carrel("exec", name, "--", "true", ok=125).stderr
    here.carrel("stop", "--timeout", "1s", name)
    assert here.wait_state(name, "stopped")["exit_status"] == 137
    here.carrel("rm", name)


@pytest.mark.parametrize("devices", ["{disk-bus: sata, nic: e1000}", "{disk-bus: nvme}"])
def test_other_devices(here, name, sector, tmp_path, devices):
    deploy(here, tmp_path, f"name: {name}\nimage: sector\nengine: emulator\nnetwork: none\nmachine: {devices}\n")
    await_log(here, name, "BOOTED HERE")
    here.carrel("rm", "--force", name)


def test_what_a_disk_does_not_take(here, name, sector, tmp_path):
    refused = here.carrel("deploy", "--engine", "workspace", "--network", "none", "--name", name, sector, ok=(1, 2, 125))
    assert "only a machine can boot" in refused.stderr
    here.carrel("rm", "--force", name, ok=(0, 4))
    refused = here.carrel("deploy", "--engine", "emulator", "--network", "none", "--name", name, sector, "--", "true",
                          ok=(1, 2, 125))
    assert "boots as it is" in refused.stderr
    here.carrel("rm", "--force", name, ok=(0, 4))


# --- on a network ---


@pytest.fixture(scope="module")
def networks():
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def networked(networks, new_module_site, guest_disk):
    site = new_module_site(world=networks, node_args=["--blank-size", "32M"])
    make_network(site, "default", ipv4="10.88.1.0/24", ipv6="fd00:88:0:1::/64", dns=[networks.WAN])
    site.carrel("image", "import", "linux", guest_disk)
    return site


def test_addresses_by_the_seed(networked, name, tmp_path):
    """The guest takes its address from the seed and reaches its gateway; cloud-init's own code makes files of it."""
    deploy(networked, tmp_path, f"name: {name}\nimage: linux\n")  # no engine named: a disk is a machine
    log = await_log(networked, name, "READY")
    config = json.loads(between(log, "--- network-config", "--- user"))
    [interface] = networked.json("show", name)["interfaces"]
    assert f"NETWORK {interface['ipv4']}" in log
    assert config["ethernets"]["eth0"]["match"]["macaddress"] == interface["mac"]
    assert f"NIC eth0 {interface['mac']}" in log
    if shutil.which("cloud-init"):
        (tmp_path / "network-config").write_text(json.dumps(config))
        subprocess.run(["cloud-init", "devel", "net-convert", "--network-data", tmp_path / "network-config", "--kind", "yaml",
                        "-O", "eni", "-D", "debian", "-d", tmp_path / "out"], check=True, capture_output=True)
        written = "".join(p.read_text() for p in (tmp_path / "out").rglob("*") if p.is_file())
        assert f"address {interface['ipv4']}" in written and "gateway fe80::1" in written
    networked.carrel("rm", "--force", name)
