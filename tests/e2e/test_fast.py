# SPDX-License-Identifier: Apache-2.0
"""
The short way for packets between workspaces (docs/decisions/0115): that connections take it, and that nothing the rules say is weaker by it.
No daemon runs here: filter-tool is the agent (see filter_world.py).
"""
import contextlib
import os
import pathlib
import re
import signal
import socket
import struct
import time

import pytest

from filter_world import Inside, Tool, World, checksum, open_server, run, tcp, where, why_not
from network_tools import PATIENCE


def lacking():
    if why_not():
        return why_not()
    with World() as w:
        w.network("default")
        w.tell()
        try:
            w.tool("fast")
        except RuntimeError as e:
            return str(e)
    return None


pytestmark = pytest.mark.skipif(lacking() is not None, reason=str(lacking()))


@pytest.fixture
def world():
    with World() as w:
        w.network("default")
        yield w


def ready(world, **more):
    world.apply()
    world.settle()
    world.tool("fast", **more)


def until(what, seconds=60):
    end = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < end:
        if (answer := what()):
            return answer
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def counts(world):
    return world.tool("fast-counts")["counts"]


class Talk:
    """A connection from `a` to `b` on which small messages go there and back."""

    def __init__(self, a, b, port=5000, ipv6=False, kind=socket.SOCK_STREAM):
        self.a, self.b, address = a, b, b.address(ipv6)
        listener = open_server(b, kind, address, port)
        if kind == socket.SOCK_STREAM:
            self.client = tcp(a, address, port, 5)
            assert self.client
            self.server = listener.accept()[0]
            listener.close()
            for s in (self.client, self.server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            with Inside(where(a)):
                self.client = socket.socket(listener.family, kind)
            self.client.connect((address, port))
            self.client.send(b"hello")
            self.server = listener
            listener.connect(listener.recvfrom(100)[1])

    def turn(self, times=1, timeout=5.0):
        self.client.settimeout(timeout)
        self.server.settimeout(timeout)
        try:
            for _ in range(times):
                self.client.send(b"there")
                assert self.server.recv(100) == b"there"
                self.server.send(b"back")
                assert self.client.recv(100) == b"back"
            return True
        except OSError:
            return False

    def hurry(self, world):
        """Until both directions take the short way."""
        def both():
            before = counts(world)
            assert self.turn(100)
            after = counts(world)
            return all(after[p] - before.get(p, 0) > 50 for p in (self.a.port, self.b.port))
        until(both)
        return self

    def bulk(self, megabytes):
        """From client to server: the bytes arrive as they were sent."""
        part = os.urandom(1 << 20)
        for _ in range(megabytes):
            child = os.fork()
            if not child:
                self.client.settimeout(20)
                self.client.sendall(part)
                os._exit(0)
            got = b""
            self.server.settimeout(20)
            while len(got) < len(part):
                got += self.server.recv(1 << 20)
            os.waitpid(child, 0)
            assert got == part

    def close(self):
        self.client.close()
        self.server.close()


def connections(world, port):
    with Inside(world.host):
        text = pathlib.Path("/proc/thread-self/net/nf_conntrack")
        if not text.exists():
            pytest.skip("the kernel has no /proc/net/nf_conntrack")
        return [line for line in text.read_text().splitlines() if f"dport={port} " in line]


def device(world, port):
    """What the host's end of a cable has sent, in packets."""
    with Inside(world.host):
        line = next(x for x in pathlib.Path("/proc/thread-self/net/dev").read_text().splitlines()
                    if x.strip().startswith(port + ":"))
    return int(line.split(":")[1].split()[9])


KINDS = [(ipv6, kind) for ipv6 in (False, True) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]


@pytest.mark.parametrize("ipv6, kind", KINDS)
def test_connections_take_it(world, ipv6, kind):
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    ready(world)
    talk = Talk(a, b, ipv6=ipv6, kind=kind).hurry(world)
    if kind == socket.SOCK_STREAM:
        talk.bulk(20)
        assert talk.turn(100)
    before, sent = counts(world), device(world, b.port)
    assert talk.turn(500)
    assert counts(world)[b.port] - before[b.port] > 400
    # What the device counts and what took the short way is all there was: 500 messages, and for TCP what acknowledges.
    total = counts(world)[b.port] - before[b.port] + device(world, b.port) - sent
    assert 500 <= total <= 600 if kind == socket.SOCK_DGRAM else 500 <= total <= 1100


def test_one_hop_as_on_the_usual_way(world):
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    ready(world)
    talk = Talk(a, b, kind=socket.SOCK_DGRAM).hurry(world)
    talk.server.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
    before = counts(world)[b.port]
    seen = set()
    for _ in range(200):
        talk.client.send(b"x")
        _, extra, _, _ = talk.server.recvmsg(10, 100)
        seen.add(struct.unpack("i", extra[0][2])[0])
    assert counts(world)[b.port] - before > 100 and seen == {63}


def test_a_rule_that_changes_stops_it(world):
    """The connection that is no longer allowed ends within a second, the other one notices nothing."""
    a = world.add("a", allow=["workspace:b", "workspace:c"])
    b, c = world.add("b", **{"from": ["any"]}), world.add("c", **{"from": ["any"]})
    ready(world)
    for ipv6, kind in (KINDS[0], KINDS[3]):
        denied, kept = Talk(a, b, 5000, ipv6, kind).hurry(world), Talk(a, c, 5001, ipv6, kind).hurry(world)
        a.spec["allow"] = ["workspace:c"]
        world.apply()
        before = counts(world)
        assert not denied.turn(1, 1.0), "a connection that is denied goes on"
        denied.server.settimeout(0.5)
        denied.server.send(b"and not back either")
        with pytest.raises(OSError):
            denied.client.recv(100)
        assert counts(world)[b.port] == before[b.port], "packets of it took the short way"
        assert kept.turn(200), "a connection that is allowed broke"
        kept.hurry(world)
        a.spec["allow"] = ["workspace:b", "workspace:c"]
        world.apply()
        denied.close()
        kept.close()


def test_deny_and_groups_stop_it(world):
    a, b = world.add("a", allow=["group:g"]), world.add("b", groups=["g"], **{"from": ["any"]})
    ready(world)
    talk = Talk(a, b).hurry(world)
    b.spec["groups"] = []
    world.apply()
    assert not talk.turn(1, 1.0)
    b.spec["groups"] = ["g"]
    world.apply()
    talk = Talk(a, b, 5001).hurry(world)
    a.spec["deny"] = ["any tcp/5001"]
    world.apply()
    assert not talk.turn(1, 1.0)
    talk = Talk(a, b, 5002).hurry(world)
    b.spec["isolated"] = True
    world.apply()
    assert not talk.turn(1, 1.0)


def test_rules_of_others_stop_it(world):
    """The site's own rules, which nobody tells the agent of, are met again within half a second."""
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    ready(world)
    talk = Talk(a, b).hurry(world)
    run("ip", "netns", "exec", world.host, "nft",
        "table inet site { chain x { type filter hook forward priority 10; tcp dport 5000 drop; }; }")
    time.sleep(0.6)
    assert not talk.turn(1, 1.0)
    run("ip", "netns", "exec", world.host, "nft", "delete table inet site")
    talk = Talk(a, b, 5001).hurry(world)
    with Inside(world.host):
        run("ip", "netns", "exec", world.host, "nft",
            "table inet site { chain x { type filter hook forward priority 10; tcp sport 5001 drop; }; }")
    time.sleep(0.6)
    before = counts(world)
    assert not talk.turn(1, 1.0) and counts(world)[a.port] == before[a.port], "the answer's direction went on"


def frame(a, b, payload, mac=None, gate=None, sport=5000, dport=5000, flags=0x18, seq=0, vlan=None):
    tcp_head = struct.pack("!HHIIBBHHH", sport, dport, seq, 0, 5 << 4, flags, 1000, 0, 0)
    pseudo = socket.inet_aton(a) + socket.inet_aton(b) + struct.pack("!BBH", 0, 6, len(tcp_head) + len(payload))
    tcp_head = tcp_head[:16] + struct.pack("!H", checksum(pseudo + tcp_head + payload)) + tcp_head[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0) + socket.inet_aton(a) + socket.inet_aton(b)
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    mac, gate = (bytes.fromhex(m.replace(":", "")) for m in (mac, gate))
    return gate + mac + (struct.pack("!HH", 0x8100, vlan) if vlan is not None else b"") + b"\x08\x00" + ip + tcp_head + payload


def test_frames_of_another_workspace_do_not_pass(world):
    """One that knows everything of a connection cannot put a byte into it, and cannot end it."""
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    c = world.add("c", allow=["workspace:b"])
    ready(world)
    talk = Talk(a, b).hurry(world)
    sport = talk.client.getsockname()[1]
    with Inside(b.namespace):
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    ear.bind(("eth0", 0))
    ear.settimeout(0.5)
    gate = "02:ff:00:00:00:01"
    with Inside(c.namespace):
        mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    mouth.bind(("eth0", 0))
    before = counts(world)[b.port]
    for mac in (a.mac, c.mac, b.mac):
        for flags in (0x18, 0x11, 0x14, 0x02):
            for vlan in (None, 0, 1):
                mouth.send(frame(a.ipv4, b.ipv4, b"forged", mac, gate, sport, 5000, flags, vlan=vlan))
    with Inside(a.namespace):
        own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    own.bind(("eth0", 0))
    own.send(frame(a.ipv4, b.ipv4, b"forged", c.mac, gate, sport, 5000))
    own.send(frame(c.ipv4, b.ipv4, b"forged", a.mac, gate, sport, 5000))
    own.send(frame(a.ipv4, b.ipv4, b"forged", a.mac, gate, sport, 5000, vlan=5))
    own.send(frame(a.ipv4, b.ipv4, b"forged", a.mac, b.mac, sport, 5000))
    assert counts(world)[b.port] == before
    assert talk.turn(200), "it broke"
    end = time.monotonic() + 1
    with contextlib.suppress(OSError):
        while time.monotonic() < end:
            assert b"forged" not in ear.recv(70000)


def test_an_end_is_seen_by_connection_tracking(world):
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    ready(world)
    for reset in (False, True):
        port = 5000 + reset
        talk = Talk(a, b, port).hurry(world)
        talk.bulk(30)  # far past the window that was seen
        time.sleep(1.2)  # and past what is told to connection tracking
        assert talk.turn(100)
        assert "ESTABLISHED" in connections(world, port)[0]
        if reset:
            talk.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            talk.client.close()
            talk.server.settimeout(5)
            with pytest.raises(ConnectionResetError):
                talk.server.recv(10)
        else:
            talk.client.close()
            talk.server.settimeout(5)
            assert talk.server.recv(10) == b""
            talk.server.close()
        until(lambda: not any("ESTABLISHED" in line for line in connections(world, port)))


def test_a_long_silence_is_allowed(world):
    """As long as without: what connection tracking did not see does not shorten the time that a connection may be idle."""
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    ready(world)
    talk = Talk(a, b).hurry(world)
    talk.bulk(5)
    assert talk.turn(2000)
    until(lambda: int(re.search(r"tcp +6 +(\d+) ", connections(world, 5000)[0])[1]) > 400000, 30)
    assert talk.turn(100)
    talk.hurry(world)


def test_nobody_asks_for_long_when_the_agent_is_dead(world):
    """Killed, its flows still meet the rules; the next one takes them over, with what was counted."""
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    ready(world)
    talk = Talk(a, b).hurry(world)
    before = counts(world)[b.port]
    world.tool.process.send_signal(signal.SIGKILL)
    world.tool.process.wait()
    assert talk.turn(500)
    run("ip", "netns", "exec", world.host, "nft",
        "table inet site { chain x { type filter hook forward priority 10; tcp dport 5000 drop; }; }")
    time.sleep(0.6)
    assert not talk.turn(1, 1.0)
    run("ip", "netns", "exec", world.host, "nft", "delete table inet site")
    talk.close()
    world.tool = Tool(world.host)
    ready(world)
    assert counts(world)[b.port] >= before + 400, "what was counted is lost"
    filters = run("ip", "netns", "exec", world.host, "tc", "filter", "show", "dev", b.port, "ingress").stdout
    assert filters.count("carrel_fast") >= 1 and filters.count("handle") == 1
    Talk(a, b, 5001).hurry(world)


@pytest.mark.parametrize("point", ["fast.attach", "fast.flow", "fast.end", "fast.loosen"])
def test_killed_between_any_two_steps(world, point, tmp_path, monkeypatch):
    faults = tmp_path / "faults"
    faults.write_text("")
    monkeypatch.setenv("CARREL_FAULTS", str(faults))
    world.tool.close()
    world.tool = Tool(world.host)
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    world.apply()
    world.settle()
    faults.write_text(f"* log {tmp_path}/log\n{point} kill\n")
    talk = Talk(a, b)
    with contextlib.suppress(BrokenPipeError, AssertionError, ValueError, OSError):
        world.tool("fast")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert talk.turn(200)
            if point == "fast.end":
                world.tool("fast", slow=[a.port])
            counts(world)
    if point not in (tmp_path / "log").read_text() if (tmp_path / "log").exists() else True:
        pytest.skip("built without faults")
    assert world.tool.process.wait(60) != 0
    assert talk.turn(200), "without an agent the connection broke"
    world.tool = Tool(world.host)
    ready(world)
    talk.hurry(world)
    a.spec["allow"] = ["wan"]
    world.apply()
    assert not talk.turn(1, 1.0)


def test_ports_with_rates_do_not(world):
    a, b, c = world.add("a", allow=["any"]), world.add("b", **{"from": ["any"]}), world.add("c", **{"from": ["any"]})
    ready(world, slow=[b.port])
    slow, fast = Talk(a, b), Talk(a, c, 5001).hurry(world)
    assert slow.turn(2000) and counts(world)[b.port] == 0
    # A port that gets rates loses its flows at once, keeps what was counted, and one that had them gets some.
    world.tool("fast", slow=[c.port])
    before = counts(world)[c.port]
    assert before > 0 and fast.turn(500) and counts(world)[c.port] == before
    slow.hurry(world)
    world.tool("fast")
    fast.hurry(world)
    # Also when the agent was dead while they all got rates.
    world.tool.process.kill()
    world.tool.process.wait()
    world.tool = Tool(world.host)
    ready(world, slow=[a.port, b.port, c.port])
    before = counts(world)
    assert min(before.values()) > 0 and slow.turn(500) and fast.turn(500) and counts(world) == before


def test_what_has_to_be_changed_on_the_way_does_not(world):
    """A published port used inside, a receiver that takes only smaller packets, the host itself, an answer that is too far away."""
    a, b = world.add("a", allow=["any"], publish=["8080:80"]), world.add("b", allow=["any"], **{"from": ["any"]})
    world.ip(world.host, "link", "set", b.port, "mtu", "1400")
    world.ip(b.namespace, "link", "set", "eth0", "mtu", "1400")
    ready(world)
    talk = Talk(a, b)
    assert talk.turn(2000)
    after = counts(world)
    assert after[b.port] == 0 and after[a.port] > 0, after
    listener = open_server(a, socket.SOCK_STREAM, a.ipv4, 80)
    client = tcp(b, world.HOST4, 8080, 5)
    server = listener.accept()[0]
    before = counts(world)
    for _ in range(2000):
        client.send(b"x")
        assert server.recv(10) == b"x"
        server.send(b"y")
        assert client.recv(10) == b"y"
    assert counts(world) == before


def test_a_workspace_that_comes_again(world):
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    ready(world)
    Talk(a, b).hurry(world)
    run("ip", "netns", "del", b.namespace)
    until(lambda: run("ip", "-n", world.host, "link", "show", b.port, check=False).returncode)
    world.namespaces.remove(b.namespace)
    world.tool("remove", id=b.id)
    world.tool("fast")
    assert b.port not in counts(world)
    world.plug(b)
    ready(world)
    assert counts(world)[b.port] == 0
    Talk(a, b, 5001).hurry(world)


def test_connections_that_somebody_ends_meet_the_rules_anew(world):
    a, b = world.add("a", allow=["workspace:b"]), world.add("b", **{"from": ["workspace:a"]})
    ready(world)
    talk = Talk(a, b).hurry(world)
    with Inside(world.host):
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # nfnetlink: all connections are deleted
    kernel.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0))
    assert struct.unpack_from("=i", kernel.recv(1000), 16)[0] == 0
    assert talk.turn(200)  # its next packet may begin one
    talk.hurry(world)


