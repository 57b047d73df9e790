# SPDX-License-Identifier: Apache-2.0
"""
Machines on networks: an emulated machine and a namespace beside it, packets both ways for each word of the language, frames that must
not arrive, interfaces that come and go, and what is left when something dies. One machine is booted for most of it.
"""
import contextlib
import ipaddress
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import time
import types

import pytest

from conftest import add_busybox, give_kernel, import_image, tar_entry
from network_tools import World
from test_filter import ipv4_packet, mac, spoofed
from test_networks import inside, make_network, workspace

FOUR, SIX = "10.88.1.0/24", "fd00:88:0:1::/64"  # as in filter_world.py, so that its frames serve here too
EVERYTHING = {"tcp4", "udp4", "icmp4", "tcp6", "udp6", "icmp6"}
PORT = 4000


@pytest.fixture(scope="module")
def world():
    made = World()
    for path in pathlib.Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):  # hairpins need it: docs/formats/filter.md
        made.sysctl("host", f"net/bridge/{path.name}", 0)
    yield made
    made.close()


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """The test's own tool for the inside (machine_probe.c)."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("probe") / "probe"
    done = subprocess.run(["cc", "-static", "-O1", "-o", path, pathlib.Path(__file__).with_name("machine_probe.c")],
                          capture_output=True, text=True)
    if "cannot find -lc" in done.stderr:
        pytest.skip("no static C library")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def net(world, prefix, kernel, probe, tmp_path_factory):  # noqa: F811
    from conftest import Site
    plan = tmp_path_factory.mktemp("faults") / "plan"
    plan.write_text("")
    site = Site(prefix, world=world, node_args=["--blank-size", "32M"], env={"CARREL_FAULTS": str(plan)})
    site.plan = plan
    try:
        archive = tmp_path_factory.mktemp("image") / "busybox.tar"
        with tarfile.open(archive, "w") as tar:
            add_busybox(tar)
            tar_entry(tar, "bin/probe", probe.read_bytes(), 0o755)
        import_image(site, "busybox", archive)
        give_kernel(site, kernel)
        make_network(site, "default", ipv4=FOUR, ipv6=SIX, dns=[world.WAN])
        make_network(site, "side", ipv4="10.89.0.0/24", kind="isolated")
        yield site
    finally:
        problems = site.close()
    assert not problems, "\n".join(problems)
    left = [line for line in world.run("host", "ip", "-o", "link").stdout.splitlines() if ": cr" in line]
    assert not left, left
    assert "carrel" not in world.run("host", "nft", "list", "tables").stdout


SERVE = ("probe", "serve", "80", str(PORT))


@pytest.fixture(scope="module")
def vm(net):
    with workspace(net, "vm", SERVE, engine="emulator"):
        yield net.workspace("vm")


@pytest.fixture(scope="module")
def box(net):
    with workspace(net, "box", SERVE):
        yield net.workspace("box")


@pytest.fixture(autouse=True)
def afterwards(request):
    """Rules are as at the start."""
    yield
    if "vm" in request.fixturenames and "box" in request.fixturenames:
        for name in ("vm", "box"):
            change(request.getfixturevalue("net"), name)


RULES = {"allow": None, "from": None, "deny": None, "groups": [], "isolated": False, "publish": []}


def change(net, name, **rules):
    """What is not named goes back to the default."""
    body = {**RULES, **rules}
    status, answer, _ = net.api("PATCH", f"/v1/workspaces/{name}", body)
    assert status == 200, answer


def addresses(net, name):
    shown = net.workspace(name)["interfaces"][0]
    return [shown[key].split("/")[0] for key in ("ipv4", "ipv6")]


def passing(net, a, b, port=PORT, ms=700):
    """Which of TCP, UDP and ICMP, over IPv4 and IPv6, get an answer."""
    to = b if isinstance(b, (list, tuple)) else addresses(net, b)
    return set(inside(net, a, "probe", "all", str(ms), str(port), *to).stdout.split())


def becomes(condition, value, what=""):
    deadline = time.monotonic() + 120
    while (found := condition()) != value:
        assert time.monotonic() < deadline, f"{what}: {found} instead of {value}"
    return found


def between(net, there, back, what=""):
    """What passes from the machine to the namespace, and the other way: all of it or nothing."""
    for a, b, passes in (("vm", "box", there), ("box", "vm", back)):
        becomes(lambda: passing(net, a, b), EVERYTHING if passes else set(), f"{what}: {a} to {b}")


def taps(world):
    return [line.split(": ")[1] for line in world.run("host", "ip", "-o", "link", "show", "type", "tun").stdout.splitlines()]


# what a machine has


def test_inside_is_as_in_a_namespace(net, vm, box):
    for command in (["cat", "/etc/resolv.conf"], ["sh", "-c", "cat /etc/hosts | grep -v 127.0.1.1"], ["ip", "route"],
                    ["cat", "/sys/class/net/eth0/mtu"]):
        there, here = (inside(net, name, *command).stdout.replace(addresses(net, name)[0], "OWN") for name in ("vm", "box"))
        assert there == here
    for name in ("vm", "box"):
        shown = net.workspace(name)["interfaces"][0]
        assert "default via fe80::1 dev eth0" in inside(net, name, "ip", "-6", "route").stdout
        told = inside(net, name, "ip", "address", "show", "dev", "eth0").stdout
        assert f"inet {shown['ipv4']} " in told and f"inet6 {addresses(net, name)[1]}/128 " in told and shown["mac"] in told
        assert inside(net, name, "hostname").stdout == f"{name}\n"
    # given: no device manager renames it
    assert inside(net, "vm", "cat", "/sys/class/net/eth0/name_assign_type").stdout == "4\n"


DNS = """
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    q, a = s.recvfrom(4096)
    end = q.index(b"\\0", 12) + 5
    four = q[end - 4:end - 2] == b"\\0\\1"
    head = q[:2] + b"\\x81\\x80" + b"\\0\\1" + (b"\\0\\1" if four else b"\\0\\0") + b"\\0\\0\\0\\0" + q[12:end]
    s.sendto(head + (b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + socket.inet_aton(sys.argv[1]) if four else b""), a)
