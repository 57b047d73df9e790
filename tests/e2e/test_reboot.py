# SPDX-License-Identifier: Apache-2.0
"""
The machine is turned off and on: another boot id (builds with -Dfaults=true take it from $CARREL_BOOT_ID_FILE), no process of ours left. More is
left behind here than by a real boot - cgroups, mounts of partitions, run folders with status files and sockets - and must not confuse.
"""
import contextlib
import json
import os
import signal
import uuid

import pytest

from conftest import import_image

SLEEP = ["/bin/sleep", "1000"]


def deploy(site, name, *states, **spec):
    status, answer, _ = site.api("POST", "/v1/workspaces",
                                 {"spec": {"name": name, "image": "busybox", "command": SLEEP, "stop-timeout": "1s", **spec}})
    assert status == 201, answer
    return site.wait_state(name, *(states or ("running",)))


@pytest.fixture
def machine(new_site, busybox_tar, tmp_path):
    boot = tmp_path / "boot_id"
    boot.write_text(f"{uuid.uuid4()}\n")
    site = new_site(env={"CARREL_BOOT_ID_FILE": str(boot)})
    import_image(site, "busybox", busybox_tar)
    site.boot = boot
    return site


def status_file(site, workspace):
    return site.run / "node" / "workspaces" / workspace["id"] / "status"


def turn_off(site, runners_die=True):
    site.service.kill()
    site.node.kill()
    for path in (site.run / "node" / "workspaces").glob("*/status") if runners_die else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(json.loads(path.read_text())["runner_pid"], signal.SIGKILL)


def turn_on(site):
    site.boot.write_text(f"{uuid.uuid4()}\n")
    site.service.start()
    site.node.start()


def test_each_comes_back_as_wished(machine):
    site = machine
    always = deploy(site, "always", restart="always", volumes=[{"name": "data", "size": "32M", "mount": "/data"}])
    site.carrel("exec", "always", "--", "/bin/sh", "-c", "echo kept > /data/note; echo kept > /root/note; sync")
    once = deploy(site, "once")
    deploy(site, "thrown-away", **{"remove-on-exit": True})
    deploy(site, "paused")
    site.carrel("pause", "paused")
    deploy(site, "stopped", restart="always")
    site.carrel("stop", "stopped")
    deploy(site, "prepared", "prepared", until="prepared")
    turn_off(site)
    assert status_file(site, once).exists()
    turn_on(site)
    site.wait(lambda: site.workspace("always")["restarts"] == 1, what="the news of this boot")
    again = site.wait_state("always", "running")
    assert again["run"] == always["run"] and again["pid"] != always["pid"]
    assert site.carrel("exec", "always", "--", "/bin/cat", "/data/note", "/root/note").stdout == "kept\nkept\n"
    for name in ("once", "paused"):  # their run is over, and no policy asks for another
        ended = site.wait_state(name, "stopped")
        assert ended["exit_status"] == 137 and ended["restarts"] == 0
    site.wait(lambda: site.workspace("thrown-away") is None, what="the end of what is thrown away")
    assert site.wait_state("stopped", "stopped")["run"] == 1
    assert site.wait_state("prepared", "prepared")["run"] == 0
    assert not status_file(site, once).exists()
    site.carrel("start", "once")
    assert site.wait_state("once", "running")["run"] == 2


def test_off_and_on_while_the_service_is_away(machine):
    """The agent needs nobody to know what was wished."""
    site = machine
    deploy(site, "always", restart="always")
    first = site.workspace("always")["pid"]
    turn_off(site)
    site.boot.write_text(f"{uuid.uuid4()}\n")
    site.node.start()
    status = status_file(site, {"id": next((site.state / "node" / "workspaces").iterdir()).name})
    site.service.start()
    site.wait(lambda: (site.workspace("always") or {}).get("pid") not in (None, first), what="the new run")
    assert json.loads(status.read_text())["run"] == 1


def test_nothing_of_the_boot_before_is_adopted(machine):
    """A number of a process or a socket means nothing after a boot. Here the old runner does live, which shows whether it is asked."""
    site = machine
    once = deploy(site, "once")
    turn_off(site, runners_die=False)
    turn_on(site)
    assert site.wait_state("once", "stopped")["exit_status"] == 137
    with pytest.raises(ProcessLookupError):
        os.kill(once["pid"], 0)


def test_the_same_boot_is_another_matter(machine):
    site = machine
    once = deploy(site, "once")
    turn_off(site, runners_die=False)
    site.service.start()
    site.node.start()
    site.wait(lambda: site.carrel("exec", "once", "--", "/bin/true", ok=None).returncode == 0, what="the agent's return")
    assert site.wait_state("once", "running")["pid"] == once["pid"]
