# SPDX-License-Identifier: Apache-2.0
"""Whatever dies or fails while a machine starts, booting or from a template: it runs in the end or says why, and nothing is left behind."""
import contextlib
import os
import pathlib
import signal
import subprocess
import time
import uuid

import pytest

from conftest import TIMEOUT, give_kernel, import_image, host_processes

DEPLOY = ("deploy", "--engine", "emulator", "--network", "none")
PROGRAM = ("--", "sh", "-c", "echo began; exec sleep 1000")


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    plan = tmp_path_factory.mktemp("faults") / "plan"
    plan.write_text("")
    return plan


@pytest.fixture(scope="module")
def site(new_module_site, kernel, busybox_tar, faults):
    """Its end searches the host for what was left behind."""
    made = new_module_site(env={"CARREL_FAULTS": str(faults)}, node_args=["--keep-mounted", "0s"])
    import_image(made, "busybox", busybox_tar)
    return give_kernel(made, kernel)


@pytest.fixture
def name():
    return "f" + uuid.uuid4().hex[:8]


def revive(site):
    for daemon in (site.service, site.node):
        if not daemon.running():
            daemon.start()


def deploy(site, name, *options):
    """What dies is started again while the command waits; its own end is not looked at."""
    child = site.popen(*DEPLOY, *options, "--name", name, "busybox", *PROGRAM, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + TIMEOUT
    while child.poll() is None:
        assert time.monotonic() < deadline, "deploy hangs"
        revive(site)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(0.1)


def settled(site, name):
    """Running with its program, or failed with a reason and then started by hand."""
    revive(site)
    found = site.wait_state(name, "running", "failed")
    if found["state"] == "failed":
        assert found["error"]["message"] and found["error"]["step"] in ("volumes", "network", "limits", "launch"), found
        site.carrel("start", name)
        site.wait_state(name, "running")
    assert site.carrel("exec", name, "--", "echo", "there").stdout == "there\n"


def removed(site, name):
    site.carrel("rm", "-f", name)
    site.wait(lambda: not [p for p in host_processes(name) if "qemu" in p], what="the end of QEMU")


def use(site, faults, name, point, fault):
    faults.write_text(f"{point} {fault}\n")
    deploy(site, name)
    if fault in faults.read_text():
        faults.write_text("")
        removed(site, name)
        pytest.skip("no fault points: this build has none (meson setup -Dfaults=true)")
    settled(site, name)
    removed(site, name)


@pytest.mark.parametrize("point, fault", [("runner.taps", "kill"), ("engine.started", "ENOSPC")])
def test_a_boot_with_a_fault(site, faults, name, point, fault):
    use(site, faults, name, point, fault)


def qemu_of(site, name):
    found = [int(p.split()[0]) for p in host_processes("carrel-" + name) if "qemu-system" in p]
    return found[0] if found else None


@pytest.mark.parametrize("who", ["QEMU", "runner", "agent", "service"])
def test_a_death_in_the_middle_of_a_boot(site, name, who):
    child = site.popen(*DEPLOY, "--name", name, "busybox", *PROGRAM, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = site.wait(lambda: site.workspace(name), what="the workspace")
    qemu = site.wait(lambda: qemu_of(site, found["id"]), what="QEMU")
    runner = int(pathlib.Path(f"/proc/{qemu}/stat").read_text().rsplit(")", 1)[1].split()[1])
    if who in ("QEMU", "runner"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(qemu if who == "QEMU" else runner, signal.SIGKILL)
    else:
        (site.node if who == "agent" else site.service).kill()
        revive(site)
    deadline = time.monotonic() + TIMEOUT
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    settled(site, name)
    removed(site, name)


def test_a_start_from_a_template_with_a_fault(site, faults, name):
    if "is made, in" not in site.node.log():
        deploy(site, name + "a")
        site.wait_state(name + "a", "running")
        site.wait(lambda: "is made, in" in site.node.log(), what="a template")
        removed(site, name + "a")
    use(site, faults, name, "runner.template", "kill")
