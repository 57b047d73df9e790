# SPDX-License-Identifier: Apache-2.0
"""Networks of kind bridge by the whole system: a bridge of the site in the agent's namespace, a machine of the site on it, and what stays as it was."""
import json
import re
import time

import pytest

from conftest import import_image
from filter_world import run
from network_tools import World, eventually
from test_networks import inside, make_network, reaches, workspace

DESK, DESK6 = "192.168.80.9", "fd80::9"


@pytest.fixture(scope="module")
def world():
    made = World()
    try:
        made.run("host", "ip", "link", "add", "dev", "site0", "type", "bridge", "forward_delay", "0")
        made.run("host", "ip", "link", "set", "site0", "up")
        made.run("host", "ip", "link", "add", "desk0", "type", "veth", "peer", "name", "desk0", "netns", str(made.spaces["lan"]))
        made.run("host", "ip", "link", "set", "desk0", "master", "site0", "up")
        made.run("lan", "ip", "link", "set", "desk0", "up")
        made.run("lan", "ip", "address", "add", DESK + "/24", "dev", "desk0")
        made.run("lan", "ip", "-6", "address", "add", DESK6 + "/64", "dev", "desk0", "nodad")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def net(world, prefix, busybox_tar):
    from conftest import Site
    site = Site(prefix, world=world, node_args=["--blank-size", "32M"])
    try:
        import_image(site, "busybox", busybox_tar)
        make_network(site, "office", kind="bridge", bridge="site0", ipv4="192.168.80.0/24", ipv6="fd80::/64", reserved=[DESK], mtu=1400)
        yield site
    finally:
        problems = site.close()
    assert not problems, "\n".join(problems)
    assert bridge(world)["ports"] == ["desk0"], "a port was left"
    assert "carrel" not in world.run("host", "nft", "list", "tables").stdout


def bridge(world):
    """What must not change."""
    links = json.loads(world.run("host", "ip", "-j", "-d", "link").stdout)
    one = next(x for x in links if x["ifname"] == "site0")
    data = {k: v for k, v in one["linkinfo"]["info_data"].items() if not k.endswith("timer")}
    return {"mac": one["address"], "mtu": one["mtu"], "data": data, "ports": sorted(x["ifname"] for x in links if x.get("master") == "site0")}


