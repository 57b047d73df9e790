# SPDX-License-Identifier: Apache-2.0
"""
The engine kvm for real: an emulated machine whose processor has SVM is a host, with our own programs in it, and starts a machine by KVM.

The state of the site inside (an image and a kernel, imported) is made outside, where it takes no time.
"""
import json
import re
import subprocess

import pytest

from conftest import Site, give_kernel, import_image
from nested_tools import add_firmware, add_programs

PROGRAMS = ("mkfs.ext4", "resize2fs", "tune2fs", "qemu-system-x86_64")
MODULES = ("irqbypass", "kvm", "kvm-amd", "loop")
INIT = r"""#!/bin/sh
exec >/dev/console 2>&1
export PATH=/carrel/bin:/carrel/sbin:/bin:/usr/sbin:/sbin:/usr/bin CARREL_PREFIX=/carrel CARREL_ADDRESS=unix:/run/carreld.sock NO_COLOR=1
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
for m in irqbypass kvm kvm-amd loop; do insmod /modules/$m.ko; done
echo "probe: $(/carrel/libexec/carrel/carrel-kvm)"
carreld --state /state --run /run --log-level warn &
carrel-node --state /state --run /run --blanks 0 --ahead 0 --boot-timeout 15m --service unix:/run/carreld.sock --log-level warn &
i=0; until carrel doctor 2>/dev/null | grep -q ': connected'; do i=$((i+1)); [ $i -lt 1800 ] || break; sleep 0.1; done
carrel doctor | grep engine-kvm
carrel run --name auto --isolation machine --memory 256M --disk 64M --network none busybox -- \
    sh -c 'echo "inside: $(uname -r) $(cat /sys/class/dmi/id/sys_vendor)"; exit 5'
echo "status: $?"
echo "engine: $(carrel show auto --format json | grep -o '"engine": *"[a-z]*"' | tr -d ' \n')"
poweroff -f
"""


def add_state(files, prefix, busybox_tar, package):
    inner = Site(prefix, node=False)
    try:
        import_image(inner, "busybox", busybox_tar)
        give_kernel(inner, package)
        inner.service.stop()
        for path in inner.state.rglob("*"):
            if path.is_file():
                files["/state/" + str(path.relative_to(inner.state))] = path.read_bytes()
    finally:
        inner.close()


@pytest.fixture(scope="module")
def host_files(prefix, kernel, busybox_tar, tmp_path_factory):
    files = {"/sbin/init": (0o755, INIT.encode()), "/run/.keep": b"", "/sys/.keep": b"", "/tmp/.keep": b""}
    add_programs(files, prefix, PROGRAMS)
    add_firmware(files)
    add_state(files, prefix, busybox_tar, kernel)
    folder = tmp_path_factory.mktemp("kernel")
    subprocess.run(["dpkg-deb", "-x", kernel, folder], check=True)
    for name in MODULES:
        files[f"/modules/{name}.ko"] = next(folder.glob(f"lib/modules/**/{name}.ko")).read_bytes()
    return files


def test_a_machine_by_kvm(shared_site, kernel, host_files, make_image):
    give_kernel(shared_site, kernel)
    make_image(shared_site, "host", host_files)
    spec = {"name": "host", "image": "host", "engine": "emulator", "mode": "system", "network": "none",
            "resources": {"memory": "1G", "cpu": 1, "disk": "1G"}}
    shared_site.carrel("deploy", "-", input=json.dumps(spec))
    try:
        shared_site.wait_state("host", "stopped", timeout=1200)
    finally:
        log = shared_site.carrel("logs", "host").stdout
        print(log[-6000:], shared_site.carrel("why", "host").stdout)
    assert "probe: usable" in log
    assert re.search(r"yes +engine-kvm", log)
    assert "inside: 6." in log and "QEMU" in log and "status: 5" in log
    assert 'engine: "engine":"kvm"' in log or '"engine":"auto""engine":"kvm"' in log
    shared_site.carrel("rm", "host")
