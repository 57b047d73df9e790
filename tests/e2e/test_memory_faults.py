# SPDX-License-Identifier: Apache-2.0
"""
Deaths at the points of start, suspend, resume and clone, of machines and of the engine `workspace`, as in test_faults: the points are found
by a dry run, then each is the last thing that somebody does. What ran goes on where it was, unless the one that died is the runner, which is
the workspace's own end; nothing is left on the host, of the memory folders or of templates. CARREL_TEST_SWEEP=all tries every point, else a few.
"""
import os

import pytest

from conftest import give_kernel
from network_tools import World
from test_faults import Scenario, Sweep

ALL = os.environ.get("CARREL_TEST_SWEEP") == "all"
# The name is in its memory only: one that began anew has another.
COUNT = ("read name < /proc/sys/kernel/random/uuid; i=0; while usleep 50000; do i=$((i+1)); echo $name > /name; echo $i > /n; "
         "done")
# Of the others test_suspend, test_clone and test_machine_faults have some.
FEW = {"Suspend": ("suspend-commit",), "Resume": ("launch-end",), "Clone": ("clone-memory",)}


class Counter(Scenario):
    """Counts in its memory."""

    def before(self, sweep):
        sweep.count += 1
        name = f"w{sweep.count}"
        assert self.make(sweep, name)[0] == 201
        assert sweep.settle(name)["state"] == "running"
        sweep.site.number(name, "/n", above=2)
        self.name = sweep.site.says(name, "cat", "/name")
        return name

    def make(self, sweep, name):
        return sweep.make(name, engine=sweep.engine, command=["/bin/sh", "-c", COUNT],
                          resources={"disk": "32M", "memory": "128M"})

    def goes_on(self, sweep, name, point):
        """From where it was, or, when the runner died, with its files. The runner's end is heard of a moment after the operation's."""
        def steps():
            done = sweep.site.carrel("exec", name, "--", "cat", "/n", ok=None)
            return done.returncode == 0 and done.stdout.strip()

        def known():
            first = steps()
            if sweep.settle(name)["state"] in ("stopped", "failed"):
                return "ended"
            return first and steps() not in (first, False) and "on"
        if sweep.site.wait(known, what=f"{name} to go on, or to have ended") == "ended":
            assert point.startswith(("runner.", "engine.")), f"{point} ends nothing that was running"
            sweep.site.carrel("start", name)
            sweep.site.number(name, "/n")
        else:
            assert sweep.site.says(name, "cat", "/name") == self.name, "it began anew"


class Start(Counter):
    def before(self, sweep):
        sweep.count += 1
        return f"w{sweep.count}"

    def operate(self, sweep, name):
        return self.make(sweep, name)

    def check(self, sweep, workspace, point):
        if workspace["state"] != "running":
            assert workspace["state"] == "failed" and workspace["error"]["message"], workspace
            sweep.site.carrel("start", workspace["name"])
        sweep.site.number(workspace["name"], "/n")


class Suspend(Counter):
    def operate(self, sweep, name):
        return sweep.try_api("POST", f"/v1/workspaces/{name}/suspend")

    def check(self, sweep, workspace, point):
        name = workspace["name"]
        if workspace["state"] == "suspended":
            sweep.site.carrel("resume", name)
        self.goes_on(sweep, name, point)


class Resume(Counter):
    def before(self, sweep):
        name = super().before(sweep)
        sweep.site.carrel("suspend", name)
        assert sweep.settle(name)["state"] == "suspended"
        return name

    def operate(self, sweep, name):
        return sweep.try_api("POST", f"/v1/workspaces/{name}/resume")

    check = Suspend.check


class Clone(Counter):
    def operate(self, sweep, name):
        status, answer = sweep.try_api("POST", f"/v1/workspaces/{name}/clone", {"name-prefix": name + "c"})
        if status < 400:
            sweep.settle(name + "c-1")
        return status, answer

    def check(self, sweep, workspace, point):
        self.goes_on(sweep, workspace["name"], point)
        clone = sweep.settle(workspace["name"] + "c-1")
        if not clone:
            return
        if clone["state"] == "suspended":  # its runner died before it was one: the memory that it begins from is still there
            assert clone["error"]["message"], clone
            sweep.site.carrel("resume", clone["name"])
            clone = sweep.settle(clone["name"])
        if clone["state"] == "running":
            assert sweep.site.says(clone["name"], "cat", "/name") == self.name, "the clone began anew"
        else:
            assert clone["state"] == "failed" and clone["error"]["message"], clone
        sweep.remove(clone["name"])


def memory_of(site):
    """Files of memory states, templates and tools, without those that come and go by themselves."""
    found = [str(p.relative_to(site.state)) for p in (site.state / "node/workspaces").glob("*/memory/*")]
    return sorted(found + [str(p.relative_to(site.state)) for p in (site.state / "node").glob("templates/*")])


@pytest.fixture(scope="module")
def module_world():
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def machines(module_world, new_module_site, busybox_tar, kernel):
    one = Sweep(module_world, new_module_site, busybox_tar, ranges=4)  # bystander, original, clone, template
    one.engine = "emulator"
    give_kernel(one.site, kernel)
    counter = Counter()
    name = counter.before(one)
    one.site.wait(lambda: "is made, in" in one.site.node.log(), what="a template")
    one.remove(name)
    yield one
    one.close()


@pytest.fixture(scope="module")
def namespaces(module_world, new_module_site, busybox_tar, criu):
    one = Sweep(module_world, new_module_site, busybox_tar, {"CARREL_CRIU": criu})
    one.engine = "workspace"
    yield one
    one.close()


def run(sweep, scenario):
    points = sweep.points(scenario())
    print(scenario.__name__, sweep.engine, *points)
    if not points:
        pytest.skip("no fault points: this build has none (meson setup -Dfaults=true)")
    for item in sweep.site.api("GET", "/v1/workspaces?limit=1000")[1]["items"]:
        if item["name"] != sweep.bystander:
            sweep.remove(item["name"])  # what the dry run made
    before, memory = sweep.baseline(), memory_of(sweep.site)
    for point in points if ALL else [p for p in points if p in FEW[scenario.__name__]]:
        case = f"{scenario.__name__} with a death at {point}"
        one = scenario()
        name = one.before(sweep)
        sweep.arm(f"{point} kill\n")
        status, answer = one.operate(sweep, name)
        workspace = sweep.settle(name)
        sweep.arm("")
        sweep.revive()
        try:
            assert status < 500 and workspace, f"{status} {answer}"
            one.check(sweep, workspace, point)
            sweep.remove(name)
            sweep.site.wait(lambda: memory_of(sweep.site) == memory, what=f"no other memory than {memory}")
        except AssertionError as error:
            raise AssertionError(f"{case}: {error}\n{workspace}\n--- carreld\n{sweep.site.service.log()[-2000:]}\n"
                                 f"--- carrel-node\n{sweep.site.node.log()[-3000:]}") from None
        sweep.check_host(before, case)
        sweep.check_bystander(case)


@pytest.mark.parametrize("scenario", [*([Start] if ALL else []), Suspend, Resume, Clone], ids=lambda s: s.__name__.lower())
def test_machines(machines, scenario):
    run(machines, scenario)


@pytest.mark.parametrize("scenario", [Suspend, Resume], ids=lambda s: s.__name__.lower())
def test_namespaces(namespaces, scenario):
    run(namespaces, scenario)
