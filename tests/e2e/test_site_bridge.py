# SPDX-License-Identifier: Apache-2.0
"""Networks of kind bridge by the whole system: a bridge of the site in the agent's namespace, a machine of the site on it, and what stays as it was."""
import json
import re
import socket
import subprocess
import sys
import time

import pytest

from conftest import import_image
from filter_world import run
from network_tools import PATIENCE, World, eventually
from test_networks import inside, make_network, reaches, workspace

DESK, DESK6 = "192.168.80.9", "fd80::9"


@pytest.fixture(scope="module")
def world():
    made = World()
    try:
        made.run("host", "ip", "link", "add", "dev", "site0", "type", "bridge", "forward_delay", "0")
        made.run("host", "ip", "link", "set", "site0", "up")
        made.run("host", "ip", "link", "add", "desk0", "type", "veth", "peer", "name", "desk0", "netns",
                 str(made.spaces["lan"]))
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
        make_network(site, "office", kind="bridge", bridge="site0", ipv4="192.168.80.0/24", ipv6="fd80::/64", reserved=[DESK],
                     mtu=1400)
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
    return {"mac": one["address"], "mtu": one["mtu"], "data": data,
            "ports": sorted(x["ifname"] for x in links if x.get("master") == "site0")}


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
        eventually(lambda: reaches(net, "clerk", DESK6, 8061) == shown["interfaces"][0]["ipv6"].split("/")[0])
        call = ["timeout", "5", "bash", "-c", f"exec 3<>/dev/tcp/{address}/80; head -n1 <&3"]
        assert world.run("lan", *call, ok=None).stdout == ""
        net.carrel("allow", "--from", "clerk", f"{DESK} tcp/80")
        eventually(lambda: world.run("lan", *call, ok=None).stdout == "hello\n")
        net.node.kill()
        eventually(lambda: reaches_by(world, call))
        net.node.start()
        net.wait(lambda: net.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
        eventually(lambda: reaches(net, "clerk", DESK, 8061) == address and reaches_by(world, call))
    eventually(lambda: bridge(world) == before)


def reaches_by(world, call):
    return world.run("lan", *call, ok=None).stdout == "hello\n"


DHCP = """
import socket, struct, sys
seconds, pool, last = int(sys.argv[1]), sys.argv[2], 100
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300)
s.bind(("desk0", 3))
own, at, given = s.getsockname()[4], socket.inet_aton("192.168.80.9"), {}
def total(b):
    n = sum(struct.unpack(f"!{len(b) // 2}H", b))
    while n >> 16: n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff
def say(kind, mac, xid, address):
    m = struct.pack("!BBBB4sHH4s4s4s4s16s64s128s4s", 2, 1, 6, 0, xid, 0, 0x8000, bytes(4), address, at, bytes(4), mac + bytes(10), b"", b"", b"c\\x82Sc")
    # the time is not where others write it
    m += bytes([53, 1, kind, 54, 4]) + at + bytes([1, 4, 255, 255, 255, 0, 51, 4]) + struct.pack("!I", seconds) + bytes([255])
    u = struct.pack("!HHHH", 67, 68, len(m) + 8, 0) + m
    ip = struct.pack("!BBHHHBBH4s4s", 69, 0, len(u) + 20, 0, 0, 64, 17, 0, at, b"\\xff" * 4)
    s.send(b"\\xff" * 6 + own + b"\\x08\\0" + ip[:10] + struct.pack("!H", total(ip)) + ip[12:] + u)
print("ready", flush=True)
while True:
    f = s.recv(2048)
    if f[12:14] != b"\\x08\\0" or f[23] != 17 or f[36:38] != b"\\0C" or f[42] != 1: continue
    mac, xid, kind = f[70:76], f[46:50], f[f.index(b"\\x35\\x01", 282) + 2]
    if mac not in given:
        last += 1
        given[mac] = socket.inet_aton(f"{pool}.{last}")
    print("heard", kind, flush=True)
    if kind in (1, 3): say({1: 2, 3: 5}[kind], mac, xid, given[mac])
"""

# The message's type is where options go on (RFC 2132, 9.3), as somebody would send it who wants to keep the address.
RETURN = """
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 68))
m = struct.pack("!BBBB4sHH4s4s4s4s16s64s128s4s", 1, 1, 6, 0, b"once", 0, 0, socket.inet_aton(sys.argv[1]), bytes(4), bytes(4), bytes(4),
                bytes.fromhex(sys.argv[3].replace(":", "")), b"", bytes([53, 1, 7, 255]), b"c\\x82Sc")
s.sendto(m + bytes([52, 1, 1, 54, 4]) + socket.inet_aton(sys.argv[2]) + bytes([255]), (sys.argv[2], 67))
"""


# Frames as somebody else would have sent them: RELEASE by ciaddr, DECLINE by option. The sender's own goes last.
FORGE = """
import socket, struct, sys
own, other = (bytes.fromhex(x.replace(":", "")) for x in sys.argv[1:3])
mine, its = (socket.inet_aton(x) for x in sys.argv[3:5])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
def total(b):
    n = sum(struct.unpack(f"!{len(b) // 2}H", b))
    while n >> 16: n = (n & 0xffff) + (n >> 16)
    return ~n & 0xffff
def say(kind, sender, source, chaddr, ciaddr, address):
    m = struct.pack("!BBBB4sHH4s12s16s192s4s", 1, 1, 6, 0, b"once", 0, 0, ciaddr, b"", chaddr, b"", b"c\\x82Sc") + bytes([53, 1, kind])
    m += (bytes([50, 4]) + address if address else b"") + bytes([255])
    u = struct.pack("!HHHH", 68, 67, len(m) + 8, 0) + m
    ip = struct.pack("!BBHHHBBH4s4s", 69, 0, len(u) + 20, 0, 0, 64, 17, 0, source, b"\\xff" * 4)
    s.send(b"\\xff" * 6 + sender + b"\\x08\\0" + ip[:10] + struct.pack("!H", total(ip)) + ip[12:] + u)
none = bytes(4)
for sender in (own, other):
    for source in (mine, its, none):
        say(7, sender, source, other, its, None)
        say(7, sender, source, own, its, None)
        say(4, sender, source, other, none, its)
        say(4, sender, source, own, none, its)
say(7, own, mine, own, mine, None)
"""


@pytest.fixture
def leased(net, world):
    """A network whose addresses the site gives, and ask(): a workspace's client, as a system has it; a program may not set addresses."""
    make_network(net, "leased", kind="bridge", bridge="site0")
    servers = []

    def serve(seconds, pool="192.168.80"):
        servers.append(world.popen("lan", sys.executable, "-c", DHCP, str(seconds), pool, stdout=subprocess.PIPE))
        assert servers[-1].stdout.readline() == b"ready\n"
        return servers[-1]

    def configure(shown, verb, what):
        run("nsenter", f"--net=/proc/{shown['pid']}/ns/net", "ip", "address", verb, what + "/24", "dev", "eth0")

    def ask(shown):
        said = inside(net, shown["name"], "sh", "-c", "udhcpc -n -q -t 20 -T 1 -i eth0 -s /bin/true 2>&1").stdout
        given = re.search(r"lease of (\S+) obtained", said)[1]
        configure(shown, "replace", given)
        return given
    ask.serve, ask.configure = serve, configure
    yield ask
    for server in servers:
        server.kill()
        server.wait()
    net.carrel("network", "rm", "leased")


def known(net, name):
    return net.json("show", name)["interfaces"][0].get("ipv4")


def test_addresses_by_the_site_s_dhcp(net, world, leased):
    """Only what was given is used, rules of others name it, `show` tells it, and an agent that starts anew leaves connections alone."""
    leased.serve(3600)
    world.serve("lan", 8062)
    with workspace(net, "guest", ["nc", "-ll", "-p", "80", "-e", "cat"], networks=[{"network": "leased"}],
                   allow=["site"]) as shown, \
            workspace(net, "peer", networks=[{"network": "office"}], allow=["workspace:guest tcp/80"]), \
            workspace(net, "other", networks=[{"network": "office"}], allow=["none"]):
        assert inside(net, "guest", "ip", "-4", "address", "show", "dev", "eth0").stdout == ""
        assert net.carrel("network", "test", "peer", "guest", "tcp/80", ok=None).returncode, "it has no address"
        given = leased(shown)
        eventually(lambda: reaches(net, "guest", DESK, 8062) == given)
        eventually(lambda: known(net, "guest") == given)

        def echo(who):
            return inside(net, who, "sh", "-c", f"echo word | nc -w 2 {given} 80", ok=None).stdout == "word\n"
        eventually(lambda: echo("peer"))
        assert not echo("other")
        assert "allowed" in net.carrel("network", "test", "peer", "guest", "tcp/80").stdout
        assert net.carrel("network", "test", "peer", "guest", "tcp/81", ok=None).returncode
        inside(net, "peer", "sh", "-c", f"(for i in $(seq 40); do echo $i; sleep 0.2; done) | nc {given} 80 >/tmp/said 2>&1 &")
        net.says("peer", "cat", "/tmp/said")
        net.node.kill()
        net.node.start()
        net.wait(lambda: net.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
        eventually(lambda: known(net, "guest") == given)
        eventually(lambda: echo("peer"))
        net.says("peer", "tail", "-n", "1", "/tmp/said", until=lambda text: text == "40\n")
        leased.configure(shown, "del", given)
        leased.configure(shown, "add", "192.168.80.77")
        assert reaches(net, "guest", DESK, 8062) is None, "one that nobody gave"


def test_an_address_that_is_over_is_nobody_s(net, world, leased):
    """Its time, which no frame ends; and one that is given back, which the next one may get."""
    server = leased.serve(int(6 * PATIENCE))
    world.serve("lan", 8064)
    with workspace(net, "guest", networks=[{"network": "leased"}], allow=["site"]) as shown, \
            workspace(net, "clock", networks=[{"network": "leased"}]) as clock:
        given = leased(shown)
        eventually(lambda: leased(shown) == given == known(net, "guest"))
        eventually(lambda: known(net, "guest") is None)
        assert reaches(net, "guest", DESK, 8064) is None, "its time is over"
        leased.configure(shown, "del", given)
        eventually(lambda: leased(shown) == given == known(net, "guest"))
        eventually(lambda: leased(shown) == given == reaches(net, "guest", DESK, 8064), what="given anew")
        time_given = leased(clock)
        server.kill()
        leased.serve(3600)
        leased.configure(shown, "del", given)
        given = leased(shown)
        eventually(lambda: reaches(net, "guest", DESK, 8064) == given)
        # given after the first one, for as long
        eventually(lambda: not allowed(world, clock["interfaces"][0]["port"], time_given))
        eventually(lambda: reaches(net, "guest", DESK, 8064) == given, what="it was given for longer")
        assert leased(shown) == given
        run("nsenter", f"--net=/proc/{shown['pid']}/ns/net", sys.executable, "-c", RETURN, given, DESK,
            net.workspace("guest")["interfaces"][0]["mac"])
        eventually(lambda: known(net, "guest") is None)
        assert reaches(net, "guest", DESK, 8064) is None, "it was given back"


def test_nobody_gives_back_the_address_of_another(net, world, leased):
    """A neighbour's RELEASE and DECLINE, in any name: the filter, the agent and the rules of others keep what the site's DHCP gave."""
    leased.serve(3600)
    world.serve("lan", 8065)
    with workspace(net, "guest", ["nc", "-ll", "-p", "80", "-e", "cat"], networks=[{"network": "leased"}],
                   allow=["site"]) as shown, \
            workspace(net, "peer", networks=[{"network": "office"}], allow=["workspace:guest tcp/80"]), \
            workspace(net, "forger", networks=[{"network": "leased"}], allow=["any"]) as other:
        given, mine = leased(shown), leased(other)
        eventually(lambda: known(net, "guest") == given and known(net, "forger") == mine)
        macs = [net.workspace(name)["interfaces"][0]["mac"] for name in ("forger", "guest")]
        run("nsenter", f"--net=/proc/{other['pid']}/ns/net", sys.executable, "-c", FORGE, *macs, mine, given)
        eventually(lambda: known(net, "forger") is None)  # its own return, after all the others
        assert known(net, "guest") == given
        assert reaches(net, "forger", DESK, 8065) is None
        eventually(lambda: reaches(net, "guest", DESK, 8065) == given)
        eventually(lambda: inside(net, "peer", "sh", "-c", f"echo word | nc -w 2 {given} 80", ok=None).stdout == "word\n")


def test_an_address_that_is_given_to_the_next_one(net, world, leased):
    """The server takes an address for free and gives it to another workspace: the one that had it has it no longer."""
    world.serve("lan", 8066)
    server = leased.serve(3600)
    with workspace(net, "first", networks=[{"network": "leased"}], allow=["site"]) as first, \
            workspace(net, "second", networks=[{"network": "leased"}], allow=["site"]) as second:
        given = leased(first)
        eventually(lambda: known(net, "first") == given)
        server.kill()
        leased.serve(3600)  # it knows nothing of the one before
        assert leased(second) == given
        eventually(lambda: known(net, "second") == given and known(net, "first") is None)
        assert not allowed(world, first["interfaces"][0]["port"],
                           given) and allowed(world, second["interfaces"][0]["port"], given)


def allowed(world, port, address):
    """Whether the filter lets that port use it."""
    name = next(line.split()[2] for line in world.run("host", "nft", "list", "tables", "bridge").stdout.splitlines())
    said = world.run("host", "nft", "list", "set", "bridge", name, "leases").stdout
    number = int.from_bytes(socket.inet_aton(address), "big")
    return any(f'"{port}"' in x and re.search(rf"\b(0x0*{number:x}|{number})\b", x) for x in said.split(","))


def test_an_address_of_somebody_else_is_not_named(net, world, leased):
    """The site's DHCP gives one that is a workspace's of another network: rules that name the guest do not open the way to that one."""
    make_network(net, "twin", ipv4="10.97.0.0/24", kind="isolated")
    server = leased.serve(3600, "10.97.0")
    with workspace(net, "guest", networks=[{"network": "leased"}], allow=["site"]) as shown, \
            workspace(net, "later", networks=[{"network": "leased"}]) as later:
        assert leased(shown) == "10.97.0.101"
        server.kill()
        leased.serve(3600)
        assert leased(later) == "192.168.80.101"
        eventually(lambda: known(net, "later"))  # the same look has seen the guest's, too
        assert known(net, "guest") is None
    net.carrel("network", "rm", "twin")


def test_what_cannot_be_is_refused(net, world):
    spec = {"name": "seven", "image": "busybox", "command": ["sleep", "9"], "resources": {"disk": "32M"}}
    status, answer, _ = net.api("POST", "/v1/workspaces",
                                {"spec": {**spec, "networks": [{"network": "office"}], "publish": ["8080:80"]}})
    assert status >= 400 and "published on networks of kind nat" in answer["error"]["message"]
    for name, how, said in (("gone", {"bridge": "nowhere0"}, "has no bridge nowhere0"),
                            ("cable", {"bridge": "desk0"}, "is not a bridge")):
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
    spec = {"name": "seven", "image": "busybox", "command": ["sleep", "9"], "resources": {"disk": "32M"},
            "networks": [{"network": "tagged"}]}
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
    world.run("host", "ip", "link", "add", "dev", "Site_1.0", "type", "bridge")
    make_network(net, "fleeting", kind="bridge", bridge="Site_1.0", ipv4="192.168.92.0/24")
    world.serve("lan", 8063)
    with workspace(net, "lost", networks=[{"network": "fleeting"}]), workspace(net, "kept", networks=[{"network": "office"}]):
        world.run("host", "ip", "link", "delete", "dev", "Site_1.0")
        net.node.kill()
        net.node.start()
        net.wait(lambda: net.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
        net.carrel("allow", "kept", "site")
        eventually(lambda: reaches(net, "kept", DESK, 8063) is not None)
        refused = net.carrel("connect", "kept", "office", "--out-least", "400G", ok=None)
        assert refused.returncode and "guarante" in refused.stderr
        eventually(lambda: "no bridge Site_1.0" in net.node.log())
        time.sleep(4)  # as long as it takes to say it too often
        assert net.node.log().count("no bridge Site_1.0") <= 3 and net.node.log().count("guarante") <= 3
        eventually(lambda: reaches(net, "kept", DESK, 8063) is not None)
        eventually(lambda: "no bridge Site_1.0" in net.json("why", "lost").get("network", ""))
        world.run("host", "ip", "link", "add", "dev", "Site_1.0", "type", "bridge")
        port = net.workspace("lost")["interfaces"][0]["port"]
        eventually(lambda: "master Site_1.0" in world.run("host", "ip", "link", "show", "dev", port).stdout)
        eventually(lambda: "network" not in net.json("why", "lost"))
    world.run("host", "ip", "link", "delete", "dev", "Site_1.0")
    net.carrel("network", "rm", "fleeting")
