# SPDX-License-Identifier: Apache-2.0
"""
Workspaces on a bridge of the site, against real packets: the language between them, the site's machines, the host and networks of our own;
forged frames; the site's DHCP; connections that are open while rules, tables and agents change. One world for all: each test says
anew who there is. The kernels that follow connections in family bridge take the other way of filter_site.c; `ruleset` says which.
"""
import random
import socket
import struct
import subprocess

import pytest

from filter_world import (Inside, Workspace, World, agreed, open_server, ping, tcp, tcp_passes, three, try_one,
                          udp_passes, why_not)
from network_tools import eventually
from test_filter import icmpv6, ipv4_packet, mac, random_spec, spoofed, works

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
DNS4 = "10.88.1.201"


class Site:
    """`desk` and `printer` are the site's; a, b, c are workspaces on its bridge, `inner` one on a network of our own."""

    def __init__(self, world):
        self.world = world
        self.desk, self.printer = world.site("office", dns=[DNS4])
        world.network("own")
        self.a, self.b, self.c = (world.add(name, networks=["office"]) for name in "abc")
        self.inner = world.add("inner", networks=["own"])
        self.rules()

    def rules(self, **of):
        """New rules for those that are named, the default for the others."""
        for name in ("a", "b", "c", "inner"):
            w = getattr(self, name)
            w.spec, w.owner = dict(of.get(name, {})), 1000
            w.owner = w.spec.pop("owner", 1000)
        self.world.apply()

    def both(self, client, server, ipv6=False, port=4000):
        """What TCP, UDP and ping say."""
        address = server.address(ipv6) if isinstance(server, Workspace) else server[1 + ipv6]
        client, server = (x if isinstance(x, Workspace) else x[0] for x in (client, server))
        return agreed(three(client, server, address, port))


@pytest.fixture(scope="module")
def site():
    with World() as world:
        yield Site(world)


def everywhere(site, client, server):
    four, six = site.both(client, server), site.both(client, server, True)
    assert four == six, "families differ"
    return four


def test_the_default(site):
    """Not to the site, to other workspaces or the host; nobody gets in but the same owner; names are asked of the network's servers."""
    site.rules(b={"owner": 2}, c={"owner": 1000, "allow": ["any"]})
    a, b, c = site.a, site.b, site.c
    assert not everywhere(site, a, site.desk) and not everywhere(site, site.desk, a)
    assert not everywhere(site, a, b) and not everywhere(site, c, b) and everywhere(site, c, a)
    assert not tcp_passes(a, site.world.host, "10.88.1.2", 2200) and not ping(a, "10.88.1.2")
    assert everywhere(site, (site.world.host, "10.88.1.2", "fd00:88:0:1::2"), a), "the host itself reaches its workspaces"
    assert udp_passes(a, site.printer[0], DNS4, 53) and not udp_passes(a, site.printer[0], DNS4, 54)
    assert not udp_passes(a, site.desk[0], site.desk[1], 53)
    assert tcp_passes(a, site.world.wan, site.world.WAN4, 80) and ping(a,
                                                                       site.world.WAN6), "by the host, which is its router here"
    assert site.world.counts(a, False)[("out", "default")] > 0 and site.world.counts(b, False)[("in", "default")] > 0
    assert site.world.counts(a, True)[("out", "names")] > 0


@pytest.mark.parametrize("of, passes", [
    (dict(a={"allow": ["any"]}), True),
    (dict(a={"allow": ["workspace:b"]}), True),
    (dict(a={"allow": ["group:lab"]}, b={"groups": ["lab"]}), True),
    (dict(a={"allow": ["network:office"]}), True),
    (dict(a={"allow": ["site"]}), True),
    (dict(a={"allow": ["10.88.1.0/24", "fd00:88:0:1::/64"]}), True),
    (dict(a={"allow": ["workspace:c", "network:own"]}), False),
    (dict(a={"allow": ["any"], "deny": ["workspace:b"]}), False),
    (dict(a={"allow": ["any"], "isolated": True}), False),
    (dict(b={"from": ["workspace:a"]}), True),
    (dict(a={"owner": 3, "groups": ["ops"]}, b={"from": ["group:ops"]}), True),
    (dict(a={"owner": 3, "groups": ["ops"], "allow": ["any"]}, b={"groups": ["ops"]}), True),
    (dict(a={"owner": 3, "allow": ["any"]}), False),
    (dict(b={"from": ["any"], "deny": ["workspace:a"]}), False),
    (dict(b={"from": ["any"], "isolated": True}), False),
])
def test_words(site, of, passes):
    site.rules(**of)
    assert everywhere(site, site.a, site.b) is passes


