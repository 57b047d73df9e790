# SPDX-License-Identifier: Apache-2.0
"""
The network filter against real packets: one test per word of the language, spoofed frames from inside, and random intents whose
verdicts are compared with what packets do. No daemon runs here: see filter_world.py.
"""
import random
import socket
import struct
import subprocess

import pytest

from filter_world import (Inside, World, agreed, checksum, open_server, ping, run, tcp, tcp_passes, three, try_one,
                          udp_passes, why_not)

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def world():
    with World() as w:
        w.network("default")
        yield w


def ready(world):
    world.apply()
    world.settle()


def all_pass(client, server, port=4000, families=(False, True)):
    """TCP, UDP and ICMP in both families: the six answers must be equal."""
    return agreed([probe for ipv6 in families for probe in three(client, server, server.address(ipv6), port)])


def test_default(world):
    """Out to the WAN; not to the site, to others, to the host; nothing from outside."""
    a, b = world.add("a"), world.add("b")
    ready(world)
    for address in (world.WAN4, world.WAN6):
        assert tcp_passes(a, world.wan, address, 80) and udp_passes(a, world.wan, address, 53) and ping(a, address)
    for address in (world.LAN4, "fd77::9"):
        assert not tcp_passes(a, world.lan, address, 80) and not ping(a, address)
    assert all_pass(a, b) is False
    for address in (world.HOST4, world.LANHOST4, "10.88.1.1", world.HOST6, "fd00:88:0:1::1"):
        assert not tcp_passes(a, world.host, address, 2200), f"the host's {address} was reached"
    assert ping(a, "10.88.1.1") and ping(a, "fd00:88:0:1::1") and not ping(a, world.HOST4)
    for outside in (world.wan, world.lan):
        assert not tcp_passes(outside, a, a.ipv4, 80) and not ping(outside, a.ipv4) and not ping(outside, a.ipv6)
    denied = world.counts(a, False)
    assert denied[("out", "default")] > 0 and denied[("out", "the host itself")] > 0 and denied[("in", "not published")] > 0


@pytest.mark.parametrize("rules, passes", [
    (dict(allow=["any"]), True),
    (dict(allow=["workspace:b"]), True),
    (dict(allow=["group:lab"]), True),
    (dict(allow=["network:default"]), True),
    (dict(allow=["10.88.1.0/24", "fd00:88:0:1::/64"]), True),
    (dict(allow=["workspace:c"]), False),
    (dict(allow=["group:other"]), False),
    (dict(allow=["wan"]), False),
    (dict(allow=["site"]), False),
    (dict(allow=["none"]), False),
    (dict(allow=["any"], deny=["group:lab"]), False),
    (dict(allow=["any"], deny=["workspace:c"]), True),
    (dict(allow=["any"], isolated=True), False),
])
def test_allow(world, rules, passes):
    a, b = world.add("a", **rules), world.add("b", groups=["lab"])
    ready(world)
    assert all_pass(a, b) is passes


@pytest.mark.parametrize("rules, passes", [
    ({"from": ["any"]}, True),
    ({"from": ["workspace:a"]}, True),
    ({"from": ["group:ops"]}, True),
    ({"from": ["network:default"]}, True),
    ({"from": ["none"]}, False),
    ({"from": ["wan"]}, False),
    ({"from": ["group:nobody"]}, False),
    ({"from": ["any"], "deny": ["workspace:a"]}, False),
    ({"from": ["any"], "isolated": True}, False),
])
def test_from(world, rules, passes):
    """A default workspace may leave for whose `from` names it."""
    a, b = world.add("a", groups=["ops"], owner=1), world.add("b", owner=2, **rules)
    ready(world)
    assert all_pass(a, b) is passes


def test_services(world):
    a = world.add("a", allow=["workspace:b tcp/22,80-90 udp/53", "workspace:c icmp"])
    b, c = world.add("b"), world.add("c")
    ready(world)
    for ipv6 in (False, True):
        address = b.address(ipv6)
        assert ([tcp_passes(a, b, address, port, timeout=0.2) for port in (22, 79, 80, 90, 91, 53)]
                == [True, False, True, True, False, False])
        assert udp_passes(a, b, address, 53) and not udp_passes(a, b, address, 22) and not ping(a, address)
        assert ping(a, c.address(ipv6)) and not tcp_passes(a, c, c.address(ipv6), 22)


