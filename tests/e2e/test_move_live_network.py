# SPDX-License-Identifier: Apache-2.0
"""
A workspace with a network changes its engine while it runs: its address stays, connections that are open - from it through the host's address
translation, and to it at a published port - go on in both directions without losing a byte, and new ones are made.
"""
import shutil
import subprocess
import sys

import pytest

import conftest
from guest_tools import kernel_package
from network_tools import eventually

LONG = 240
# What comes back of what goes out: a byte lost on either way is a tick lost.
PROGRAM = r"""
while true; do nc -ll -p 7001 -e cat; done &
(i=0; while true; do i=$((i+1)); echo tick $i; usleep 200000; done) | nc WAN 7777
echo the connection ended
"""
# Says how many of its own words it has got back.
CLIENT = r"""
import socket, sys, time
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)
s.settimeout(600)
f = s.makefile("rw")
n = 0
while True:
    n += 1
    f.write(f"word {n}\n"); f.flush()
    answer = f.readline()
    if answer != f"word {n}\n":
        print("lost", repr(answer), flush=True); break
    print(n, flush=True)
    time.sleep(0.2)
"""


@pytest.fixture
def site(prefix, criu, busybox_tar, world):
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86 is not installed")
    package = kernel_package()
    if not package:
        pytest.skip("apt-get download of a cloud kernel does not work here")
    site = conftest.Site(prefix, world=world, env={"CARREL_CRIU": criu})
    conftest.import_image(site, "busybox", busybox_tar)
    conftest.give_kernel(site, package)
    yield site
    problems = site.close()
    assert not problems, "\n".join(problems)


def ticks(site):
    lines = site.carrel("logs", "t").stdout.splitlines()
    assert "the connection ended" not in lines, lines[-5:]
    return [int(line.split()[1]) for line in lines if line.startswith("tick ")]


def test_connections_go_on(site, world, tmp_path):
    world.serve("wan", 7777)
    site.carrel("network", "create", "net", "--ipv4", "10.91.7.0/24")
    heard = tmp_path / "heard"
    site.carrel("run", "-d", "--travels", "--network", "net", "--publish", "7001:7001", "--name", "t", "busybox", "--", "sh",
                "-c", PROGRAM.replace("WAN", world.WAN))
    addresses = site.workspace("t")["interfaces"]
    eventually(lambda: len(ticks(site)) > 3)
    with open(heard, "w") as out:
        client = subprocess.Popen([*world.enter("wan"), sys.executable, "-c", CLIENT, world.HOST, "7001"], stdout=out,
                                  stderr=subprocess.STDOUT)
    try:
        for engine in ("emulator", "workspace"):
            eventually(lambda: heard.read_text().count("\n") > 3)
            if engine == "emulator":
                notes = site.json("move", "t", "--live", "--check", "--engine", engine)["notes"]
                assert any(f"to {world.WAN}:7777" in note for note in notes) and any(":7001 to" in note
                                                                                     for note in notes), notes
            site.carrel("move", "t", "--live", "--engine", engine, timeout=LONG)
            before, words = len(ticks(site)), heard.read_text().count("\n")
            eventually(lambda: len(ticks(site)) > before + 3, LONG, f"that more ticks come back in {engine}")
            seen = ticks(site)
            assert seen == list(range(1, len(seen) + 1))
            eventually(lambda: heard.read_text().count("\n") > words + 3, LONG, f"that the published port goes on in {engine}")
            assert client.poll() is None and "lost" not in heard.read_text(), heard.read_text()[-300:]
            assert site.workspace("t")["interfaces"] == addresses
            site.carrel("exec", "t", "--", "sh", "-c", f"echo new | nc -w 5 {world.WAN} 7777 | grep -q 198.51.100",
                        timeout=LONG)
    finally:
        client.kill()
        client.wait()
    site.carrel("rm", "-f", "t")
