# SPDX-License-Identifier: Apache-2.0
"""
Control groups of version 2, whatever this host has: the unit test of src/enforce, alone in a kernel of its own.

Hosts of these tests have version 1 as often as not, and what the two do with less memory than is in use could not differ more.
"""
import pathlib
import re
import shutil
import subprocess

import pytest

from conftest import BUILD, TIMEOUT

TEST = pathlib.Path(BUILD) / "tests" / "unit" / "enforce" / "test-enforce-apply"
INIT = b"""#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
/busybox mount -t cgroup2 none /sys/fs/cgroup
CMOCKA_MESSAGE_OUTPUT=TAP LD_LIBRARY_PATH=/lib /test
echo "status $?"
/busybox poweroff -f
"""


def archive(files):
    """cpio as the kernel unpacks it (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    out = bytearray()
    for number, (name, mode, content) in enumerate([*files, ("TRAILER!!!", 0, b"")], 1):
        words = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        out += b"070701" + "".join(f"{w:08x}" for w in words).encode() + name.encode() + b"\0"
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def test_limits_of_version_2(kernel, tmp_path):
    busybox = shutil.which("busybox")
    if not TEST.exists() or not busybox:
        pytest.skip(f"{TEST} is not built" if busybox else "busybox-static is not installed")
    told = subprocess.run(["ldd", TEST], check=True, stdout=subprocess.PIPE, text=True).stdout
    if "asan" in told:
        pytest.skip("a sanitized test needs more memory than its groups have")
    libraries = [pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", told)]
    folders = [(name, 0o40755, b"") for name in ("proc", "sys", "tmp", "lib", "lib64", "dev")]
    places = [("lib64/" if path.name.startswith("ld-") else "lib/") + path.name for path in libraries]
    files = [(place, 0o100755, path.read_bytes()) for place, path in zip(places, libraries)]
    files += [("init", 0o100755, INIT), ("test", 0o100755, TEST.read_bytes()),
              ("busybox", 0o100755, pathlib.Path(busybox).read_bytes())]
    (tmp_path / "initramfs").write_bytes(archive([*folders, *files]))
    subprocess.run(["sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" ./boot', "sh", kernel, tmp_path], check=True)
    vmlinuz = next((tmp_path / "boot").glob("vmlinuz-*"))
    command = ["qemu-system-x86_64", "-accel", "tcg", "-M", "q35", "-cpu", "max", "-m", "512", "-nodefaults", "-no-reboot",
               "-nographic", "-serial", "stdio", "-kernel", vmlinuz, "-initrd", tmp_path / "initramfs",
               "-append", "console=ttyS0 quiet panic=-1"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=4 * TIMEOUT, text=True, errors="replace").stdout
    assert "status 0" in done and "not ok" not in done and "ok 4 - less_than_is_in_use_is_refused" in done, done
    assert "controller" not in done, done