"""


def test_names_and_the_world(net, world, vm, box):
    """What `apt-get update` needs: a name of the WAN, by the site's resolver, and a server there."""
    resolver = world.popen("wan", "python3", "-c", DNS, world.WAN, stdout=subprocess.PIPE)
    assert resolver.stdout.readline() == b"ready\n"
    world.serve("wan", 8091)
    becomes(lambda: inside(net, "vm", "nslookup", "deb.example.org", ok=None).stdout.count(f"Address: {world.WAN}\n"), 1)
    # static programs do not resolve
    assert inside(net, "vm", "probe", "ask", "tcp", "5000", world.WAN, "8091").stdout == world.HOST + "\n"
    change(net, "vm", allow=["workspace:box", "wan"])
    becomes(lambda: addresses(net, "box")[0] in inside(net, "vm", "nslookup", "box.default.carrel", ok=None).stdout, True)
    becomes(lambda: addresses(net, "vm")[0] in inside(net, "box", "nslookup", "vm.default.carrel", ok=None).stdout, True)


def test_metadata(net, vm):
    assert inside(net, "vm", "wget", "-q", "-O", "-", "http://169.254.169.254/latest/meta-data/instance-id").stdout == vm["id"]


def test_dhcp_gives_what_is_there_already(net, vm, box):
    """From inside both, by a real client."""
    for name in ("vm", "box"):
        done = inside(net, name, "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "8", "-s", "/bin/true", ok=None)
        assert f"lease of {addresses(net, name)[0]} obtained" in done.stdout + done.stderr, done


# the language, word by word


def test_default(net, world, vm, box):
    """Out to the WAN, behind the host's address; not to the site, the host or neighbours; nothing comes in."""
    for port, udp in ((8101, False), (8101, True)):
        for space in ("wan", "lan", "host"):
            world.serve(space, port, udp)
    becomes(lambda: passing(net, "vm", (world.WAN, world.WAN6), 8101), EVERYTHING)
    for kind in ("tcp", "udp"):
        assert inside(net, "vm", "probe", "ask", kind, "3000", world.WAN, "8101").stdout == world.HOST + "\n"
    assert passing(net, "vm", (world.LAN, world.LAN6), 8101) == set()
    assert passing(net, "vm", (world.HOST, world.HOST6), 8101) == set()
    assert passing(net, "vm", ("10.88.1.1", "fd00:88:0:1::1"), 8101) <= {"icmp4", "icmp6"}  # the gateway itself answers
    between(net, False, False)
    four = addresses(net, "vm")[0]
    for space, gateway in (("wan", world.HOST), ("lan", "192.168.77.1")):
        world.run(space, "ip", "route", "replace", FOUR, "via", gateway)
        done = world.run(space, "bash", "-c", f"exec timeout 2 bash -c 'exec 3<>/dev/tcp/{four}/80; head -n1 <&3'", ok=None)
        assert done.stdout == "", space


@pytest.mark.parametrize("machine, namespace, there, back", [
    ({"allow": ["workspace:box"]}, {}, True, False),
    ({"allow": ["group:lab"]}, {"groups": ["lab"]}, True, False),
    ({"allow": [FOUR, SIX]}, {"allow": ["workspace:vm"]}, True, True),
    ({"allow": ["any"]}, {"from": ["none"]}, False, False),
    ({"allow": ["any"], "deny": ["workspace:box"]}, {"allow": ["any"]}, False, False),
    ({"from": ["workspace:box"]}, {}, False, True),
    ({"from": ["group:ops"]}, {"groups": ["ops"], "from": ["workspace:vm"]}, True, True),
    ({"allow": ["any"], "isolated": True}, {"allow": ["any"], "from": ["any"]}, False, False),
    ({"allow": ["any"], "from": ["any"]}, {"isolated": True}, False, False),
    ({"allow": ["network:default"]}, {"allow": ["none"]}, True, False),
])
def test_words(net, vm, box, machine, namespace, there, back):
    change(net, "vm", **machine)
    change(net, "box", **namespace)
    between(net, there, back, f"vm {machine}, box {namespace}")


def test_services(net, vm, box):
    change(net, "vm", allow=["workspace:box tcp/80 icmp"])
    change(net, "box", allow=[f"workspace:vm udp/{PORT}"])
    becomes(lambda: passing(net, "vm", "box", 80), {"tcp4", "tcp6", "icmp4", "icmp6"})
    becomes(lambda: passing(net, "vm", "box", PORT), {"icmp4", "icmp6"})
    becomes(lambda: passing(net, "box", "vm", PORT), {"udp4", "udp6"})
    assert passing(net, "box", "vm", 80) == set()


def test_fragments(net, vm, box):
    """Datagrams larger than a packet, both families: all of their pieces or none."""
    def large(a, b):
        return {to for to in addresses(net, b) if inside(net, a, "busybox", "ping", "-c", "1", "-W", "2", "-s", "4000", to,
                                                         ok=None).returncode == 0}
    change(net, "vm", allow=["workspace:box icmp"])
    becomes(lambda: large("vm", "box"), set(addresses(net, "box")))
    assert large("box", "vm") == set()
    change(net, "vm", allow=["workspace:box tcp"])
    becomes(lambda: large("vm", "box"), set())


def test_published_and_hairpin(net, world, vm, box):
    change(net, "vm", publish=["8110:80", f"8111:{PORT}/udp"])
    script = "exec timeout 5 bash -c 'exec 3<>/dev/tcp/{}/8110; head -n1 <&3'"
    for place, to in (("wan", world.HOST), ("lan", "192.168.77.1"), ("wan", world.HOST6), ("lan", "fd77::1"),
                      ("host", "127.0.0.1")):
        becomes(lambda: world.run(place, "bash", "-c", script.format(to), ok=None).stdout != "", True, f"{place} to {to}")
    for name in ("box", "vm"):  # by the host's address, from a neighbour and from itself
        for to in (world.HOST, world.HOST6):
            for kind, port in (("tcp", "8110"), ("udp", "8111")):
                becomes(lambda: inside(net, name, "probe", "ask", kind, "3000", to, port, ok=None).stdout != "", True,
                        f"{name} to {to} by {kind}")
    assert passing(net, "box", "vm", 80) == set()  # its own address is not published


@contextlib.contextmanager
def held(net, name, to):
    """A connection from inside `name`; the caller asks whether it works."""
    child = net.popen("exec", "-i", name, "--", "probe", "hold", to, str(PORT), text=True, bufsize=1)
    try:
        assert child.stdout.readline() == "held\n", child.stderr.read()

        def works():
            child.stdin.write("?\n")
            child.stdin.flush()
            return child.stdout.readline().strip()
        yield works
    finally:
        child.kill()
        child.wait()


def test_established_connections_follow_the_rules(net, vm, box):
    """Those that are still allowed go on through any change; those that are not end."""
    change(net, "vm", allow=["group:lab"])
    change(net, "box", groups=["lab"], **{"from": ["workspace:vm"]})
    becomes(lambda: passing(net, "vm", "box"), EVERYTHING)
    four, six = addresses(net, "box")
    with held(net, "vm", four) as a, held(net, "vm", six) as b:
        assert (a(), b()) == ("yes", "yes")
        change(net, "vm", allow=[f"group:lab tcp/{PORT}", "wan"])
        becomes(lambda: passing(net, "vm", "box"), {"tcp4", "tcp6"})
        assert (a(), b()) == ("yes", "yes")
        change(net, "box", groups=[], **{"from": ["workspace:vm"]})
        becomes(lambda: passing(net, "vm", "box"), set())
        assert (a(), b()) == ("no", "no")
    change(net, "box", allow=["workspace:vm"])
    becomes(lambda: passing(net, "box", "vm"), EVERYTHING)
    with held(net, "box", addresses(net, "vm")[0]) as c:
        assert c() == "yes"
        change(net, "vm", isolated=True)
        becomes(lambda: passing(net, "box", "vm"), set())
        assert c() == "no"


def test_rates_are_kept_both_ways(net, world, vm):
    world.serve("wan", 8121)

    def seconds():
        start = time.monotonic()
        done = inside(net, "vm", "sh", "-c",
                      f"dd if=/dev/zero bs=64k count=16 2>/dev/null | timeout 30 nc -w 3 {world.WAN} 8121 | head -c 1048000 | "
                      f"wc -c")
        assert done.stdout.strip() == "1048000"
        return time.monotonic() - start
    free = seconds()
    for rates in ({"in-most": "4M"}, {"out-most": "4M"}):
        net.api("PATCH", "/v1/workspaces/vm", {"networks": [{"network": "default", "rates": rates}]})
        becomes(lambda: seconds() > 1.6, True, f"{rates}, without them {free:.2f} s")  # 1 MiB at 4 Mbit/s takes 2 s
    net.api("PATCH", "/v1/workspaces/vm", {"networks": [{"network": "default"}]})


# what must not arrive


def link_local(address):
    """By the hardware address, as the machine's kernel makes it."""
    b = bytearray(mac(address))
    b[0] ^= 2
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + bytes(b[:3]) + b"\xff\xfe" + bytes(b[3:])))


