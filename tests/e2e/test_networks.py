# SPDX-License-Identifier: Apache-2.0
"""Networks with real packets: a site whose agent lives in a namespace with a WAN and a LAN beside it (network_tools.py)."""
import contextlib
import json
import time

import pytest

from conftest import import_image
from network_tools import World, eventually

FETCH = "timeout 5 nc -w 3 {address} {port} </dev/null"


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def net(world, prefix, busybox_tar):
    """A site on `world` with a network `default`."""
    from conftest import Site
    site = Site(prefix, world=world, node_args=["--blank-size", "32M"])
    try:
        import_image(site, "busybox", busybox_tar)
        make_network(site, "default", ipv4="10.88.0.0/24", ipv6="fd00:88::/64")
        yield site
    finally:
        problems = site.close()
    assert not problems, "\n".join(problems)
    left = [line for line in world.run("host", "ip", "-o", "link").stdout.splitlines() if ": cr" in line]
    assert not left, left
    assert "carrel" not in world.run("host", "nft", "list", "tables").stdout


def make_network(site, name, **how):
    status, answer, _ = site.api("POST", "/v1/networks", {"name": name, **how})
    assert status == 201, answer
    return answer


@contextlib.contextmanager
def workspace(site, name, command=("sleep", "1000"), **spec):
    body = {"spec": {"name": name, "image": "busybox", "command": list(command), "resources": {"disk": "32M"},
                     "stop-timeout": "1s", **spec}}
    status, answer, _ = site.api("POST", "/v1/workspaces", body)
    assert status == 201, answer
    try:
        site.wait_state(name, "running")
        yield site.workspace(name)
    finally:
        site.api("DELETE", f"/v1/workspaces/{name}?force=1")
        site.wait(lambda: site.workspace(name) is None, what=f"removal of {name}")


def inside(site, name, *words, ok=(0,)):
    return site.carrel("exec", name, "--", *words, ok=ok)


def reaches(site, name, address, port):
    """What a server of ours says to a connection from inside; None when there is none."""
    done = inside(site, name, "sh", "-c", FETCH.format(address=address, port=port), ok=None)
    return done.stdout.strip() or None


def address(site, name, key="ipv4"):
    shown = site.workspace(name)
    found = shown["interfaces"][0][key].split("/")[0]
    assert found
    return found


def test_the_default_network(net, world):
    world.serve("wan", 8001)
    world.serve("lan", 8002)
    world.serve("host", 8003)
    with workspace(net, "one"):
        assert "eth0" in inside(net, "one", "ifconfig").stdout
        eventually(lambda: reaches(net, "one", world.WAN, 8001) == world.HOST)  # out to the WAN, behind the host's address
        assert reaches(net, "one", world.LAN, 8002) is None
        assert reaches(net, "one", world.HOST, 8003) is None
        assert reaches(net, "one", "10.88.0.1", 8003) is None
        resolver = inside(net, "one", "cat", "/etc/resolv.conf").stdout
        assert "nameserver 10.88.0.1" in resolver and "search default.carrel" in resolver


def test_neighbours_and_groups(net, world):
    with workspace(net, "a"), workspace(net, "b", ["nc", "-ll", "-p", "80", "-e", "echo", "hello from b"]), \
            workspace(net, "c", allow=["workspace:b tcp/80", "wan"]), workspace(net, "d", groups=["ops"],
                                                                                allow=["group:lab tcp/80"]):
        b = address(net, "b")
        assert reaches(net, "a", b, 80) is None  # the default: no neighbours
        eventually(lambda: reaches(net, "c", b, 80) == "hello from b")
        eventually(lambda: reaches(net, "c", address(net, "b", "ipv6"), 80) == "hello from b")
        net.says("c", "nslookup", "b.default.carrel", until=lambda text: b in text)
        assert reaches(net, "d", b, 80) is None
        status, answer, _ = net.api("PATCH", "/v1/workspaces/b", {"groups": ["lab"], "from": ["group:ops", "workspace:c"]})
        assert status in (200, 202), answer
        eventually(lambda: reaches(net, "d", b, 80) is not None)
        eventually(lambda: reaches(net, "c", b, 80) == "hello from b")
        assert net.workspace("b")["restarts"] == 0


