# SPDX-License-Identifier: Apache-2.0
"""Images of another processor: in emulated machines, and in namespaces by QEMU's user mode. Kernel and programs are Debian's."""
import json
import pathlib
import shutil
import subprocess
import uuid

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def foreign(shared_site):
    """A function that makes the site ready for one processor: what carrel-init is for it, a kernel, and an image "busybox-ARCH"."""
    def make(architecture, suite="bookworm", kernel=True):
        site = shared_site
        mirror = () if suite == "bookworm" else ("--mirror", f"deb http://deb.debian.org/debian {suite} main")
        if kernel:
            made = subprocess.run([ROOT / "tools/foreign-init", architecture,
                                   site.prefix / f"libexec/carrel/carrel-init-{architecture}"],
                                  capture_output=True, text=True)
            if made.returncode:
                pytest.skip(made.stderr.strip())
            done = site.carrel("kernel", "import", f"linux-{architecture}", f"debian:{suite}", "--arch", architecture, *mirror,
                               ok=None, timeout=300)
            if done.returncode:
                pytest.skip(f"no kernel for {architecture}: {done.stderr[-200:]}")
        done = site.carrel("image", "import", f"busybox-{architecture}", f"debian:{suite}", "--arch", architecture, "--variant",
                           "extract", "--include", "busybox-static", *mirror, ok=None, timeout=300)
        if done.returncode:
            pytest.skip(f"no busybox for {architecture}: {done.stderr[-200:]}")
        return site
    return make


@pytest.fixture
def name():
    return "f" + uuid.uuid4().hex[:8]


@pytest.mark.parametrize("architecture, machine, program, suite", [
    ("arm64", "aarch64", "qemu-system-aarch64", "bookworm"), ("riscv64", "riscv64", "qemu-system-riscv64", "trixie")])
def test_a_machine_of_another_processor(foreign, name, architecture, machine, program, suite):
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")
    site = foreign(architecture, suite)
    assert site.api("GET", f"/v1/images/busybox-{architecture}")[1]["architecture"] == architecture
    busybox = "/bin/busybox" if suite == "bookworm" else "/usr/bin/busybox"
    done = site.carrel("run", "--name", name, "--arch", architecture, "--engine", "emulator", "--network", "none",
                       f"busybox-{architecture}", "--",
                       busybox, "sh", "-c", f"{busybox} uname -m; {busybox} uname -m > /made; exit 6", ok=6, timeout=300)
    assert done.stdout.split() == [machine]
    assert site.workspace(name)["engine"] == "emulator"
    assert site.carrel("cp", f"{name}:/made", "-", timeout=300).stdout.find(machine) > 0  # by its own carrel-init
    refused = site.carrel("deploy", "--engine", "kvm", "--network", "none", f"busybox-{architecture}", "--", busybox, "true",
                          ok=None)
    assert refused.returncode and "KVM" in refused.stderr


def test_programs_of_another_processor_in_namespaces(foreign, name):
    """QEMU's user mode, registered in the workspace's own user namespace: neither the image nor the host has to know."""
    site = foreign("arm64", kernel=False)
    fact = facts(site)["engine-workspace-arm64"]
    if not fact["ok"]:
        done = site.carrel("run", "--rm", "--engine", "workspace", "--network", "none", "busybox-arm64", "--", "/bin/busybox",
                           "true", ok=None)
        assert done.returncode and "programs of aarch64" in done.stderr
        pytest.skip(f"{fact['detail']}: {fact['hint']}")
    done = site.carrel("run", "--name", name, "--network", "none", "busybox-arm64", "--", "/bin/busybox", "sh", "-c",
                       "busybox uname -m; /bin/busybox sh -c 'exit 7'; echo $?; exit 4", ok=4)
    assert done.stdout.split() == ["aarch64", "7"]
    assert site.workspace(name)["engine"] == "workspace"
    assert not pathlib.Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
    site.carrel("rm", name)
    site.carrel("deploy", "--name", name, "--network", "none", "busybox-arm64", "--", "/bin/busybox", "sleep", "1000")
    assert site.carrel("exec", name, "--", "/bin/busybox", "uname", "-m").stdout == "aarch64\n"
    site.carrel("rm", "-f", name)


def test_doctor_registers_what_older_kernels_need(shared_site):
    """In a user namespace with a binfmt_misc of its own, so that nothing of this host changes."""
    if not pathlib.Path("/usr/bin/qemu-aarch64-static").exists():
        pytest.skip("qemu-user-static is not installed")
    entries = "/proc/sys/fs/binfmt_misc"
    script = f"mount -t binfmt_misc none {entries} && {shared_site.program('carrel')} doctor --fix; cat {entries}/qemu-aarch64"
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], env=shared_site.environment,
                          capture_output=True, text=True)
    if "mount:" in done.stderr:
        pytest.skip(f"no binfmt_misc in user namespaces here: {done.stderr.strip()}")
    assert "fixed: programs of aarch64" in done.stdout and "interpreter /usr/bin/qemu-aarch64-static" in done.stdout, done


def facts(site):
    return {f["name"]: f for f in json.loads(site.carrel("doctor", "--format", "json").stdout)["hosts"][0]["facts"]["items"]}


def test_an_image_for_another_processor_than_asked_for_is_refused(shared_site, shared_busybox):
    done = shared_site.carrel("deploy", "--arch", "arm64", "busybox", "--", "true", ok=None)
    assert "is for amd64, not for arm64" in done.stderr
    named = facts(shared_site)
    assert {"engine-kvm", "engine-emulator", "engine-emulator-arm64", "engine-workspace-arm64",
            "engine-emulator-riscv64"} <= set(named)
    assert all(f["ok"] or f["hint"] for n, f in named.items() if n.startswith("engine-"))


def test_packages_that_cannot_run_here(shared_site, name):
    if pathlib.Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        pytest.skip("this host runs programs of arm64")
    refused = shared_site.carrel("image", "import", name, "debian:bookworm", "--arch", "arm64", "--variant", "minbase", ok=None,
                                 timeout=300)
    assert refused.returncode and "\\x0a" not in refused.stderr and "doctor --fix" in refused.stderr
    assert shared_site.carrel("image", "ls", "-q").stdout.split().count(name) == 0