def listen(pid, device):
    """A socket that sees what arrives at a device of a process's network namespace."""
    back = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    from filter_world import libc
    try:
        assert libc.setns(there, 0x40000000) == 0
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        ear.bind((device, 3))
        ear.setblocking(False)
    finally:
        libc.setns(back, 0x40000000)
        os.close(there)
        os.close(back)
    return ear


def heard(ear):
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(ear.recvfrom(8192))
    return [frame for frame, where in got if where[2] != 4]  # not what was sent from there (PACKET_OUTGOING)


def send_frames(net, frames):
    done = net.carrel("exec", "-i", "vm", "--", "probe", "frames", "eth0", input="".join(f.hex() + "\n" for f in frames))
    assert done.stdout == "done\n"


def test_not_one_spoofed_frame_arrives(net, world, vm, box):
    """From inside the machine, raw: neither at a neighbour who takes anything, nor at the host's bridge, nor at its WAN and LAN."""
    change(net, "vm", allow=["any"])
    change(net, "box", **{"from": ["any"]})
    becomes(lambda: passing(net, "vm", "box"), EVERYTHING)
    bridge = next(line.split(": ")[1].split("@")[0] for line in world.run("host", "ip", "-o", "link").stdout.splitlines()
                  if ": crn" in line)
    gateway = world.run("host", "ip", "-o", "link", "show", "dev", bridge).stdout.split("link/ether ")[1].split()[0]
    a, b = (types.SimpleNamespace(mac=net.workspace(n)["interfaces"][0]["mac"], ipv4=addresses(net, n)[0],
                                  ipv6=addresses(net, n)[1], attachments=[{"number": 0}]) for n in ("vm", "box"))
    ears = [listen(box["pid"], "eth0"), listen(world.spaces["host"], bridge), listen(world.spaces["wan"], "eth0"),
            listen(world.spaces["lan"], "eth0")]
    bad = []
    for name, frame, _ in spoofed(a, b, gateway, link_local(a.mac)):
        frame += b"\0" * max(0, 60 - len(frame)) if frame[12:14] != b"\x86\xdd" else b""
        bad.append((name, frame))
    good = mac(gateway) + mac(a.mac) + b"\x08\x00" + ipv4_packet(a.ipv4, b.ipv4, 17,
                                                                 struct.pack("!HHHH", 4001, 4001, 20, 0) + b"last of all!")
    flood = [mac(gateway) + bytes([2, 1]) + struct.pack("!I", n) + b"\x08\x00" + ipv4_packet(a.ipv4, "10.88.1.1")
             for n in range(500)]
    for ear in ears:
        heard(ear)
    send_frames(net, [frame for _, frame in bad] + flood + [good])
    arrived = [[] for _ in ears]

    def listened():
        for at, ear in enumerate(ears):
            arrived[at] += heard(ear)
        return any(b"last of all!" in frame for frame in arrived[0])
    becomes(listened, True, "the frame that is allowed")  # frames keep their order: all of them have been judged
    listened()
    for place, frames in zip(("the neighbour", "the bridge", "the WAN", "the LAN"), arrived):
        for name, frame in bad:
            assert not [f for f in frames if f[6:] == frame[6:] or frame[14:] in f], f"{name} arrived at {place}"
        assert not [f for f in frames if f[6:8] == b"\2\1"], f"the flood arrived at {place}"
    learned = world.run("host", "bridge", "fdb", "show", "br", bridge).stdout
    assert "02:01:" not in learned
    why = ("spoofed MAC address", "spoofed IPv6 address", "spoofed ARP", "router advertisement or redirect", "DHCP server")
    becomes(lambda: [w for w in why if w not in json.dumps(net.json("why", "vm"))], [], "what was dropped, told")
    for ear in ears:
        ear.close()