def test_owner_and_group(world):
    """Without `from`, only workspaces of the same owner or group get in, even when the other side may leave."""
    a = world.add("a", owner=1, allow=["any"], groups=["lab"])
    same, mate, stranger = world.add("same", owner=1), world.add("mate", owner=2,
                                                                 groups=["lab"]), world.add("stranger", owner=3)
    ready(world)
    assert all_pass(a, same) and all_pass(a, mate) and not all_pass(a, stranger)


def test_kinds(world):
    """Routed: reached from outside when `from` says so; isolated: nobody in or out, not even by other networks."""
    world.network("open", "routed")
    world.network("cell", "isolated")
    r = world.add("r", networks=["open"], **{"from": ["any"]})
    i = world.add("i", networks=["cell"], allow=["any"], **{"from": ["any"]})
    k = world.add("k", networks=["cell"], allow=["any"], **{"from": ["any"]})
    ready(world)
    for ipv6 in (False, True):
        assert tcp_passes(world.wan, r, r.address(ipv6), 80) and ping(world.wan, r.address(ipv6))
        assert not tcp_passes(world.wan, i, i.address(ipv6), 80)
        assert not tcp_passes(r, i, i.address(ipv6), 80) and not tcp_passes(i, r, r.address(ipv6), 80)
    assert all_pass(i, k)
    assert not tcp_passes(i, world.wan, world.WAN4, 80)
    listener = open_server(world.wan, socket.SOCK_STREAM, world.WAN4, 81)
    s = tcp(r, world.WAN4, 81)
    assert s and listener.accept()[1][0] == r.ipv4, "a routed network is not translated"


def test_published(world):
    b = world.add("b", publish=["8080:80", "5353:53/udp"])
    c = world.add("c", publish=[f"{world.HOST4}:8081:80"], **{"from": ["site"]})
    a = world.add("a", owner=7)
    ready(world)
    assert tcp_passes(world.wan, b, world.HOST4, 8080, to="0.0.0.0", listen=80)
    assert tcp_passes(world.wan, b, world.HOST6, 8080, to="::", listen=80)
    assert udp_passes(world.wan, b, world.HOST4, 5353, to="0.0.0.0", listen=53)
    assert not tcp_passes(world.wan, b, world.HOST4, 80, to="0.0.0.0")
    assert tcp_passes(world.host, b, world.HOST4, 8080, to="0.0.0.0", listen=80), "from the host itself"
    assert tcp_passes(world.host, b, "127.0.0.1", 8080, to="0.0.0.0", listen=80), "from the host's loopback"
    assert tcp_passes(a, b, world.HOST4, 8080, to="0.0.0.0", listen=80), "hairpin from another workspace"
    assert tcp_passes(b, b, world.HOST4, 8080, to="0.0.0.0", listen=80), "hairpin to itself"
    assert not tcp_passes(a, b, b.ipv4, 80), "its own address is not published"
    assert not tcp_passes(world.wan, c, world.HOST4, 8081, to="0.0.0.0", listen=80), "`from` decides"
    assert tcp_passes(world.lan, c, world.HOST4, 8081, to="0.0.0.0", listen=80)
    assert not tcp_passes(world.lan, c, world.LANHOST4, 8081, to="0.0.0.0", listen=80), "published at one address"


def test_fragments(world):
    a = world.add("a", allow=["workspace:b udp/9"])
    b = world.add("b")
    ready(world)
    for ipv6 in (False, True):
        assert udp_passes(a, b, b.address(ipv6), 9, payload=b"f" * 6000)
        assert not udp_passes(a, b, b.address(ipv6), 10, payload=b"f" * 6000)


def works(client, served):
    try:
        client.sendall(b"!")
        return served.recv(1) == b"!"
    except OSError:
        return False


def test_established_connections_follow_the_rules(world):
    """Those that are still allowed go on through any change; those that are not end, in both directions."""
    a, b, c = world.add("a", allow=["group:lab"]), world.add("b", groups=["lab"]), world.add("c", groups=["lab"])
    ready(world)
    pairs = {}
    for w in (b, c):
        listener = open_server(w, socket.SOCK_STREAM, w.ipv4, 22)
        client = tcp(a, w.ipv4, 22)
        served = listener.accept()[0]
        served.settimeout(0.5)
        client.settimeout(0.5)
        pairs[w] = (client, served)
        assert works(*pairs[w])
    b.spec["groups"] = []
    world.apply()
    assert not works(*pairs[b]) and not works(*reversed(pairs[b])) and works(*pairs[c])
    b.spec["groups"] = ["lab"]
    a.spec["allow"] = ["group:lab tcp/22", "wan"]
    world.apply()
    assert works(*pairs[c]) and tcp_passes(a, b, b.ipv4, 22)
    c.spec["isolated"] = True
    world.apply()
    assert not works(*pairs[c])