def test_a_workspace_beside_the_site_s_machines(net, world):
    """Rules, a change while it runs, a restart of the agent; the bridge keeps its address, packet size and settings."""
    before = bridge(world)
    world.serve("lan", 8061)
    with workspace(net, "clerk", ["nc", "-ll", "-p", "80", "-e", "echo", "hello"], networks=[{"network": "office"}]) as shown:
        address = shown["interfaces"][0]["ipv4"].split("/")[0]
        now = bridge(world)
        assert len(now.pop("ports")) == 2 and now == {k: v for k, v in before.items() if k != "ports"}
        assert "192.168.80.1" in inside(net, "clerk", "ip", "route").stdout, "the site's router"
        assert reaches(net, "clerk", DESK, 8061) is None
        net.carrel("allow", "clerk", "site tcp")
        eventually(lambda: reaches(net, "clerk", DESK, 8061) == address)
        assert reaches(net, "clerk", DESK6, 8061) == shown["interfaces"][0]["ipv6"].split("/")[0]
        call = ["timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/{address}/80; head -n1 <&3"]
        assert world.run("lan", *call, ok=None).stdout == ""
        net.carrel("allow", "--from", "clerk", f"{DESK} tcp/80")
        eventually(lambda: world.run("lan", *call, ok=None).stdout == "hello\n")
        net.node.kill()
        assert reaches_by(world, call)
        net.node.start()
        net.wait(lambda: net.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
        assert reaches(net, "clerk", DESK, 8061) == address and reaches_by(world, call)
    eventually(lambda: bridge(world) == before)


def reaches_by(world, call):
    return world.run("lan", *call, ok=None).stdout == "hello\n"


def test_addresses_by_the_site_s_dhcp(net, world):
    make_network(net, "leased", kind="bridge", bridge="site0")
    server = world.popen("lan", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=desk0", "--bind-interfaces",
                         "--dhcp-range=192.168.80.100,192.168.80.150,1h", "--dhcp-leasefile=/dev/null", "--user=root", "--pid-file=")
    world.serve("lan", 8062)
    try:
        with workspace(net, "guest", networks=[{"network": "leased"}], allow=["site"]) as shown:
            def address(verb, what):  # what a system's DHCP client does; a program may not
                run("nsenter", f"--net=/proc/{shown['pid']}/ns/net", "ip", "address", verb, what + "/24", "dev", "eth0")
            assert inside(net, "guest", "ip", "-4", "address", "show", "dev", "eth0").stdout == ""
            said = inside(net, "guest", "sh", "-c", "udhcpc -n -q -t 20 -T 1 -i eth0 -s /bin/true 2>&1").stdout
            given = re.search(r"lease of (\S+) obtained", said)[1]
            address("add", given)
            assert reaches(net, "guest", DESK, 8062) == given
            address("del", given)
            address("add", "192.168.80.77")
            assert reaches(net, "guest", DESK, 8062) is None, "one that nobody gave"
    finally:
        server.kill()
        server.wait()
    net.carrel("network", "rm", "leased")


def test_what_cannot_be_is_refused(net, world):
    spec = {"name": "seven", "image": "busybox", "command": ["sleep", "9"], "resources": {"disk": "32M"}}
    status, answer, _ = net.api("POST", "/v1/workspaces", {"spec": {**spec, "networks": [{"network": "office"}], "publish": ["8080:80"]}})
    assert status >= 400 and "published on networks of kind nat" in answer["error"]["message"]
    for name, how, said in (("gone", {"bridge": "nowhere0"}, "has no bridge nowhere0"), ("cable", {"bridge": "desk0"}, "is not a bridge")):
        make_network(net, name, kind="bridge", ipv4="192.168.90.0/24", **how)
        assert net.api("POST", "/v1/workspaces", {"spec": {**spec, "networks": [{"network": name}]}})[0] == 201
        found = net.wait(lambda: (net.workspace("seven") or {}).get("error"), what="refusal")
        assert said in found["message"] and found["step"] == "network"
        net.api("DELETE", "/v1/workspaces/seven?force=1")
        net.wait(lambda: net.workspace("seven") is None, what="removal of seven")
        net.carrel("network", "rm", name)


def test_a_vlan(net, world):
    """By the bridge's own filtering; a bridge without it is refused, and it is never turned on."""
    if world.run("host", "ip", "link", "set", "dev", "site0", "type", "bridge", "vlan_filtering", "1", ok=None).returncode:
        can = False
    else:
        can = True
        world.run("host", "ip", "link", "set", "dev", "site0", "type", "bridge", "vlan_filtering", "0")
    make_network(net, "tagged", kind="bridge", bridge="site0", vlan=7, ipv4="192.168.91.0/24")
    spec = {"name": "seven", "image": "busybox", "command": ["sleep", "9"], "resources": {"disk": "32M"}, "networks": [{"network": "tagged"}]}
    assert net.api("POST", "/v1/workspaces", {"spec": spec})[0] == 201
    found = net.wait(lambda: (net.workspace("seven") or {}).get("error"), what="refusal of a bridge that does not filter VLANs")
    assert "does not filter VLANs" in found["message"]
    net.api("DELETE", "/v1/workspaces/seven?force=1")
    net.wait(lambda: net.workspace("seven") is None, what="removal of seven")
    if can:
        world.run("host", "ip", "link", "set", "dev", "site0", "type", "bridge", "vlan_filtering", "1")
        try:
            with workspace(net, "seven", networks=[{"network": "tagged"}]):
                port = next(p for p in bridge(world)["ports"] if p.startswith("cr"))
                found = json.loads(world.run("host", "bridge", "-j", "vlan", "show", "dev", port).stdout)
                assert [(v["vlan"], sorted(v["flags"])) for v in found[0]["vlans"]] == [(7, ["Egress Untagged", "PVID"])]
        finally:
            world.run("host", "ip", "link", "set", "dev", "site0", "type", "bridge", "vlan_filtering", "0")
    net.carrel("network", "rm", "tagged")
    if not can:
        pytest.skip("this kernel's bridges have no VLAN filtering; the refusal was tested")


def test_a_failure_of_one_does_not_stop_the_others(net, world):
    """A bridge of the site that is taken away, and a guarantee that no longer fits: told, once, and the rest goes on."""
    world.run("host", "ip", "link", "add", "dev", "site1", "type", "bridge")
    make_network(net, "fleeting", kind="bridge", bridge="site1", ipv4="192.168.92.0/24")
    world.serve("lan", 8063)
    with workspace(net, "lost", networks=[{"network": "fleeting"}]), workspace(net, "kept", networks=[{"network": "office"}]):
        world.run("host", "ip", "link", "delete", "dev", "site1")
        net.node.kill()
        net.node.start()
        net.wait(lambda: net.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
        net.carrel("allow", "kept", "site")
        eventually(lambda: reaches(net, "kept", DESK, 8063) is not None)
        refused = net.carrel("connect", "kept", "office", "--out-least", "400G", ok=None)
        assert refused.returncode and "guarante" in refused.stderr
        time.sleep(4)  # as long as it takes to say it too often
        assert 1 <= net.node.log().count("no bridge site1") <= 3 and net.node.log().count("guarante") <= 3
        assert reaches(net, "kept", DESK, 8063) is not None
    net.carrel("network", "rm", "fleeting")