# interfaces come and go


def test_interfaces_come_and_go_while_it_runs(net, world, vm, box):
    """Plugged in and out, twice in the same place; a paused machine has it when it goes on; a restart keeps all."""
    assert len(taps(world)) == 1
    for _ in range(2):
        net.carrel("connect", "vm", "side")
        assert "10.89.0." in inside(net, "vm", "ip", "address", "show", "dev", "eth1").stdout
        assert len(taps(world)) == 2
        net.carrel("disconnect", "vm", "side")
        assert len(taps(world)) == 1
        becomes(lambda: "eth1" in inside(net, "vm", "ip", "address").stdout, False)
    net.carrel("pause", "vm")
    net.wait_state("vm", "paused")
    net.carrel("connect", "vm", "side")
    net.carrel("resume", "vm")
    net.wait_state("vm", "running")
    becomes(lambda: "10.89.0." in inside(net, "vm", "ip", "address").stdout, True)
    with workspace(net, "server", SERVE, networks=[{"network": "side"}]):
        for name in ("vm", "box"):  # a second interface reaches all of its network, by both families
            if name == "box":
                net.carrel("connect", "box", "side")
            net.carrel("allow", name, "workspace:server")
            becomes(lambda: passing(net, name, "server"), EVERYTHING)
        net.carrel("disconnect", "box", "side")
        before = net.workspace("vm")["interfaces"], inside(net, "vm", "ls", "-l", "/sys/class/net").stdout.count("0000:01:02.0")
        net.carrel("restart", "vm")
        net.wait_state("vm", "running")
        assert net.workspace("vm")["interfaces"] == before[0] and before[1] == 1
        assert "0000:01:02.0" in inside(net, "vm", "ls", "-l", "/sys/class/net").stdout  # where it was plugged in
        becomes(lambda: passing(net, "vm", "server"), EVERYTHING)
        assert inside(net, "vm", "ip", "route").stdout.startswith("default via 10.88.1.1")
        net.carrel("disconnect", "vm", "side")
        becomes(lambda: passing(net, "vm", "server"), set())
    becomes(lambda: "eth1" in inside(net, "vm", "ip", "address").stdout, False)


