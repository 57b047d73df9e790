# SPDX-License-Identifier: Apache-2.0
"""Interfaces, addresses, routes, names and rules of what is suspended and goes on, in namespaces and as a machine; packets decide."""
import time

import pytest

import conftest
from network_tools import World, eventually
from test_networks import address, inside, make_network, reaches, workspace

HOW = {"workspace": {}, "emulator": {"engine": "emulator", "resources": {"memory": "256M", "disk": "64M"}}}

WAIT = "while ! ip -o addr | grep -q 10.89; do usleep 100000; done; "
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"


@pytest.fixture(scope="module")
def world():
    made = World()
    made.serve("wan", 8101)
    yield made
    made.close()


@pytest.fixture(scope="module")
def net(world, prefix, criu, kernel, busybox_tar):
    site = conftest.Site(prefix, world=world, node_args=["--blank-size", "32M"], env={"CARREL_CRIU": criu})
    try:
        conftest.import_image(site, "busybox", busybox_tar)
        conftest.give_kernel(site, kernel)
        make_network(site, "default", ipv4="10.88.0.0/24", ipv6="fd00:88::/64")
        make_network(site, "side", ipv4="10.89.0.0/24", kind="isolated")
        yield site
    finally:
        problems = site.close()
    assert not problems, "\n".join(problems)


def configured(net, name):
    """What the inside says of its network, without counters and ages, and without what a router announced lately."""
    words = ("ip -o addr show; ip route; ip -6 route; cat /sys/class/net/*/address; cat /etc/resolv.conf /etc/hosts; cat "
             "/proc/uptime > /run/asked")
    lines = inside(net, name, "sh", "-c", words).stdout.splitlines()
    lines = [line for line in lines if ("fe80::" not in line or "default" in line) and " expires " not in line]
    return sorted(line.split(" valid_lft")[0].rstrip("\\ ") for line in lines)


def changed(net, before):
    found = set(before) ^ set(configured(net, "sleeper"))
    print(found)
    return found


@pytest.mark.parametrize("engine", HOW)
def test_what_is_suspended_has_its_network_again(net, world, engine):
    listen = ["nc", "-ll", "-p", "80", "-e", "echo", "here"]
    with workspace(net, "friend", **{"from": ["workspace:sleeper"]}), workspace(net, "stranger"), \
            workspace(net, "sleeper", listen, networks=[{"network": "default"}, {"network": "side"}],
                      **{"from": ["workspace:friend"]}, **HOW[engine]):
        eventually(lambda: reaches(net, "friend", address(net, "sleeper"), 80) == "here")
        before, interfaces = configured(net, "sleeper"), net.workspace("sleeper")["interfaces"]
        assert any("10.89.0." in line for line in before)
        net.carrel("suspend", "sleeper", timeout=180)
        assert reaches(net, "friend", address(net, "sleeper"), 80) is None
        assert not [p for i in interfaces for p in world.run("host", "ip", "-o", "link").stdout.splitlines()
                    if i["port"] + "@" in p]
        net.carrel("resume", "sleeper", timeout=180)
        net.wait_state("sleeper", "running")
        assert net.workspace("sleeper")["interfaces"] == interfaces
        eventually(lambda: reaches(net, "friend", address(net, "sleeper"), 80) == "here")
        eventually(lambda: changed(net, before) == set())
        eventually(lambda: reaches(net, "sleeper", world.WAN, 8101) == world.HOST)
        assert reaches(net, "stranger", address(net, "sleeper"), 80) is None
        assert inside(net, "friend", "ping", "-c1", "-W5", address(net, "sleeper", "ipv6")).returncode == 0


def test_what_was_plugged_later_goes_on_too(net):
    """The plan of its start knows nothing of the interface, nor of the connection by it."""
    listen = ["sh", "-c", "sleep 1000 | nc -l -p 90 > /said"]
    talk = WAIT + f"({COUNT}) | nc PEER 90; sleep 1000"
    with workspace(net, "peer", listen, networks=[{"network": "side"}], **{"from": ["workspace:late"]}) as peer, \
            workspace(net, "late", ["sh", "-c", talk.replace("PEER", peer["interfaces"][0]["ipv4"].split("/")[0])],
                      allow=["workspace:peer"]):
        def said():
            return inside(net, "peer", "cat", "/said", ok=None).stdout.split()
        net.carrel("connect", "late", "side")
        eventually(lambda: len(said()) > 3)
        for _ in range(2):  # of the second start the plan knows it
            net.carrel("suspend", "late", timeout=180)
            quiet = len(said())
            net.carrel("resume", "late", timeout=180)
            eventually(lambda: len(said()) > quiet + 3)
        lines = [int(n) for n in said()]
        assert lines == list(range(1, len(lines) + 1))


def test_a_machine_goes_on_talking(net):
    """A connection that was open at a suspend is open after it: the guest's kernel has it, and so has the other side."""
    count = "(i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done) | nc {} 90"
    with workspace(net, "listener", ["sh", "-c", "sleep 1000 | nc -l -p 90 > /said"],
                   **{"from": ["workspace:talker"]}) as listener, \
            workspace(net, "talker", ["sh", "-c", count.format(listener["interfaces"][0]["ipv4"].split("/")[0])],
                      allow=["workspace:listener"], **HOW["emulator"]):
        def said():
            lines = inside(net, "listener", "cat", "/said", ok=None).stdout.split()
            return int(lines[-1]) if lines else 0
        eventually(lambda: said() > 3)
        net.carrel("suspend", "talker", timeout=180)
        quiet = said()
        time.sleep(1)  # nothing is said: no event could be awaited
        assert said() == quiet
        net.carrel("resume", "talker", timeout=180)
        eventually(lambda: said() > quiet + 3)