def test_the_site_s_machines(site):
    site.rules(a={"allow": ["site tcp/22,80-90 icmp"]}, b={"from": [site.desk[1] + " tcp/80", site.desk[2] + " tcp/80"]},
               c={"from": ["site"]})
    for ipv6 in (False, True):
        address = site.desk[1 + ipv6]
        assert [tcp_passes(site.a, site.desk[0], address, port, timeout=0.2) for port in (22, 79, 85)] == [True, False, True]
        assert ping(site.a, address) and not udp_passes(site.a, site.desk[0], address, 22)
        b = site.b.address(ipv6)
        assert tcp_passes(site.desk[0], site.b, b, 80) and not tcp_passes(site.desk[0], site.b, b, 81, timeout=0.2)
        assert not tcp_passes(site.printer[0], site.b, b, 80, timeout=0.2)
    assert everywhere(site, site.printer, site.c)


def test_by_the_host_s_routes(site):
    """From a network of our own and from outside: judged by who it really is, before addresses are translated."""
    site.rules(inner={"allow": ["any"]}, a={"from": ["workspace:inner"]}, b={"from": ["wan"]},
               c={"allow": ["any"], "from": ["none"]})
    world = site.world
    assert everywhere(site, site.inner, site.a) and not everywhere(site, site.inner, site.b)
    for ipv6 in (False, True):
        run = ["ip", "-n", world.wan, "-6" if ipv6 else "-4", "route", "replace",
               "fd00:88:0:1::/64" if ipv6 else "10.88.1.0/24", "via", world.HOST6 if ipv6 else world.HOST4]
        subprocess.run(run, check=True)
        assert tcp_passes(world.wan, site.b, site.b.address(ipv6), 80) and ping(world.wan, site.b.address(ipv6))
        assert not tcp_passes(world.wan, site.a, site.a.address(ipv6), 80)
        assert not tcp_passes(site.c, site.inner, site.inner.address(ipv6),
                              80), "a nat network is not reached from a bridge of the site"


def test_fragments_and_errors(site):
    site.rules(a={"allow": ["workspace:b udp/9"]}, b={"from": ["any"]})
    for ipv6 in (False, True):
        address = site.b.address(ipv6)
        assert udp_passes(site.a, site.b, address, 9, payload=b"f" * 6000)
        assert not udp_passes(site.a, site.b, address, 10, payload=b"f" * 6000)
        # Nobody listens: the port unreachable that comes back is about a packet that was let through.
        with Inside(site.a.namespace):
            s = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(3)
        s.connect((address, 9))
        s.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            s.recv(10)
        s.close()
    # One that quotes a packet which was never sent does not arrive.
    quoted = ipv4_packet(site.a.ipv4, site.desk[1])
    forged = ipv4_packet(site.desk[1], site.a.ipv4, 1, struct.pack("!BBHI", 3, 3, 0, 0) + quoted)
    before = site.world.counts(site.a, False).get(("in", "default"), 0)
    send(site.desk[0], mac(site.a.mac) + mac("02:00:00:00:99:99") + b"\x08\x00" + forged)
    eventually(lambda: site.world.counts(site.a, False).get(("in", "default"), 0) == before + 1)


def send(namespace, frame):
    with Inside(namespace):
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind(("eth0", 0))
    out.send(frame)
    out.close()


def connection(client, server, address, port):
    listener = open_server(server, socket.SOCK_STREAM, address, port)
    s = tcp(client, address, port)
    assert s
    served = listener.accept()[0]
    listener.close()
    for end in (s, served):
        end.settimeout(0.5)
    return s, served


def test_open_connections(site):
    """Through changes of rules, a table that somebody deletes, and an agent that dies: what is allowed goes on, from either side."""
    site.rules(a={"allow": ["site"]}, b={"from": ["site"]})
    out = connection(site.a, site.desk[0], site.desk[1], 22)
    back = connection(site.printer[0], site.b, site.b.ipv6, 22)
    assert works(*out) and works(*reversed(out)) and works(*back) and works(*reversed(back))
    site.rules(a={"allow": ["site tcp/22", "wan"]}, b={"from": ["site"]}, c={"allow": ["any"]})
    assert works(*reversed(out)) and works(*reversed(back)), "the side that did not open it speaks first"
    site.world.tool.close()  # the agent is gone; the next one replaces the tables
    site.world.tool.__init__(site.world.host)
    assert works(*reversed(out)) and works(*out)
    site.world.apply()
    assert works(*reversed(out)) and works(*reversed(back))
    nft = ["ip", "netns", "exec", site.world.host, "nft"]
    assert site.world.tool("check")["drift"] == ""
    for damage in ("flush chain bridge carrel_t leaving", f"delete element bridge carrel_t sited {{ {site.a.port} }}"):
        subprocess.run([*nft, damage], check=True)
        assert "another program" in site.world.tool("check")["drift"], damage
        site.world.apply()
        assert site.world.tool("check")["drift"] == "" and works(*reversed(out))
    subprocess.run([*nft, "delete table bridge carrel_t"], check=True)
    assert "another program" in site.world.tool("check")["drift"]
    site.world.apply()
    assert works(*out) and works(*reversed(out)), "what was remembered is gone: the side that opened it goes on first"
    assert not everywhere(site, site.a, site.b)
    subprocess.run([*nft, "list", "ruleset"], check=True, stdout=subprocess.DEVNULL)
    site.rules(a={"allow": ["wan"]}, b={"from": ["none"]})
    for pair in (out, back):
        assert not works(*pair) and not works(*reversed(pair)), "not allowed any more"


