# SPDX-License-Identifier: Apache-2.0
"""Networks when what they are made of is missing, fails, or is taken away by somebody else; and what is told of what was dropped."""
import contextlib
import json
import os
import re

import pytest

import conftest
from network_tools import World, eventually
from test_networks import address, inside, make_network, reaches, workspace


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A folder before all others on the agent's path: what a test puts there is what runs."""
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def net(world, prefix, busybox_tar, tools):
    site = conftest.Site(prefix, world=world, node_args=["--blank-size", "32M"], env={"PATH": f"{tools}:{os.environ['PATH']}"})
    try:
        conftest.import_image(site, "busybox", busybox_tar)
        make_network(site, "default", ipv4="10.88.0.0/24", ipv6="fd00:88::/64")
        yield site
    finally:
        problems = site.close()
    assert not problems, "\n".join(problems)
    left = [line for line in world.run("host", "ip", "-o", "link").stdout.splitlines() if ": cr" in line]
    assert not left, left


def devices(world, pattern):
    return re.findall(rf": ({pattern})[@:]", world.run("host", "ip", "-o", "link").stdout)


def test_a_bridge_that_somebody_deleted_comes_back(net, world):
    world.serve("wan", 8101)
    with workspace(net, "one"), workspace(net, "two", ["nc", "-ll", "-p", "80", "-e", "echo", "two"]):
        net.carrel("allow", "one", "workspace:two")
        before = inside(net, "one", "cat", "/sys/class/net/eth0/ifindex").stdout
        for bridge in devices(world, "crn[0-9a-f]+"):
            world.run("host", "ip", "link", "delete", "dev", bridge)
        eventually(lambda: reaches(net, "one", world.WAN, 8101) == world.HOST)
        eventually(lambda: reaches(net, "one", address(net, "two"), 80) == "two")
        assert net.workspace("one")["restarts"] == 0
        assert inside(net, "one", "cat", "/sys/class/net/eth0/ifindex").stdout == before, "the interface inside is the same"
        eventually(lambda: "Address" in inside(net, "one", "nslookup", "two.default.carrel",
                                               ok=None).stdout.partition("two.default")[2])


def test_a_port_that_somebody_deleted_comes_back(net, world):
    world.serve("wan", 8102)
    with workspace(net, "one") as shown:
        before = inside(net, "one", "ip", "address", "show", "dev", "eth0").stdout
        world.run("host", "ip", "link", "delete", "dev", shown["interfaces"][0]["port"])
        eventually(lambda: reaches(net, "one", world.WAN, 8102) == world.HOST)
        after = inside(net, "one", "ip", "address", "show", "dev", "eth0").stdout
        assert re.findall(r"inet6? \S+|ether \S+", before) == re.findall(r"inet6? \S+|ether \S+", after)


@pytest.mark.parametrize("how, served", [("nomaster", 8106), ("down", 8108)])
def test_a_port_that_somebody_changed_is_put_right(net, world, how, served):
    world.serve("wan", served)
    with workspace(net, "one") as shown:
        before = inside(net, "one", "cat", "/sys/class/net/eth0/ifindex").stdout
        eventually(lambda: reaches(net, "one", world.WAN, served) == world.HOST)
        world.run("host", "ip", "link", "set", "dev", shown["interfaces"][0]["port"], how)
        eventually(lambda: reaches(net, "one", world.WAN, served) == world.HOST)
        assert inside(net, "one", "cat", "/sys/class/net/eth0/ifindex").stdout == before
        assert "taken out of its network by somebody else" in net.node.log()
        assert "isolated on" in world.run("host", "ip", "-d", "link", "show", "dev", shown["interfaces"][0]["port"]).stdout


def test_an_interface_deleted_inside_comes_back(net, world):
    """The other end of the cable, in the workspace's namespace: with addresses, routes and rules."""
    world.serve("wan", 8107)
    with workspace(net, "one") as shown:
        space = f"--net=/proc/{shown['pid']}/ns/net"
        before = inside(net, "one", "ip", "route").stdout
        world.run("host", "nsenter", space, "ip", "link", "delete", "dev", "eth0")
        eventually(lambda: reaches(net, "one", world.WAN, 8107) == world.HOST)
        assert inside(net, "one", "ip", "route").stdout == before
        assert address(net, "one") in inside(net, "one", "ip", "address", "show", "dev", "eth0").stdout
    with workspace(net, "one"):  # a namespace that lost all, and its workspace, leave nothing to the next one
        eventually(lambda: reaches(net, "one", world.WAN, 8107) == world.HOST)


def test_an_interface_that_left_comes_again(net):
    make_network(net, "side", ipv4="10.89.0.0/24", kind="isolated")
    with workspace(net, "one"):
        for _ in range(3):
            net.carrel("connect", "one", "side")
            eventually(lambda: "10.89.0." in inside(net, "one", "ip", "address", "show", "dev", "eth1", ok=None).stdout)
            net.carrel("disconnect", "one", "side")
            eventually(lambda: "eth1" not in inside(net, "one", "ip", "address").stdout)
    net.carrel("network", "rm", "side")


def test_names_of_the_other_network(net):
    """The first name server is asked for all of them."""
    make_network(net, "shelf", ipv4="10.90.0.0/24")
    with workspace(net, "both", networks=[{"network": "default"}, {"network": "shelf"}],
                   allow=["workspace:book"]), workspace(net, "apart"), \
            workspace(net, "book", networks=[{"network": "shelf"}]):
        there = address(net, "book")
        eventually(lambda: there in inside(net, "both", "nslookup", "book.shelf.carrel", ok=None).stdout)
        assert "NXDOMAIN" in inside(net, "both", "nslookup", "nobody.shelf.carrel", ok=None).stdout
        assert there not in inside(net, "apart", "nslookup", "book.shelf.carrel", ok=None).stdout
        assert "NXDOMAIN" in inside(net, "apart", "nslookup", "book.shelf.carrel", ok=None).stdout
    net.carrel("network", "rm", "shelf")