def test_addresses_stay_over_engines(net, world):
    """From namespaces into a machine and back: the same addresses and hardware addresses on both networks, inside and in the rules."""
    world.serve("wan", 8151)
    world.serve("wan", 8151, udp=True)
    with workspace(net, "mover", SERVE, networks=[{"network": "default"}, {"network": "side"}]) as shown:
        before = shown["interfaces"]
        for engine in ("emulator", "workspace"):
            net.carrel("move", "mover", "--engine", engine, timeout=180)
            net.wait_state("mover", "running")
            assert net.workspace("mover")["interfaces"] == before
            for one in before:
                told = inside(net, "mover", "ip", "address", "show", "dev", one["device"]).stdout
                assert one["mac"] in told and f"inet {one['ipv4']} " in told and one["ipv6"].split("/")[0] + "/128" in told
            becomes(lambda: passing(net, "mover", (world.WAN, world.WAN6), 8151), EVERYTHING, engine)
            assert (before[0]["port"] in taps(world)) == (engine == "emulator")


def test_a_port_deleted_by_hand_comes_back(net, world, vm):
    world.serve("wan", 8131)
    before = taps(world)
    world.run("host", "ip", "link", "delete", "dev", before[0])
    net.carrel("allow", "vm", "any")
    becomes(lambda: passing(net, "vm", (world.WAN,), 8131) >= {"tcp4", "icmp4"}, True)
    assert taps(world) == before


