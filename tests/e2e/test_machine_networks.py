# SPDX-License-Identifier: Apache-2.0
"""Machines on networks: the packets of an emulated machine meet the same rules as those of a namespace."""
import pytest

from conftest import import_image
from network_tools import World
from test_machine import kernel  # noqa: F401
from test_networks import inside, make_network, reaches, workspace

FOUR, SIX = "10.88.1.0/24", "fd00:88:0:1::/64"


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def net(world, prefix, busybox_tar, kernel):  # noqa: F811
    from conftest import Site
    site = Site(prefix, world=world, node_args=["--blank-size", "32M"])
    try:
        import_image(site, "busybox", busybox_tar)
        site.carrel("kernel", "import", "linux", kernel)
        make_network(site, "default", ipv4=FOUR, ipv6=SIX)
        make_network(site, "side", ipv4="10.89.0.0/24", kind="isolated")
        yield site
    finally:
        problems = site.close()
    assert not problems, "\n".join(problems)
    left = [line for line in world.run("host", "ip", "-o", "link").stdout.splitlines() if ": cr" in line]
    assert not left, left
    assert "carrel" not in world.run("host", "nft", "list", "tables").stdout


def ports(world):
    return [line.split(": ")[1] for line in world.run("host", "ip", "-o", "link", "show", "type", "tun").stdout.splitlines()]


def test_interfaces_come_and_go_while_it_runs(net, world):
    """The default network without any setting; another one plugged in and out, twice in the same place."""
    world.serve("wan", 8001)
    with workspace(net, "vm", engine="emulator"):
        assert reaches(net, "vm", world.WAN, 8001) == world.HOST
        shown = net.workspace("vm")["interfaces"][0]
        assert inside(net, "vm", "cat", "/sys/class/net/eth0/address").stdout.strip() == shown["mac"]
        assert len(ports(world)) == 1
        for _ in range(2):
            net.carrel("connect", "vm", "side")
            assert "10.89.0." in inside(net, "vm", "ip", "address", "show", "dev", "eth1").stdout
            assert len(ports(world)) == 2
            net.carrel("disconnect", "vm", "side")
            assert len(ports(world)) == 1
            net.wait(lambda: "eth1" not in inside(net, "vm", "ip", "address").stdout)
        assert inside(net, "vm", "ip", "route").stdout.startswith("default via 10.88.1.1")
    assert ports(world) == []