def test_spoofing(site):
    site.rules(a={"allow": ["any"]}, b={"from": ["any"]}, c={"from": ["any"]})
    ears = []
    for namespace, device in ((site.b.namespace, "eth0"), (site.desk[0], "eth0"), (site.world.host, "br1")):
        with Inside(namespace):
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            ear.bind((device, 3))
            ear.setblocking(False)
            ears.append(ear)
    assert ping(site.a, site.desk[1])
    strict = [("neighbour claims any link-local address", "fe80::1234", "spoofed neighbour discovery")]
    frames = list(spoofed(site.a, site.b))
    na = struct.pack("!BBHI", 136, 0, 0, 0x60000000) + socket.inet_pton(socket.AF_INET6,
                                                                        strict[0][1]) + b"\2\1" + mac(site.a.mac)
    frames.append((strict[0][0], mac("33:33:00:00:00:01") + mac(site.a.mac) + b"\x86\xdd" + icmpv6(site.a.ipv6, "ff02::1", na),
                   strict[0][2]))
    with Inside(site.a.namespace):
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        out.bind(("eth0", 0))
    for name, frame, reason in frames:
        before = site.world.counts(site.a, False).get(("out", reason), 0)
        frame += b"\0" * max(0, 60 - len(frame)) if frame[12:14] != b"\x86\xdd" else b""
        out.send(frame)
        assert ping(site.a, site.desk[1]), name
        for ear in ears:
            while True:
                try:
                    got = ear.recv(4000)
                except BlockingIOError:
                    break
                assert got[6:] != frame[6:] and frame[14:] not in got, f"{name} arrived"
        if reason:
            assert site.world.counts(site.a, False).get(("out", reason), 0) == before + 1, f"{name} was not counted as {reason}"


def test_the_site_s_dhcp(site):
    """A network without pools: the site's server answers, and what it gave may be used, and nothing else."""
    world = site.world
    server, _ = world.site("leased", pools=False)
    a = world.add("d", networks=["leased"], allow=["any"], **{"from": ["any"]})
    world.apply()
    number = world.networks["leased"]["network"]["number"]
    given, wrong = f"10.88.{number}.77", f"10.88.{number}.78"
    world.ip(a.namespace, "addr", "add", given + "/24", "dev", "eth0")
    assert not ping(a, server[1]), "an address that nobody gave"

    def ack(address, to=a.mac, kind=5):
        body = struct.pack("!BBBBIHH4s4s4s4s", 2, 1, 6, 0, 7, 0, 0, b"", socket.inet_aton(address), b"",
                           b"") + mac(to).ljust(16, b"\0") + bytes(192)
        body += b"\x63\x82\x53\x63\x35\x01" + bytes([kind]) + b"\xff"
        datagram = struct.pack("!HHHH", 67, 68, 8 + len(body), 0) + body
        send(server[0], mac(a.mac) + mac("02:00:00:00:99:99") + b"\x08\x00"
             + ipv4_packet(server[1], "255.255.255.255", 17, datagram))

    ack(given, kind=2)
    ack(given, to="02:00:00:00:00:99")
    assert not ping(a, server[1]), "neither an offer nor somebody else's"
    with Inside(a.namespace):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
    ear.settimeout(5)
    ack(given)
    assert ear.recv(2000)[36:38] == struct.pack("!H", 68)
    assert all_of(a, server) and all_of(server, a, given)
    with Inside(server[0]):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
    ear.settimeout(10)
    for ciaddr in (wrong, given):  # what was given may be given back, and nothing else
        send(a.namespace, request(given, a.mac, a.mac, ciaddr, 7))
    heard = b""
    while heard[36:38] != struct.pack("!H", 67):
        heard = ear.recv(2000)
    assert heard[54:58] == socket.inet_aton(given)
    ear.close()
    world.ip(a.namespace, "addr", "add", wrong + "/24", "dev", "eth0")
    world.ip(a.namespace, "addr", "del", given + "/24", "dev", "eth0")
    world.ip(a.namespace, "addr", "replace", wrong + "/24", "dev", "eth0")
    assert not ping(a, server[1])
    world.apply()
    world.ip(a.namespace, "addr", "del", wrong + "/24", "dev", "eth0")
    world.ip(a.namespace, "addr", "add", given + "/24", "dev", "eth0")
    site.rules()
    assert all_of(a, server), "it is known after rules of others changed, too"
    own = "fd00:88:0:%d:0:ff:fe00:%x" % (number, a.attachments[0]["number"])
    for address, passes in ((own, True), (f"fd00:88:0:{number}::5", False)):
        world.ip(a.namespace, "addr", "add", address + "/64", "dev", "eth0", "nodad")
        assert any(ping(a, server[2], 0.3) for _
                   in range(5)) is passes, "by the prefix that a router announces and the hardware address"
        world.ip(a.namespace, "addr", "del", address + "/64", "dev", "eth0")
    del world.workspaces["d"]
    world.tool("remove", id=a.id)


