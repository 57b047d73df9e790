# SPDX-License-Identifier: Apache-2.0
"""
A small internet for tests, made of network namespaces: nothing here touches the machine's own network.

    wan 198.51.100.1, 2001:db8:100::1  ----  host (.2, ::2; carrel-node runs here)  ----  lan 192.168.77.9, fd77::9

  world.run("wan", "ping", "-c1", ADDRESS)      a program in one of them; keywords as subprocess.run; text is captured
  world.popen("lan", ...)                       the same, ended with the world
  world.serve("wan", 80, udp=False)             a server that answers each connection or datagram with the caller's address
  world.enter("host")                           the words to put before a command line
  eventually(lambda: condition)                 looks again and again, returns what is true, and fails after two minutes
  PATIENCE                                      1; more where a case is tried once more ($CARREL_TEST_PATIENCE): times that are part of a test,
                                                as how long a lease holds, are multiplied with it
"""
import contextlib
import os
import signal
import subprocess
import sys
import time

ECHO = """
import contextlib, socket, sys, threading
port, udp, six = int(sys.argv[1]), sys.argv[2] == "udp", socket.AF_INET6
s = socket.socket(six, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("::", port))
def plain(a): return a[7:] if a.startswith("::ffff:") else a
def talk(c, a):
    with c, contextlib.suppress(OSError):
        c.sendall(plain(a[0]).encode() + b"\\n")
        while (data := c.recv(4096)):
            c.sendall(data)
if not udp: s.listen(64)
print("ready", flush=True)
while True:
    if udp:
        data, a = s.recvfrom(65536)
        s.sendto(plain(a[0]).encode() + b"\\n", a)
    else:
        threading.Thread(target=talk, args=s.accept(), daemon=True).start()
"""


PATIENCE = float(os.environ.get("CARREL_TEST_PATIENCE", "1"))


def eventually(condition, seconds=120, what="the condition"):
    deadline = time.monotonic() + seconds * PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds * PATIENCE:.0f} s: {value!r}"
        time.sleep(0.05)
    return value


class World:
    WAN, HOST, LAN = "198.51.100.1", "198.51.100.2", "192.168.77.9"
    WAN6, HOST6, LAN6 = "2001:db8:100::1", "2001:db8:100::2", "fd77::9"

    def __init__(self):
        self.children, self.spaces = [], {}
        try:
            for name in ("host", "wan", "lan"):
                holder = subprocess.Popen(["unshare", "-n", "sh", "-c", "echo up; exec sleep infinity"], stdout=subprocess.PIPE)
                self.children.append(holder)
                holder.stdout.readline()
                self.spaces[name] = holder.pid
                self.run(name, "ip", "link", "set", "lo", "up")
                for setting in ("accept_dad", "dad_transmits"):
                    self.sysctl(name, f"net/ipv6/conf/default/{setting}", 0)
            self._cable("up0", "wan", "198.51.100.2/24", "198.51.100.1/24", "2001:db8:100::2/64", "2001:db8:100::1/64")
            self._cable("lan0", "lan", "192.168.77.1/24", "192.168.77.9/24", "fd77::1/64", "fd77::9/64")
            self.run("host", "ip", "route", "add", "default", "via", self.WAN)
            self.run("host", "ip", "-6", "route", "add", "default", "via", self.WAN6)
            self.run("lan", "ip", "route", "add", "default", "via", "192.168.77.1")
            self.run("lan", "ip", "-6", "route", "add", "default", "via", "fd77::1")
            self.run("wan", "ip", "route", "add", "10.0.0.0/8", "via", self.HOST)  # routed networks
        except BaseException:
            self.close()
            raise

    def _cable(self, device, other, here, there, here6, there6):
        self.run("host", "ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", str(self.spaces[other]))
        for space, name, address, address6 in (("host", device, here, here6), (other, "eth0", there, there6)):
            self.run(space, "ip", "address", "add", address, "dev", name)
            self.run(space, "ip", "-6", "address", "add", address6, "dev", name, "nodad")
            self.run(space, "ip", "link", "set", name, "up")

    def sysctl(self, space, path, value):
        self.run(space, "sh", "-c", f"echo {value} > /proc/sys/{path}")

    def enter(self, space):
        return ["nsenter", f"--net=/proc/{self.spaces[space]}/ns/net", "--"]

    def run(self, space, *words, ok=(0,), timeout=60, **how):
        how.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run([*self.enter(space), *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=timeout, **how)
        if ok is not None and done.returncode not in ok:
            raise AssertionError(f"{space}: {' '.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def popen(self, space, *words, **how):
        child = subprocess.Popen([*self.enter(space), *map(str, words)], start_new_session=True, **how)
        self.children.append(child)
        return child

    def serve(self, space, port, udp=False):
        child = self.popen(space, sys.executable, "-c", ECHO, port, "udp" if udp else "tcp", stdout=subprocess.PIPE)
        assert child.stdout.readline() == b"ready\n"
        return child

    def close(self):
        for child in reversed(self.children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            child.wait()
            if child.stdout:
                child.stdout.close()