def test_add_and_remove_by_elements(world):
    a, b = world.add("a", allow=["group:lab"]), world.add("b", groups=["lab"])
    ready(world)
    chains = world.tool("compile")["text"].count("chain ")
    c = world.add("c", plug=False, groups=["lab"])
    world.tell()
    took = world.tool("add", id=c.id)["us"]
    world.plug(c)
    assert world.tool("compile")["text"].count("chain ") == chains and took < 1000000
    world.settle()
    assert all_pass(a, c) and tcp_passes(c, world.wan, world.WAN4, 80)
    assert world.tool("check")["drift"] == ""
    world.tool("remove", id=c.id)
    assert not tcp_passes(a, c, c.ipv4, 22) and not ping(c, "10.88.1.1") and all_pass(a, b)
    del world.workspaces["c"]
    world.apply()
    assert all_pass(a, b)


def test_too_many_connections():
    with World(connections=20) as world:
        world.network("default")
        a = world.add("a")
        ready(world)
        listener = open_server(world.wan, socket.SOCK_STREAM, world.WAN4, 80)
        listener.listen(100)
        held = [tcp(a, world.WAN4, 80, 0.3) for _ in range(25)]
        assert 15 <= sum(s is not None for s in held) <= 21
        assert world.counts(a, False)[("out", "too many connections")] > 0


def test_what_cannot_be_counted_any_more_is_dropped_all_the_same(world):
    """Counters are sets with room for 65535."""
    a = world.add("a", **{"from": ["any"]})
    ready(world)
    junk = ", ".join(f"fd00:77::{n:x} . 0x5" for n in range(65535))
    run("ip", "netns", "exec", world.host, "nft", "-f", "-", input=f"add element inet carrel_t in_hits6 {{ {junk} }}\n")
    assert not tcp_passes(world.lan, a, a.ipv6, 80) and not udp_passes(world.lan, a, a.ipv6, 80)
    assert run("ip", "netns", "exec", world.host, "nft", "list", "set", "inet", "carrel_t",
               "in_hits6").stdout.count(" . 0x") == 65535


def test_nobody_outside_fills_the_counters(world):
    a = world.add("a", **{"from": ["any"]})
    ready(world)
    with Inside(world.lan):
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    for n in range(1000):
        s.sendto(b"x", (f"fd00:88:0:1:1:1:{n >> 8:x}:{n & 255:x}", 9))
    assert not tcp_passes(world.lan, a, a.ipv6, 80)
    assert run("ip", "netns", "exec", world.host, "nft", "list", "set", "inet", "carrel_t",
               "in_hits6").stdout.count(" . 0x") <= 2
    assert world.counts(a, False)[("in", "not published")] > 0


def test_drift_is_seen_and_repaired(world):
    a = world.add("a")
    ready(world)
    assert world.tool("check")["drift"] == ""
    nft = ["ip", "netns", "exec", world.host, "nft"]
    subprocess.run([*nft, "add table inet another; add chain inet another x"], check=True)
    assert world.tool("check")["drift"] == "", "another program's table is not ours"
    for damage in ("flush chain inet carrel_t leaving",
                   f"delete element inet carrel_t leave {{ {a.attachments[0]['number']} }}", "delete table bridge carrel_t"):
        subprocess.run([*nft, damage], check=True)
        assert "another program" in world.tool("check")["drift"], damage
        world.apply()
        assert world.tool("check")["drift"] == "" and tcp_passes(a, world.wan, world.WAN4, 80)
    world.tool("remove-all")
    rest = subprocess.run([*nft, "list", "tables"], check=True, capture_output=True, text=True).stdout
    assert rest.split("\n") == ["table inet another", ""]