def test_names_follow_the_rules(net, world):
    """A name is there for those who may talk to its workspace, and from the moment on that they may."""
    with workspace(net, "db"), workspace(net, "friend", allow=["workspace:db tcp/5432"]), workspace(net, "stranger"), \
            workspace(net, "lone", allow=["none"]):
        def found(asker, name, what="Address"):
            return inside(net, asker, "nslookup", name, ok=None).stdout.count(what) > (1 if what == "Address" else 0)

        def becomes(asker, name, there):
            eventually(lambda: found(asker, name) == there, what=f"{asker} finds {name}: {there}")
        becomes("friend", "db.default.carrel", True)
        becomes("db", "friend.default.carrel", True)  # who comes may be called by name
        becomes("db", "db.default.carrel", True)
        ip, six = address(net, "db"), address(net, "db", "ipv6")
        for asker in ("stranger", "lone"):
            for name in ("db.default.carrel", "DB.Default.Carrel", "friend.default.carrel"):
                assert "NXDOMAIN" in inside(net, asker, "nslookup", name, ok=None).stdout, (asker, name)
            for number in (ip, six):
                assert "db.default" not in inside(net, asker, "nslookup", number, ok=None).stdout
        for number in (ip, six):
            net.says("friend", "nslookup", number, until=lambda text: "db.default.carrel" in text)
        # names outside are for those that may go there: the rules let no query carry out what packets may not
        assert "REFUSED" in inside(net, "lone", "nslookup", "www.example.org", ok=None).stdout
        assert "REFUSED" not in inside(net, "stranger", "timeout", "2", "nslookup", "www.example.org", ok=None).stdout
        # what is behind is not reached
        assert "timed out" in inside(net, "stranger", "sh", "-c",
                                     "timeout 3 nslookup db.default.carrel 10.88.0.1:1053 || echo timed out", ok=None).stdout
        net.carrel("allow", "stranger", "workspace:db")
        becomes("stranger", "db.default.carrel", True)
        net.carrel("deny", "db", "workspace:stranger")
        becomes("stranger", "db.default.carrel", False)
        net.node.kill()
        net.node.start()
        becomes("friend", "db.default.carrel", True)
        becomes("stranger", "db.default.carrel", False)


def test_published_port(net, world):
    with workspace(net, "web", ["nc", "-ll", "-p", "80", "-e", "echo", "welcome"], publish=["8080:80"]):
        for place, to in (("wan", world.HOST), ("lan", "192.168.77.1"), ("wan", world.HOST6)):
            call = f"exec timeout 5 bash -c 'exec 3<>/dev/tcp/{to}/8080; head -n1 <&3'"
            eventually(lambda: world.run(place, "sh", "-c", call, ok=None).stdout == "welcome\n",
                       what=f"a call from {place} to {to}")
        # nothing else comes in
        done = world.run("wan", "sh", "-c", f"ip route replace 10.88.0.0/24 via {world.HOST}; exec timeout 3 bash -c "
                         f"'exec 3<>/dev/tcp/{address(net, 'web')}/80; head -n1 <&3'", ok=None)
        assert done.stdout == ""


