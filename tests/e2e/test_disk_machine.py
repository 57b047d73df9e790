# SPDX-License-Identifier: Apache-2.0
"""Disk images boot as they are, under QEMU's emulator."""
import shutil
import socket
import struct
import subprocess
import time
import uuid

import pytest

from disk_tools import MIB, boot_disk

RUN = ("run", "--engine", "emulator", "-d", "--network", "none")


@pytest.fixture
def here(shared_site):
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86 is not installed")
    return shared_site


@pytest.fixture
def name():
    return "d" + uuid.uuid4().hex[:8]


@pytest.fixture
def sector(here, tmp_path):
    """An image whose boot sector writes to screen and serial line, and halts."""
    (tmp_path / "boot.raw").write_bytes(boot_disk(b"BOOTED HERE"))
    here.carrel("image", "import", "sector", tmp_path / "boot.raw")
    return "sector"


def await_log(site, name, text, timeout=120):
    """Returns the log when `text` is in it; output is no event."""
    deadline = time.monotonic() + timeout
    while text not in (log := site.carrel("logs", name).stdout):
        assert time.monotonic() < deadline, f"{text!r} did not come:\n{log}"
        time.sleep(0.2)
    return log


def test_boot_sector_console_and_log(here, name, sector):
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