def test_a_name_server_that_somebody_killed_comes_back(net, world):
    def pids():  # of dnsmasq, and of the process before it
        with contextlib.suppress(FileNotFoundError):  # there is none while it starts again
            return (net.run / "node" / "networks" / "default" / "pid").read_text().split()
        return []
    with workspace(net, "one"):
        def found():
            return "10.88.0." in inside(net, "one", "nslookup", "one.default.carrel",
                                        ok=None).stdout.partition("one.default")[2]
        eventually(found)
        for number in (0, 2):  # dnsmasq; the process before it
            before = pids()
            os.kill(int(before[number]), 9)
            eventually(lambda: len(now := pids()) > number and now[number] != before[number])
            eventually(found)


def test_names_are_told_while_the_agent_is_away(net, world):
    """What was asked before, as rules stand still; the rest waits for the next agent."""
    with workspace(net, "one") as shown, workspace(net, "two") as other:
        def ask(name, of=shown):
            return world.run("host", "nsenter", f"--net=/proc/{of['pid']}/ns/net", "timeout", "3", "busybox", "nslookup", name,
                             "10.88.0.1", ok=None).stdout.partition(name)[2]
        eventually(lambda: address(net, "one") in ask("one.default.carrel"))
        assert "10.88" not in ask("two.default.carrel")
        eventually(lambda: address(net, "two") in ask("two.default.carrel", other))
        net.node.kill()
        try:
            assert address(net, "one") in ask("one.default.carrel")
            assert "10.88" not in ask("two.default.carrel")
            assert "10.88" not in ask("one.default.carrel", other)
        finally:
            net.node.start()
        net.wait(lambda: net.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
        eventually(lambda: address(net, "one") in ask("one.default.carrel"))


@pytest.mark.parametrize("how", ["exit 1", "echo 'Error: Could not process rule: Operation not supported' >&2; exit 1",
                                 "kill -9 $$"])
def test_nothing_starts_without_its_rules(net, world, tools, how):
    """What nft cannot apply is refused, and said; nothing unprotected is left, and all is well when nft is."""
    nft = tools / "nft"
    nft.write_text(f"#!/bin/sh\n{how}\n")
    nft.chmod(0o755)
    # rules of a text that the kernel does not have yet need nft
    spec = {"name": "bare", "image": "busybox", "command": ["sleep", "9"], "resources": {"disk": "32M"},
            "allow": [f"203.0.113.{len(how)} tcp/{len(how)}"]}
    try:
        assert net.api("POST", "/v1/workspaces", {"spec": spec})[0] == 201
        found = net.wait(lambda: (net.workspace("bare") or {}).get("error"), what="the refusal")
        assert "nft" in json.dumps(found) and found["step"] == "network", found
        assert net.workspace("bare")["state"] == "failed" and not devices(world, "cr[0-9a-f]+")
        assert "nft" in net.carrel("why", "bare", ok=None).stdout
    finally:
        nft.unlink()
    net.carrel("start", "bare")
    net.wait_state("bare", "running")
    net.carrel("rm", "-f", "bare")


def test_what_was_dropped_is_told(net, world):
    world.serve("lan", 8103)
    with workspace(net, "one", allow=["wan tcp/8104"], deny=[f"{world.WAN} tcp/8105"]), workspace(net, "two"):
        world.serve("wan", 8104)
        eventually(lambda: reaches(net, "one", world.WAN, 8104) == world.HOST)
        for host, port in ((world.LAN, 8103), (world.WAN, 8105), (address(net, "two"), 80)):
            assert reaches(net, "one", host, port) is None

        def dropped():
            return {item["rule"]: item["packets"] for item in net.json("why", "one").get("dropped", [])}
        eventually(lambda: len(dropped()) >= 2)
        assert all(count > 0 for count in dropped().values()), dropped()
        assert f"deny {world.WAN} tcp/8105" in dropped() and "default" in dropped(), dropped()
        text = net.carrel("why", "one").stdout
        assert f"deny {world.WAN} tcp/8105" in text, text
        eventually(lambda: net.json("show", "one")["interfaces"][0].get("out-packets", 0) > 0)
        metrics = net.api("GET", "/metrics")[1]
        metrics = metrics.decode() if isinstance(metrics, bytes) else metrics
        for name in ("carrel_dropped_packets_total", "carrel_interface_out_bytes_total", "carrel_interface_in_packets_total"):
            assert re.search(rf'^{name}{{workspace="one"[^}}]*}} [1-9]', metrics, re.M), name


@pytest.mark.parametrize("table,word", [
    ("table ip filter { chain DOCKER {} ; chain FORWARD { type filter hook forward priority 0; policy drop; } ; }", "Docker"),
    ("table inet firewalld { chain filter_FORWARD { type filter hook forward priority 10; policy accept; reject; } ; }",
     "firewalld"),
    ("table ip libvirt_network { chain forward { type filter hook forward priority 0; policy drop; } ; }", "libvirt"),
    ("table inet mine { chain f { type filter hook forward priority 5; policy drop; } ; }", "mine"),
])
def test_foreign_rules_that_drop_are_told_by_doctor(net, world, table, word):
    name = " ".join(table.split()[1:3])
    world.run("host", "nft", table)
    try:
        net.node.stop()
        net.node.start()
        found = net.wait(lambda: (d := net.carrel("doctor", ok=None).stdout) and word.lower() in d.lower() and d,
                         what=f"{word} in doctor's report")
        assert "forward" in found.lower()
    finally:
        world.run("host", "nft", "delete", "table", *name.split())