def test_restart_keeps_addresses_and_an_agent_finds_its_networks(net, world):
    world.serve("wan", 8011)
    with workspace(net, "one"):
        before = net.workspace("one")["interfaces"]
        net.node.kill()
        net.node.start()
        net.wait(lambda: net.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
        eventually(lambda: reaches(net, "one", world.WAN, 8011) == world.HOST)
        net.carrel("restart", "one")
        net.wait_state("one", "running")
        assert [i["ipv4"] for i in net.workspace("one")["interfaces"]] == [i["ipv4"] for i in before]
        assert [i["mac"] for i in net.workspace("one")["interfaces"]] == [i["mac"] for i in before]
        eventually(lambda: reaches(net, "one", world.WAN, 8011) == world.HOST)


def test_rules_deleted_by_hand_come_back(net, world):
    world.serve("lan", 8021)
    with workspace(net, "one"):
        table = next(line.split()[2] for line in world.run("host", "nft", "list", "tables").stdout.splitlines()
                     if "inet carrel" in line)
        deadline = time.monotonic() + 120
        told = net.node.log().count("set right")
        while reaches(net, "one", world.LAN, 8021) is not None or net.node.log().count("set right") == told:
            # again when an application that was due anyway came first: that one has nothing to tell
            if "goto host" in world.run("host", "nft", "list", "chain", "inet", table, "input").stdout:
                world.run("host", "nft", "flush", "table", "inet", table)
            assert time.monotonic() < deadline


def test_metadata_address(net, world):
    with workspace(net, "cloudy", **{"user-data": "#cloud-config\n", "ssh-keys": ["ssh-ed25519 AAAA me"]}) as shown:
        def get(path):
            return inside(net, "cloudy", "wget", "-q", "-O", "-", f"http://169.254.169.254{path}").stdout
        assert get("/latest/meta-data/instance-id") == shown["id"]
        assert get("/latest/user-data") == "#cloud-config\n"
        assert json.loads(get("/openstack/latest/meta_data.json"))["name"] == "cloudy"


def test_an_isolated_workspace_talks_to_nobody(net, world):
    world.serve("wan", 8031)
    with workspace(net, "alone", isolated=True):
        assert reaches(net, "alone", world.WAN, 8031) is None
        net.api("PATCH", "/v1/workspaces/alone", {"isolated": False})
        eventually(lambda: reaches(net, "alone", world.WAN, 8031) is not None)


def test_interfaces_come_and_go(net, world):
    make_network(net, "side", ipv4="10.89.0.0/24", kind="isolated")
    with workspace(net, "two"), workspace(net, "server", ["nc", "-ll", "-p", "80", "-e", "echo", "on the side"],
                                          networks=[{"network": "side"}]):
        there = address(net, "server")
        assert there.startswith("10.89.0.")
        net.carrel("connect", "two", "side")
        assert "10.89.0." in inside(net, "two", "ip", "address", "show", "dev", "eth1").stdout
        net.carrel("allow", "two", "workspace:server", "wan")
        eventually(lambda: reaches(net, "two", there, 80) == "on the side")
        verdict = net.json("network", "test", "two", "server", "tcp/80")
        assert verdict["allowed"] is True
        assert net.json("network", "test", "server", "two", "tcp/80", ok=(1,))["allowed"] is False
        assert net.json("network", "test", "two", "wan", "tcp/80")["allowed"] is True
        assert net.json("network", "test", "wan", "two", "tcp/80", ok=(1,))["allowed"] is False
        net.carrel("disconnect", "two", "side")
        eventually(lambda: "eth1" not in inside(net, "two", "ip", "address").stdout)
        assert inside(net, "two", "ip", "route").stdout.startswith("default via 10.88.0.1")
    net.carrel("network", "rm", "side")


def test_rates_are_kept(net, world):
    world.serve("wan", 8041)
    network = {"network": "default", "rates": {"in-most": "8M", "out-most": "8M"}}
    with workspace(net, "slow", networks=[network]), workspace(net, "fast"):
        def seconds(name):
            start = time.monotonic()
            inside(net, name, "sh", "-c", f"dd if=/dev/zero bs=64k count=16 2>/dev/null | timeout 20 nc -w 3 {world.WAN} 8041 "
                                          f"| head -c 1048000 | wc -c")
            return time.monotonic() - start
        slow = seconds("slow")
        assert slow > 0.8  # 1 MiB at 8 Mbit/s: about a second, however slow the host is
        assert any(seconds("fast") < slow for _ in range(10))


def test_a_guarantee_that_does_not_fit_is_refused(net):
    spec = {"name": "greedy", "image": "busybox", "command": ["sleep", "9"], "resources": {"disk": "32M"},
            "networks": [{"network": "default", "rates": {"out-least": "400G"}}]}
    assert net.api("POST", "/v1/workspaces", {"spec": spec})[0] == 201
    found = net.wait(lambda: (net.workspace("greedy") or {}).get("error"), what="refusal of what cannot be promised")
    assert "guaranteed" in found["message"]
    with workspace(net, "modest"):  # others are not harmed
        pass
    net.api("DELETE", "/v1/workspaces/greedy?force=1")
    net.wait(lambda: net.workspace("greedy") is None, what="removal of greedy")
