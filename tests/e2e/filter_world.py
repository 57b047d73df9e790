# SPDX-License-Identifier: Apache-2.0
"""
A host, workspaces and the world outside as network namespaces, without any daemon: what the filter's rules meet in life, built as
docs/formats/filter.md says (a bridge for each network, isolated ports, proxy ARP, /32 and /128 addresses). The rules come from
filter-tool, the packets from plain sockets.
"""
import ctypes
import json
import os
import pathlib
import select
import socket
import struct
import subprocess
import time
import uuid

from network_tools import PATIENCE

BUILD = pathlib.Path(os.environ.get("CARREL_BUILD_ROOT", "build"))
LONG = 3  # for what was expected to pass and did not, the second time
TOOL = BUILD / "tests/unit/network/filter-tool"
libc = ctypes.CDLL(None, use_errno=True)


def why_not():
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft"):
        if subprocess.run(["sh", "-c", f"command -v {program}"], stdout=subprocess.DEVNULL).returncode:
            return f"no {program} here"
    return None


def run(*words, check=True, **more):
    return subprocess.run(words, check=check, capture_output=True, text=True, **more)


class Inside:
    """`with Inside(name):` this thread is in the namespace (a name of `ip netns`, or a path); sockets made there stay there."""

    def __init__(self, name):
        self.path = os.path.join("/run/netns", name)

    def __enter__(self):
        self.back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        if libc.setns(there, 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(there)

    def __exit__(self, *_):
        libc.setns(self.back, 0x40000000)
        os.close(self.back)


class Tool:
    def __init__(self, namespace):
        self.process = subprocess.Popen(["ip", "netns", "exec", namespace, str(TOOL)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __call__(self, verb, **more):
        self.process.stdin.write(json.dumps({"do": verb, **more}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"filter-tool died at {verb}"
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


class Workspace:
    def __init__(self, world, name, number, networks, owner, spec):
        self.world, self.name, self.number, self.owner, self.spec = world, name, number, owner, spec
        self.id = f"{number:016x}"
        self.namespace = f"{world.prefix}{name}"
        self.attachments = []
        for index, network in enumerate(networks):
            n = number * 8 + index
            pool = world.networks[network]
            self.attachments.append({
                "network": network, "number": n, "device": f"eth{index}", "port": f"cr{n:x}",
                "mac": f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}"})
            if pool.get("pools", True):
                self.attachments[-1] |= {"ipv4": f"{pool['base4']}{number + 9}/24", "ipv6": f"{pool['base6']}{number + 9:x}/64"}

    @property
    def ipv4(self):
        return self.attachments[0]["ipv4"].split("/")[0]

    @property
    def ipv6(self):
        return self.attachments[0]["ipv6"].split("/")[0]

    def address(self, ipv6=False):
        return self.ipv6 if ipv6 else self.ipv4

    @property
    def port(self):
        return self.attachments[0]["port"]

    @property
    def mac(self):
        return self.attachments[0]["mac"]

    def intent(self):
        return {"id": self.id, "owner": self.owner, "spec": {"image": "x", "name": self.name, **self.spec},
                "attachments": self.attachments}

    def member(self):
        return {"id": self.id, "name": self.name, "owner": self.owner, "groups": self.spec.get("groups", []), "addresses": [
            {"network": a["network"], "number": a["number"], "mac": a["mac"],
             **{family: a[family].split("/")[0] for family in ("ipv4", "ipv6") if family in a}} for a in self.attachments]}


class World:
    WAN4, WAN6, HOST4, HOST6, LAN4, LANHOST4 = ("203.0.113.9", "2001:db8:99::9", "198.51.100.1", "2001:db8:98::1",
                                                "192.168.77.9", "192.168.77.1")

    def __init__(self, connections=0, metadata=0):
        self.prefix = "filter-" + uuid.uuid4().hex[:6] + "-"
        self.host = self.prefix + "host"
        self.namespaces, self.workspaces, self.networks = [], {}, {}
        self.connections, self.metadata = connections, metadata
        self.next = 1
        self.make_host()
        self.tool = Tool(self.host)

    def ip(self, namespace, *words):
        run("ip", "-n", namespace, *words)

    def make_namespace(self, name):
        run("ip", "netns", "add", name)
        self.namespaces.append(name)
        self.ip(name, "link", "set", "lo", "up")
        with Inside(name):
            for path in ("ipv6/conf/default/accept_dad", "ipv6/conf/default/dad_transmits"):
                pathlib.Path("/proc/sys/net", path).write_text("0")

    def make_host(self):
        self.make_namespace(self.host)
        run("ip", "netns", "exec", self.host, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        # Where the kernel has br_netfilter, a port published and used on one bridge would be bridged, to a port that is
        # isolated.
        for path in pathlib.Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
            run("ip", "netns", "exec", self.host, "sysctl", "-qw", f"net.bridge.{path.name}=0")
        self.wan, self.lan = self.prefix + "wan", self.prefix + "lan"
        for name, device, here4, there4, here6, there6 in (
                (self.wan, "up0", self.HOST4 + "/24", "198.51.100.2/24", self.HOST6 + "/64", "2001:db8:98::2/64"),
                (self.lan, "up1", self.LANHOST4 + "/24", self.LAN4 + "/24", "fd77::1/64", "fd77::9/64")):
            self.make_namespace(name)
            self.ip(self.host, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", name)
            for namespace, interface, four, six in ((self.host, device, here4, here6), (name, "eth0", there4, there6)):
                self.ip(namespace, "addr", "add", four, "dev", interface)
                self.ip(namespace, "addr", "add", six, "dev", interface, "nodad")
                self.ip(namespace, "link", "set", interface, "up")
        for family, address, via in (("-4", self.WAN4 + "/32", "198.51.100.2"), ("-6", self.WAN6 + "/128", "2001:db8:98::2")):
            self.ip(self.wan, "addr", "add", address, "dev", "lo")
            run("ip", "-n", self.host, family, "route", "add", "default", "via", via)
        # Others may have routes to our pools: that is what must not help them.
        for namespace, four, six in ((self.wan, self.HOST4, self.HOST6), (self.lan, self.LANHOST4, "fd77::1")):
            run("ip", "-n", namespace, "-4", "route", "add", "10.0.0.0/8" if namespace == self.wan else "default", "via", four)
            run("ip", "-n", namespace, "-6", "route", "add", "fd00:88::/32" if namespace == self.wan else "default", "via", six)

    def site(self, name, pools=True, dns=()):
        """A network of kind bridge: a bridge of the site with the host on it (.2) and two machines of the site (.200, .201)."""
        number = len(self.networks) + 1
        device = f"br{number}"
        base4, base6 = f"10.88.{number}.", f"fd00:88:0:{number}::"
        network = {"name": name, "kind": "bridge", "number": number, "bridge": device, "dns": list(dns)}
        if pools:
            network |= {"ipv4": base4 + "0/24", "ipv6": base6 + "/64"}
        self.networks[name] = {"base4": base4, "base6": base6, "device": device, "site": True, "pools": pools,
                               "network": network}
        self.ip(self.host, "link", "add", device, "type", "bridge", "forward_delay", "0")
        self.ip(self.host, "addr", "add", base4 + "2/24", "dev", device)
        self.ip(self.host, "addr", "add", base6 + "2/64", "dev", device, "nodad")
        self.ip(self.host, "link", "set", device, "up")
        machines = []
        for end in (200, 201):
            space = f"{self.prefix}site{number}-{end}"
            self.make_namespace(space)
            port = f"site{number}-{end}"
            self.ip(self.host, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            self.ip(self.host, "link", "set", port, "master", device)
            self.ip(self.host, "link", "set", port, "up")
            self.ip(space, "addr", "add", f"{base4}{end}/24", "dev", "eth0")
            self.ip(space, "addr", "add", f"{base6}{end}/64", "dev", "eth0", "nodad")
            self.ip(space, "link", "set", "eth0", "up")
            machines.append((space, f"{base4}{end}", f"{base6}{end}"))
        return machines

    def network(self, name, kind="nat"):
        number = len(self.networks) + 1
        device = f"crb{number}"
        base4, base6 = f"10.88.{number}.", f"fd00:88:0:{number}::"
        self.networks[name] = {"base4": base4, "base6": base6, "device": device, "network": {
            "name": name, "kind": kind, "number": number, "ipv4": base4 + "0/24", "ipv6": base6 + "/64"}}
        self.ip(self.host, "link", "add", device, "address", f"02:ff:00:00:00:{number:02x}", "type", "bridge")
        self.ip(self.host, "addr", "add", base4 + "1/24", "dev", device)
        for address in (base6 + "1/64", "fe80::1/64"):
            self.ip(self.host, "addr", "add", address, "dev", device, "nodad")
        self.ip(self.host, "link", "set", device, "up")
        run("ip", "netns", "exec", self.host, "sysctl", "-qw", f"net.ipv4.conf.{device}.proxy_arp_pvlan=1",
            f"net.ipv4.neigh.{device}.proxy_delay=0", f"net.ipv4.conf.{device}.route_localnet=1",
            f"net.ipv4.conf.{device}.send_redirects=0")

    def add(self, name, networks=("default",), owner=1000, plug=True, **spec):
        spec = {key.replace("_", "-"): value for key, value in spec.items()}
        w = Workspace(self, name, self.next, networks, owner, spec)
        self.next += 1
        self.workspaces[name] = w
        if plug:
            self.plug(w)
        return w

    def plug(self, w):
        self.make_namespace(w.namespace)
        for index, a in enumerate(w.attachments):
            device = self.networks[a["network"]]["device"]
            pool = self.networks[a["network"]]
            self.ip(self.host, "link", "add", a["port"], "type", "veth", "peer", "name", a["device"], "netns", w.namespace)
            self.ip(self.host, "link", "set", a["port"], "master", device)
            if not pool.get("site"):
                self.ip(self.host, "link", "set", a["port"], "type", "bridge_slave", "isolated", "on")
            self.ip(self.host, "link", "set", a["port"], "up")
            self.ip(w.namespace, "link", "set", a["device"], "address", a["mac"])
            if pool.get("site"):
                for address in filter(None, (a.get("ipv4"), a.get("ipv6"))):
                    self.ip(w.namespace, "addr", "add", address, "dev", a["device"], *(["nodad"] if ":" in address else []))
                self.ip(w.namespace, "link", "set", a["device"], "up")
                if pool["pools"]:
                    self.ip(w.namespace, "route", "add", "default", "via", pool["base4"] + "2")
                    run("ip", "-n", w.namespace, "-6", "route", "add", "default", "via", pool["base6"] + "2")
                continue
            self.ip(w.namespace, "addr", "add", a["ipv4"], "dev", a["device"])
            self.ip(w.namespace, "addr", "add", a["ipv6"].split("/")[0] + "/128", "dev", a["device"], "nodad")
            self.ip(w.namespace, "link", "set", a["device"], "up")
            if index == 0:
                self.ip(w.namespace, "route", "add", "default", "via", pool["base4"] + "1")
                run("ip", "-n", w.namespace, "-6", "route", "add", "default", "via", "fe80::1", "dev", a["device"])

    def intent(self):
        return {"instance": "t", "connections": self.connections, "metadata-port": self.metadata,
                "networks": [{"network": n["network"], "device": n["device"]} for n in self.networks.values()],
                "members": [w.member() for w in self.workspaces.values()],
                "workspaces": [w.intent() for w in self.workspaces.values()]}

    def tell(self):
        self.tool("intent", intent=self.intent())

    def apply(self):
        self.tell()
        return self.tool("apply")

    def settle(self):
        """Waits until everybody has resolved its neighbours: the first IPv6 packets wait for the kernel's own timers."""
        for w in self.workspaces.values():
            if self.networks[w.attachments[0]["network"]].get("site"):
                continue
            if "10.88" in w.ipv4 and pathlib.Path(f"/run/netns/{w.namespace}").exists():
                gateway = self.networks[w.attachments[0]["network"]]["base6"] + "1"
                assert any(ping(w, gateway, 0.3) for _ in range(30)), f"{w.name} does not reach its gateway"
                assert any(ping(self.host, w.ipv6, 0.3) for _ in range(30)), f"the host does not reach {w.name}"
        assert any(ping(self.host, self.WAN6, 0.3) for _ in range(30)) and any(ping(self.host, "fd77::9", 0.3)
                                                                               for _ in range(30))

    def settle_two(self, *workspaces):
        for w in workspaces:
            assert any(ping(self.host, w.ipv4, 0.3) for _ in range(30))

    def counts(self, w, allowed=None):
        return {(c["side"], c["rule"]): c["packets"] for c in self.tool("counters")["counters"]
                if c["workspace"] == w.id and allowed in (None, c["allowed"])}

    def close(self):
        self.tool.close()
        for name in self.namespaces:
            run("ip", "netns", "del", name, check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def where(end):
    return getattr(end, "namespace", end)


def open_server(namespace, kind, address, port):
    with Inside(where(namespace)):
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    if kind == socket.SOCK_STREAM:
        s.listen(16)
    return s


def tcp(client, address, port, timeout=0.5):
    """A connected socket, or None when nobody lets it through."""
    with Inside(where(client)):
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    s.settimeout(timeout * PATIENCE)
    try:
        s.connect((address, port))
        return s
    except OSError:
        s.close()
        return None


def tcp_passes(client, server, address, port, to=None, timeout=0.5, listen=None):
    """From `client` to `address`:`port`; `server` listens at `to` (the same address unless it is translated)."""
    listener = open_server(server, socket.SOCK_STREAM, to or address, listen or port)
    try:
        s = tcp(client, address, port, timeout)
        if s:
            s.close()
        return s is not None
    finally:
        listener.close()


def udp_passes(client, server, address, port, to=None, timeout=0.4, payload=b"x", listen=None):
    listener = open_server(server, socket.SOCK_DGRAM, to or address, listen or port)
    with Inside(where(client)):
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        s.settimeout(timeout * PATIENCE)
        listener.settimeout(timeout * PATIENCE)
        s.sendto(payload, (address, port))
        got, peer = listener.recvfrom(70000)
        listener.sendto(got, peer)
        return s.recv(70000) == payload
    except OSError:
        return False
    finally:
        s.close()
        listener.close()


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def ping(client, address, timeout=0.4, size=8):
    """An echo request by a raw socket, so that no `ping` is needed; the answer must be to it."""
    ipv6 = ":" in address
    with Inside(where(client)):
        s = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, socket.SOCK_RAW, 58 if ipv6 else 1)
    mark = os.urandom(size)
    number = int.from_bytes(os.urandom(2), "big")
    head = struct.pack("!BBHHH", 128 if ipv6 else 8, 0, 0, number, 1)
    if not ipv6:
        head = struct.pack("!BBHHH", 8, 0, checksum(head + mark), number, 1)
    try:
        s.sendto(head + mark, (address, 0))
        end = time.monotonic() + timeout * PATIENCE
        while (left := end - time.monotonic()) > 0:
            if not select.select([s], [], [], left)[0]:
                return False
            got = s.recv(70000)
            if not ipv6:
                got = got[20:]
            if got[0] == (129 if ipv6 else 0) and got[8:] == mark:
                return True
        return False
    except OSError:
        return False
    finally:
        s.close()


def agreed(probes):
    """What all of them say; each is called with the seconds that it may take. Those that failed while others did not may take longer."""
    answers = [probe(0.45) for probe in probes]
    if True in answers:
        answers = [answer or probe(LONG) for answer, probe in zip(answers, probes)]
    assert len(set(answers)) == 1, "protocols or families differ"
    return answers[0]


def three(client, server, address, port):
    """TCP, UDP and ICMP, for agreed()."""
    return [lambda t: tcp_passes(client, server, address, port, timeout=t),
            lambda t: udp_passes(client, server, address, port, timeout=t), lambda t: ping(client, address, t)]


def try_one(world, r, ends, where):
    """One packet between two of `ends`, (namespace, IPv4, IPv6) or workspaces: what passes is what the rules' explanation says."""
    source, target = r.sample(ends, 2)
    if not isinstance(source, Workspace) and not isinstance(target, Workspace):
        return
    ipv6, protocol = r.random() < 0.5, r.choice(["tcp", "udp", "icmp"])

    def place(end):
        if isinstance(end, Workspace):
            return end, end.address(ipv6), {"workspace": end.id, "address": end.address(ipv6)}
        return end[0], end[1 + ipv6], {"address": end[1 + ipv6]}
    (client, _, source_end), (server, address, target_end) = place(source), place(target)

    def passes(timeout):
        return tcp_passes(client, server, address, 4000, timeout=timeout) if protocol == "tcp" else \
            udp_passes(client, server, address, 4000,
                       timeout=timeout) if protocol == "udp" else ping(client, address, timeout=timeout)
    verdict = world.tool("judge", protocol=protocol, port=0 if protocol == "icmp" else 4000,
                         **{"from": source_end, "to": target_end})
    passed = passes(0.25) or (verdict["allowed"] and passes(LONG))
    assert verdict["allowed"] == passed, (where, protocol, source_end, target_end, verdict, world.intent()["workspaces"])