def test_our_own_changes_are_no_drift(world):
    """With counters and without, new chains, elements alone, and nothing at all; while another program changes its own tables."""
    a, b = world.add("a"), world.add("b", groups=["lab"])
    ready(world)
    nft = ["ip", "netns", "exec", world.host, "nft"]
    for turn, rules in enumerate([{"allow": ["group:lab"]}, {"allow": ["group:lab"]}, {"from": ["any"]}, {}, {"isolated": True},
                                  {"deny": ["any"]}]):
        a.spec = rules
        b.spec = {"groups": ["lab", "ops"][: turn % 3]}
        if turn % 2:
            ping(a, b.ipv4, 0.1)
        world.apply()
        seen = world.tool("check")
        assert seen["drift"] == "" and not seen["unsure"], rules
        subprocess.run([*nft, f"add table inet another{turn}"], check=True)
    world.tool("remove", id=b.id)
    assert world.tool("check")["drift"] == ""


def test_a_host_without_names_of_protocols(world):
    """No /etc/protocols, as on a Debian without netbase."""
    world.add("a", allow=["wan tcp", "site icmp udp", "any tcp/80 icmp"], publish=["8080:80"])
    world.site("office")
    world.add("c", networks=["office"], **{"from": ["any udp icmp tcp"]})
    world.tell()
    text = world.tool("compile")["text"]
    subprocess.run(["unshare", "-m", "-n", "sh", "-c", "mount --bind /dev/null /etc/protocols && nft -cf -"], input=text,
                   check=True, text=True)


def test_nft_that_fails_is_an_error(world, monkeypatch):
    world.add("a")
    world.tool.close()
    monkeypatch.setenv("PATH", "/nowhere")
    from filter_world import TOOL
    process = subprocess.Popen(["/usr/sbin/ip", "netns", "exec", world.host, str(TOOL)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    world.tool.process = process
    world.tell()
    with pytest.raises(RuntimeError, match="filter cannot be applied"):
        world.tool("apply")


def test_a_drop_policy_of_another_program_is_a_fact(world):
    subprocess.run(["ip", "netns", "exec", world.host, "nft",
                    "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }"],
                   check=True)
    world.tell()
    assert any("FORWARD" in f["what"] and "DOCKER-USER" in f["advice"] for f in world.tool("facts")["facts"])


# Spoofing.

def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ipv4_packet(source, target, protocol=17, payload=struct.pack("!HHHH", 4001, 4001, 9, 0) + b"x"):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, socket.inet_aton(source),
                       socket.inet_aton(target))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6_packet(source, target, next_header, payload, hops=64):
    six = socket.AF_INET6
    return struct.pack("!IHBB", 6 << 28, len(payload), next_header,
                       hops) + socket.inet_pton(six, source) + socket.inet_pton(six, target) + payload


def icmpv6(source, target, payload, hops=255):
    pseudo = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6,
                                                                          target) + struct.pack("!II", len(payload), 58)
    payload = payload[:2] + struct.pack("!H", checksum(pseudo + payload)) + payload[4:]
    return ipv6_packet(source, target, 58, payload, hops)