def test_a_bridge_deleted_by_hand_gets_its_taps_back(net, world, vm, box):
    """And the machine does not notice: its connection goes on."""
    change(net, "vm", allow=["workspace:box"])
    becomes(lambda: passing(net, "vm", "box"), EVERYTHING)
    before = inside(net, "vm", "ls", "-l", "/sys/class/net/eth0").stdout
    with held(net, "vm", addresses(net, "box")[0]) as works:
        assert works() == "yes"
        for line in world.run("host", "ip", "-o", "link", "show", "type", "bridge").stdout.splitlines():
            if ": crn" in line:
                world.run("host", "ip", "link", "delete", "dev", line.split(": ")[1])
        becomes(lambda: passing(net, "vm", "box"), EVERYTHING, "after the bridge came back")
        assert works() == "yes" and inside(net, "vm", "ls", "-l", "/sys/class/net/eth0").stdout == before
    assert "isolated on" in world.run("host", "ip", "-d", "link", "show", "dev", taps(world)[0]).stdout


def test_on_a_bridge_of_the_site(net, world):
    """The machine is beside the site's own; rules hold where frames pass; the bridge keeps its address and packet size."""
    desk, desk6 = "192.168.81.9", "fd81::9"
    world.run("host", "ip", "link", "add", "dev", "site1", "type", "bridge", "forward_delay", "0")
    world.run("host", "ip", "link", "set", "site1", "up")
    world.run("host", "ip", "link", "add", "desk1", "type", "veth", "peer", "name", "desk1", "netns", str(world.spaces["lan"]))
    world.run("host", "ip", "link", "set", "desk1", "master", "site1", "up")
    world.run("lan", "ip", "link", "set", "desk1", "up")
    world.run("lan", "ip", "address", "add", desk + "/24", "dev", "desk1")
    world.run("lan", "ip", "-6", "address", "add", desk6 + "/64", "dev", "desk1", "nodad")

    def bridge():
        one = json.loads(world.run("host", "ip", "-j", "link", "show", "dev", "site1").stdout)[0]
        return one["address"], one["mtu"]
    before = bridge()
    try:
        make_network(net, "office", kind="bridge", bridge="site1", ipv4="192.168.81.0/24", ipv6="fd81::/64", reserved=[desk],
                     mtu=1400)
        for udp in (False, True):
            world.serve("lan", 8161, udp)
        with workspace(net, "clerk", SERVE, engine="emulator", networks=[{"network": "office"}]) as shown:
            assert shown["interfaces"][0]["port"] in taps(world) and bridge() == before
            assert passing(net, "clerk", (desk, desk6), 8161) == set()
            net.carrel("allow", "clerk", "site")
            becomes(lambda: passing(net, "clerk", (desk, desk6), 8161), EVERYTHING, "allowed to the site")
            call = ["bash", "-c", f"exec timeout 2 bash -c 'exec 3<>/dev/tcp/{addresses(net, 'clerk')[0]}/80; head -n1 <&3'"]
            assert world.run("lan", *call, ok=None).stdout == ""
            net.carrel("allow", "--from", "clerk", f"{desk} tcp/80")
            becomes(lambda: world.run("lan", *call, ok=None).stdout, desk + "\n", "allowed from the desk")
        assert bridge() == before
        net.carrel("network", "rm", "office")
    finally:
        world.run("host", "ip", "link", "delete", "dev", "site1", ok=None)
        world.run("host", "ip", "link", "delete", "dev", "desk1", ok=None)