class Running:
    """A workspace of a site, as Talk wants it."""

    def __init__(self, site, name):
        self.site, self.name, shown = site, name, site.workspace(name)
        self.namespace, self.interface = f"/proc/{shown['pid']}/ns/net", shown["interfaces"][0]
        self.port = self.interface["port"]

    def address(self, ipv6):
        return self.interface["ipv6" if ipv6 else "ipv4"].split("/")[0]

    def traffic(self, key):
        return self.site.api("GET", f"/v1/workspaces/{self.name}/traffic")[1]["interfaces"][0].get(key, 0)


def test_on_a_site(prefix, busybox_tar):
    """The agent makes flows, counts them, takes them back and finds them again after it was killed."""
    from conftest import Site, import_image
    from network_tools import World as Internet
    from test_networks import make_network, workspace
    internet = Internet()
    site = Site(prefix, world=internet, node_args=["--blank-size", "32M"])

    def sent(end):
        line = next(x for x in internet.run("host", "cat", "/proc/net/dev").stdout.splitlines()
                    if x.strip().startswith(end.port + ":"))
        return int(line.split(":")[1].split()[9])

    def hurry(talk, b):
        def short():
            before = sent(b)
            assert talk.turn(200)
            return sent(b) - before < 50
        until(short, 60)
    try:
        import_image(site, "busybox", busybox_tar)
        make_network(site, "default", ipv4="10.88.0.0/24", ipv6="fd00:88::/64")
        with workspace(site, "a", allow=["workspace:b"]), workspace(site, "b", **{"from": ["any"]}):
            a, b = Running(site, "a"), Running(site, "b")
            talk = Talk(a, b)
            hurry(talk, b)
            assert talk.turn(2000)
            until(lambda: b.traffic("in-packets") >= 2200 and a.traffic("in-packets") >= 2200, 60)
            counted = b.traffic("in-packets")
            site.node.kill()
            assert talk.turn(2000)
            site.node.start()
            site.wait(lambda: site.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
            until(lambda: b.traffic("in-packets") >= counted + 2000, 60)
            hurry(talk, b)
            site.carrel("deny", "a", "workspace:b")
            until(lambda: not talk.turn(1, 1.0), 30)
            site.carrel("allow", "a", "workspace:b")
    finally:
        problems = site.close()
        internet.close()
    assert not problems, "\n".join(problems)