def request(source, mac_address, chaddr, ciaddr, kind, sport=68, head=b"\1\1\6", cut=None):
    body = head + struct.pack("!BIHH4s12x", 0, 9, 0, 0, socket.inet_aton(ciaddr)) + mac(chaddr).ljust(16, b"\0") + bytes(192)
    body += b"\x63\x82\x53\x63\x35\x01" + bytes([kind]) + b"\xff"
    datagram = (struct.pack("!HHHH", sport, 67, 8 + len(body), 0) + body)[:cut]
    packet = ipv4_packet(source, "255.255.255.255", 17, datagram)
    return b"\xff" * 6 + mac(mac_address) + b"\x08\x00" + packet


def test_requests_are_in_the_port_s_own_name(site):
    """DHCP of a workspace: of its own hardware address and an address that was given to it; the site's server sees nothing else."""
    site.rules(a={"allow": ["any"]})
    a, b, server = site.a, site.b, site.desk[0]
    with Inside(server):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
    ear.bind(("eth0", 0x800))
    ear.settimeout(10)

    def arrives(frame, reason=None):
        """What the server has heard when a discovery that follows arrives, which always does."""
        end = request("0.0.0.0", a.mac, a.mac, "0.0.0.0", 1)
        before = site.world.counts(a, False).get(("out", reason), 0) if reason else 0
        send(a.namespace, frame)
        send(a.namespace, end)
        heard = []
        while not heard or heard[-1] != end:
            heard.append(ear.recv(4000))
        if reason:
            assert site.world.counts(a, False).get(("out", reason), 0) == before + 1, f"not counted as {reason}"
        return frame in heard[:-1]

    forged = "spoofed DHCP request"
    assert arrives(request(a.ipv4, a.mac, a.mac, "0.0.0.0", 3))
    for kind in (3, 4, 7, 8):
        assert not arrives(request(a.ipv4, a.mac, b.mac, "0.0.0.0", kind), forged), "in its neighbour's name"
        assert not arrives(request(a.ipv4, a.mac, a.mac, b.ipv4, kind), forged), "of its neighbour's address"
        assert not arrives(request(b.ipv4, b.mac, b.mac, b.ipv4, kind), "spoofed MAC address"), "as its neighbour"
    assert not arrives(request(a.ipv4, a.mac, b.mac, b.ipv4, 7, sport=1068), forged), "by another port"
    assert not arrives(request(a.ipv4, a.mac, a.mac, "0.0.0.0", 7, head=b"\1\x20\x10"),
                       forged), "a client that is named otherwise"
    assert not arrives(request(a.ipv4, a.mac, a.mac, "0.0.0.0", 7, cut=20), forged), "too short to be judged"
    piece = bytearray(request(a.ipv4, a.mac, a.mac, "0.0.0.0", 7))
    piece[20] |= 0x20
    piece[24:26] = bytes(2)
    piece[24:26] = struct.pack("!H", checksum(bytes(piece[14:34])))
    assert not arrives(bytes(piece), forged), "in pieces"
    ear.close()


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def all_of(client, server, address=None):
    client, there = (x if isinstance(x, Workspace) else x[0] for x in (client, server))
    address = address or server[1]
    return tcp_passes(client, there, address, 4000) and udp_passes(client, there, address, 4000) and ping(client, address)


@pytest.mark.parametrize("seed", [4])
def test_judge_agrees_with_packets(site, seed):
    r = random.Random(seed)
    world, names = site.world, ["a", "b", "c", "inner"]
    ends = [site.a, site.b, site.c, site.inner, (world.wan, world.WAN4, world.WAN6), site.desk, site.desk]
    for _ in range(3):
        site.rules(**{name: random_spec(r, names) | {"owner": r.choice([1, 2])} for name in names})
        for _ in range(25):
            try_one(world, r, ends, seed)