def spoofed(a, b, gate="02:ff:00:00:00:01", local=None):
    """(name, frame, what counts it): everything that workspace `a` must not be able to send."""
    own, gate, other, all_ = mac(a.mac), mac(gate), mac(b.mac), b"\xff" * 6
    six = socket.AF_INET6
    target = lambda address: socket.inet_pton(six, address)
    udp67 = struct.pack("!HHHH", 67, 68, 20, 0) + b"dhcp-offer.."
    arp = lambda sha, spa, op=2, tpa="10.88.1.1": struct.pack("!HHBBH6s4s6s4s", 1, 0x800, 6, 4, op, sha, socket.inet_aton(spa),
                                                              gate, socket.inet_aton(tpa))
    na = lambda address, lladdr: struct.pack("!BBHI", 136, 0, 0, 0x60000000) + target(address) + b"\2\1" + lladdr
    ns = lambda address, lladdr: struct.pack("!BBHI", 135, 0, 0, 0) + target(address) + b"\1\1" + lladdr
    eth = lambda source, kind, payload, to=gate: to + source + struct.pack("!H", kind) + payload
    good = ipv4_packet(a.ipv4, "10.88.1.1")
    router = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + b"\1\1" + own
    redirect = struct.pack("!BBHI", 137, 0, 0, 0) + target(b.ipv6) + target(world_wan6)
    local = local or "fe80::ff:fe00:%x" % a.attachments[0]["number"]
    hidden_router = struct.pack("!BBHI", 58, 0, 0, 7)  # a fragment header, whole in one fragment
    yield "wrong MAC", eth(other, 0x800, good), "spoofed MAC address"
    yield "wrong IPv4", eth(own, 0x800, ipv4_packet(b.ipv4, "10.88.1.1")), "spoofed IPv4 address"
    yield "gateway's IPv4", eth(own, 0x800, ipv4_packet("10.88.1.1", b.ipv4)), "spoofed IPv4 address"
    yield "no IPv4", eth(own, 0x800, ipv4_packet("0.0.0.0", "10.88.1.1")), "spoofed IPv4 address"
    yield "loopback's IPv4", eth(own, 0x800, ipv4_packet("127.0.0.1", "127.0.0.1")), "spoofed IPv4 address"
    yield "wrong IPv6", eth(own, 0x86dd, ipv6_packet(b.ipv6, "fd00:88:0:1::1", 17, good[20:])), "spoofed IPv6 address"
    yield "gateway's link-local", eth(own, 0x86dd, ipv6_packet("fe80::1", a.ipv6, 17, good[20:])), "spoofed IPv6 address"
    yield "ARP sender address", eth(own, 0x806, arp(own, b.ipv4)), "spoofed ARP"
    yield "ARP for the gateway", eth(own, 0x806, arp(own, "10.88.1.1"), all_), "spoofed ARP"
    yield "ARP sender MAC", eth(own, 0x806, arp(other, a.ipv4)), "spoofed ARP"
    yield "ARP from another MAC", eth(other, 0x806, arp(other, a.ipv4)), "spoofed MAC address"
    yield "neighbour's target", eth(own, 0x86dd,
                                    icmpv6(a.ipv6, "fd00:88:0:1::1", na(b.ipv6, own))), "spoofed neighbour discovery"
    yield "gateway's target", eth(own, 0x86dd, icmpv6(local, "ff02::1", na("fe80::1", own)),
                                  mac("33:33:00:00:00:01")), "spoofed neighbour discovery"
    yield "neighbour's option", eth(own, 0x86dd,
                                    icmpv6(a.ipv6, "fd00:88:0:1::1", na(a.ipv6, other))), "spoofed neighbour discovery"
    yield "solicitation's option", eth(own, 0x86dd,
                                       icmpv6(a.ipv6, "fd00:88:0:1::1",
                                              ns("fd00:88:0:1::1", other))), "spoofed neighbour discovery"
    yield "solicitation's source", eth(own, 0x86dd,
                                       icmpv6(b.ipv6, "fd00:88:0:1::1",
                                              ns("fd00:88:0:1::1", own))), "spoofed neighbour discovery"
    yield "probe for the gateway", eth(own, 0x86dd, icmpv6("::", "ff02::1", ns("fe80::1", own)[:24]),
                                       mac("33:33:00:00:00:01")), "spoofed neighbour discovery"
    yield "router advertisement", eth(own, 0x86dd, icmpv6(local, "ff02::1", router),
                                      mac("33:33:00:00:00:01")), "router advertisement or redirect"
    yield "router advertisement in a fragment", eth(own, 0x86dd,
                                                    ipv6_packet(local, "ff02::1", 44, hidden_router + router, 255)), ""
    yield "redirect", eth(own, 0x86dd, icmpv6(local, "ff02::1", redirect)), "router advertisement or redirect"
    yield "DHCP server", eth(own, 0x800, ipv4_packet(a.ipv4, "255.255.255.255", 17, udp67), all_), "DHCP server"
    yield "DHCPv6 server", eth(own, 0x86dd,
                               ipv6_packet(local, "ff02::1:2", 17, struct.pack("!HHHH", 547, 546, 8, 1))), "DHCP server"
    yield "VLAN tag", eth(own, 0x8100, struct.pack("!HH", 5, 0x800) + good), ""
    syn = ipv4_packet(a.ipv4, "10.88.1.1", 6, struct.pack("!HHIIHHHH", 4001, 4001, 1, 0, 0x5002, 1024, 0, 0))
    yield "VLAN tag before TCP", eth(own, 0x8100, struct.pack("!HH", 5, 0x800) + syn), ""
    yield "VLAN tag before TCP over IPv6", eth(own, 0x8100,
                                               struct.pack("!HH", 5, 0x86dd)
                                               + ipv6_packet(a.ipv6, "fd00:88:0:1::1", 6, syn[20:])), ""
    yield "VLAN tag before ARP", eth(own, 0x8100, struct.pack("!HH", 5, 0x806) + arp(own, a.ipv4)), ""
    yield "service VLAN tag", eth(own, 0x88a8, struct.pack("!HH", 5, 0x800) + good), ""
    yield "priority tag", eth(own, 0x8100, struct.pack("!HH", 0, 0x800) + good), ""
    yield "another protocol", eth(own, 0x88b5, b"x" * 50), "frame that is neither IP nor ARP"
    yield "spanning tree", mac("01:80:c2:00:00:00") + own + struct.pack("!H", 38) + b"\x42\x42\x03" + b"\0" * 35, ""
    yield "IP to a link-local group", eth(own, 0x800, ipv4_packet(a.ipv4, world_host4), mac("01:80:c2:00:00:0e")), ""