# what is left when something dies


def rules(world, port):
    return world.run("host", "sh", "-c", "nft list ruleset").stdout.count(port)


def clean(net, world, name, port):
    becomes(lambda: (port in taps(world), rules(world, port)), (False, 0), f"what {name} leaves")


def test_the_agent_dies(net, world, vm):
    world.serve("wan", 8141)
    net.node.kill()
    assert len(taps(world)) == 1
    net.node.start()
    net.wait(lambda: net.api("GET", "/v1/hosts")[1]["items"][0]["connected"], what="the host")
    becomes(lambda: passing(net, "vm", (world.WAN,), 8141) >= {"tcp4", "icmp4"}, True)
    net.carrel("connect", "vm", "side")
    assert "10.89.0." in inside(net, "vm", "ip", "address", "show", "dev", "eth1").stdout
    net.carrel("disconnect", "vm", "side")


@pytest.mark.parametrize("victim", ["qemu", "runner"])
def test_a_machine_dies(net, world, victim):
    with workspace(net, "mortal", SERVE, engine="emulator", networks=[{"network": "default"}, {"network": "side"}]) as shown:
        ports = [i["port"] for i in shown["interfaces"]]
        assert all(port in taps(world) for port in ports)
        pid = shown["pid"]
        if victim == "runner":
            pid = json.loads((net.run / "node/workspaces" / shown["id"] / "status").read_text())["runner_pid"]
        os.kill(pid, signal.SIGKILL)
        net.wait_state("mortal", "stopped", "failed")
        for port in ports:
            clean(net, world, victim, port)


@pytest.mark.parametrize("fault", ["runner.taps kill", "runner.taps ENOSPC", "network-end kill", "launch-end kill"])
def test_a_start_dies_half_way(net, world, fault):
    """The runner's death, its failure, the agent's death: what was made goes, and the workspace can start afterwards."""
    before = taps(world)
    arm(net, fault)
    body = {"spec": {"name": "half", "image": "busybox", "command": list(SERVE), "engine": "emulator",
                     "resources": {"disk": "32M"}}}
    assert net.api("POST", "/v1/workspaces", body)[0] == 201
    found = net.wait(lambda: settled(net, "half"), what="a settled workspace")
    port = found["interfaces"][0]["port"]
    if found["state"] != "running":
        clean(net, world, fault, port)
        net.carrel("start", "half")
        net.wait_state("half", "running")
    assert port in taps(world)
    net.carrel("rm", "-f", "half")
    clean(net, world, fault, port)
    assert taps(world) == before


def test_a_runner_that_dies_while_it_plugs(net, world):
    with workspace(net, "plugged", SERVE, engine="emulator") as shown:
        arm(net, "runner.plug kill")
        net.carrel("connect", "plugged", "side", ok=None)
        found = net.wait_state("plugged", "stopped", "failed")
        for one in found["interfaces"]:
            clean(net, world, "a runner that plugs", one["port"])
        net.carrel("start", "plugged")
        net.wait_state("plugged", "running")
        becomes(lambda: "10.89.0." in inside(net, "plugged", "ip", "address").stdout, True)
        assert shown["interfaces"][0]["ipv4"] == net.workspace("plugged")["interfaces"][0]["ipv4"]


def arm(net, line):
    if b"runner.plug" not in (net.prefix / "libexec/carrel/carrel-run").read_bytes():
        pytest.skip("fault points are not compiled in (-Dfaults=true)")
    net.plan.write_text(line + "\n")


def settled(net, name):
    if not net.node.running():
        net.node.start()
    if not net.plan.read_text().startswith("#"):  # it has not struck yet
        return None
    found = net.workspace(name)
    return found if found and found["state"] in ("running", "stopped", "failed") and not found.get("operation") else None