world_wan6, world_host4 = World.WAN6, World.HOST4


def test_spoofing(world):
    """Not one frame arrives: neither at the other workspace, nor in the host's bridge device, nor in its forwarding table."""
    a, b = world.add("a", allow=["any"]), world.add("b", **{"from": ["any"]})
    ready(world)
    with Inside(a.namespace):
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        out.bind(("eth0", 0))
    ears = []
    for namespace, device in ((b.namespace, "eth0"), (world.host, "crb1")):
        with Inside(namespace):
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            ear.bind((device, 3))
            ear.setblocking(False)
            ears.append(ear)
    frames = list(spoofed(a, b))
    for name, frame, reason in frames:
        before = world.counts(a, False).get(("out", reason), 0)
        frame += b"\0" * max(0, 60 - len(frame)) if frame[12:14] != b"\x86\xdd" else b""
        out.send(frame)
        assert ping(a, "10.88.1.1"), name  # frames keep their order, so the spoofed one has been judged
        for ear in ears:
            while True:
                try:
                    got = ear.recv(4000)
                except BlockingIOError:
                    break
                assert got[6:] != frame[6:] and frame[14:] not in got, f"{name} arrived"
        if reason:
            assert world.counts(a, False).get(("out", reason), 0) == before + 1, f"{name} was not counted as {reason}"
    flood = [bytes([2, 1]) + struct.pack("!I", n) for n in range(2000)]
    for source in flood:
        out.send(mac("02:ff:00:00:00:01") + source + b"\x08\x00" + ipv4_packet(a.ipv4, "10.88.1.1"))
    assert ping(a, "10.88.1.1")
    learned = subprocess.run(["bridge", "-n", world.host, "fdb", "show", "br", "crb1"], check=True, capture_output=True,
                             text=True).stdout
    assert "02:01:" not in learned and world.counts(a, False)[("out", "spoofed MAC address")] >= 2000


# The judge.

def random_rule(r, names):
    peer = r.choice(["wan", "any", "none", "site", "group:g0", "group:g1", "network:default", "network:open", "network:cell",
                     "10.88.1.0/28",
                     "203.0.113.0/24", "192.168.0.0/16", "2001:db8::/32", "fd00::/8"] + [f"workspace:{n}" for n in names])
    return (peer if peer == "none" or r.random() < 0.5
            else f"{peer} {r.choice(['tcp/4000', 'udp', 'icmp', 'tcp/1-100', 'tcp udp/4000', 'icmp tcp/3000-5000'])}")


def random_spec(r, names):
    spec = {}
    for key, chance in (("allow", 0.6), ("deny", 0.25), ("from", 0.5)):
        if r.random() < chance:
            spec[key] = [random_rule(r, names) for _ in range(r.randint(1, 3))]
    spec["groups"] = [g for g in ("g0", "g1") if r.random() < 0.4]
    if r.random() < 0.08:
        spec["isolated"] = True
    return spec


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_judge_agrees_with_packets(seed):
    r = random.Random(seed)
    names = ["a", "b", "c", "d"]
    with World() as world:
        world.network("default")
        world.network("open", "routed")
        world.network("cell", "isolated")
        for name in names:
            world.add(name, networks=[r.choice(["default", "default", "open", "cell"])], owner=r.choice([1, 2]),
                      **random_spec(r, names))
        ends = list(world.workspaces.values()) + [(world.wan, world.WAN4, world.WAN6), (world.lan, world.LAN4, "fd77::9")]
        ready(world)
        for turn in range(3):
            if turn:
                for w in world.workspaces.values():
                    w.spec = random_spec(r, names)
                world.apply()
            for _ in range(40):
                try_one(world, r, ends, (seed, turn))
