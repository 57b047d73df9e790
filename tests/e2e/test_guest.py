# SPDX-License-Identifier: Apache-2.0
"""carrel-init in a real machine (QEMU's emulator), spoken to over its channel without anything else of carrel."""
import io
import os
import pathlib
import secrets
import shutil
import struct
import subprocess
import tarfile
import time

import pytest

from guest_tools import (CONFIGURE, COPY_IN, COPY_OUT, DATA, ENDED, EXEC, FAILED, FREEZE, GROW, IDENTITY, PING, PROGRAM,
                         RUNNING,
                         SHUTDOWN, SIGNAL, STEPS, SYSTEM, THAW, VOLUME, Machine, error, field, kernel_files, number, plan)

BUILD = pathlib.Path(os.environ.get("CARREL_BUILD_ROOT", pathlib.Path(__file__).parents[2] / "build"))
APPLETS = ("sh cat echo sleep id hostname dd mkdir ls stat tty kill true false sync date mount df head wc tr grep modprobe "
           "cut uname".split())

pytestmark = pytest.mark.skipif(not shutil.which("qemu-system-x86_64") or not shutil.which("mkfs.erofs"),
                                reason="needs qemu-system-x86_64 and mkfs.erofs")


def volume(path, folders, size="64M"):
    with open(path, "wb"):
        os.truncate(path, int(size[:-1]) << 20)
    source = path.with_suffix(".d")
    for folder in folders:
        (source / folder).mkdir(parents=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", source, path], check=True)
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guest")
    made = kernel_files(folder, BUILD)
    if isinstance(made, str):
        pytest.skip(made)
    root = folder / "root"
    for name in ("bin", "etc", "tmp", "root", "usr/lib"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    (root / "sbin").mkdir()
    (root / "lib").symlink_to("usr/lib")
    (root / "sbin/modprobe").symlink_to("../bin/busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")
    (root / "etc/inittab").write_text("::sysinit:/bin/sh -c 'echo by init > /etc/started; sync'\n::respawn:/bin/sleep 1000\n")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nreader:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nreader:x:1000:\n")
    subprocess.run(["mkfs.erofs", "-T0", "--all-root", folder / "base.erofs", root], check=True, capture_output=True)
    top = folder / "top"
    (top / "etc").mkdir(parents=True)
    (top / "etc/layer").write_text("upper\n")
    subprocess.run(["mkfs.erofs", "-T0", "--all-root", folder / "top.erofs", top], check=True, capture_output=True)
    return folder, *made


@pytest.fixture
def start(parts, tmp_path):
    folder, kernel, initramfs = parts
    machines = []

    def begin(argv, volumes=(), config=b"", root=None, **how):
        root = root or volume(tmp_path / f"root-{secrets.token_hex(4)}.ext4", ("upper", "work"))
        disks = [("p0", folder / "base.erofs", True), ("p1", folder / "top.erofs", True), ("root", root, False)]
        disks += [(serial, path, False) for _, serial, path in volumes] + [("kernel", folder / "kernel.erofs", True)]
        machine = Machine(tmp_path, kernel, initramfs, disks)
        machines.append(machine)
        channel = machine.channel()
        steps = STEPS + tuple((VOLUME, 0, name, f"/{name}", "") for name, _, _ in volumes)
        message = field(1, "p0") + field(1, "p1") + field(2, "root") + field(5,
                                                                             plan(argv, steps, volumes=[v[0] for v in volumes],
                                                                                  **how))
        message += b"".join(field(3, field(1, name) + field(2, serial)) for name, serial, _ in volumes)
        message += field(6, os.urandom(64)) + field(7, time.time_ns()) + field(9, "kernel") + config
        channel.send(CONFIGURE, channel.take(), message)
        return machine, channel, root

    yield begin
    for machine in machines:
        machine.kill()


def clean(path):
    """A volume that was unmounted has nothing in its journal and no error."""
    said = subprocess.run(["dumpe2fs", "-h", path], capture_output=True, text=True).stdout
    assert "needs_recovery" not in said
    assert subprocess.run(["e2fsck", "-fn", path], capture_output=True).returncode == 0


def test_program(start):
    """Output and exit status of a program come out, the layers are stacked, and the machine goes off with its volumes unmounted."""
    machine, channel, root = start(["sh", "-c",
                                    "cat /etc/layer /etc/hostname; hostname; date +%Y; echo written > /root/file; echo oops "
                                    ">&2; exit 7"])
    program = channel.open(PROGRAM)
    status, out, err, failure = channel.end(program)
    assert (status, err, failure) == (7, b"oops\n", None)
    assert out.decode().split() == ["upper", "guest", "guest", time.strftime("%Y", time.gmtime())]
    found = channel.state(ENDED)
    assert number(found, 2) == 7
    assert "in use" not in machine.ended()
    clean(root)
    listed = subprocess.run(["debugfs", "-R", "cat /upper/root/file", root], capture_output=True, text=True).stdout
    assert listed == "written\n"


def test_life(start, tmp_path):
    """Everything that is asked of a machine while it runs; a volume; stop by its signal."""
    data = volume(tmp_path / "data.ext4", ("data",))
    machine, channel, root = start(["sh", "-c", "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.1; done"],
                                   volumes=[("data", "v1", data)])
    program = channel.open(PROGRAM)
    channel.state(RUNNING)
    channel.until(lambda k, w, p: k == DATA and b"ready" in channel.data.get(program, {}).get(1, b""))
    assert channel.request(PING) is None

    # exec: arguments, environment, user, status, terminal, signals, what is not there
    assert channel.run("sh", "-c", "echo $A $(id -u); exit 4", environment=["A=b"]) == (4, b"b 0\n", b"", None)
    assert channel.run("id", "-u", user="reader")[:2] == (0, b"1000\n")
    status, out, _, _ = channel.run("sh", "-c", "tty; stty size 2>/dev/null; true", terminal=True)
    assert status == 0 and out.startswith(b"/dev/pts/")
    assert channel.run("nothing-here")[3][0] == "not-found"
    asleep = channel.open(EXEC, ["sleep", "1000"])
    channel.send(SIGNAL, asleep, struct.pack("<I", 15))
    assert channel.end(asleep)[0] == 143

    # more output and input than credit
    assert len(channel.run("dd", "if=/dev/zero", "bs=65536", "count=40")[1]) == 40 * 65536
    counting = channel.open(EXEC, ["wc", "-c"], stdin=True)
    sent = 0
    for _ in range(8):
        channel.send(DATA, counting, b"\0" + b"x" * 16000)
        sent += 16000
    channel.send(DATA, counting, b"\0")
    assert channel.end(counting)[1].strip() == str(sent).encode()

    # a program that reads nothing
    deaf = channel.open(EXEC, ["sh", "-c", "exec <&-; sleep 0.2; exit 6"], stdin=True)
    for _ in range(8):
        channel.send(DATA, deaf, b"\0" + b"x" * 16000)
    assert channel.end(deaf)[0] == 6

    # files in and out
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("folder/note")
        member.size, member.mode, member.uid = 5, 0o640, 1000
        tar.addfile(member, io.BytesIO(b"hello"))
    copy = channel.open(COPY_IN, path="/data")
    for at in range(0, len(archive.getvalue()), 16000):
        channel.send(DATA, copy, b"\0" + archive.getvalue()[at:at + 16000])
    channel.send(DATA, copy, b"\0")
    assert channel.end(copy) == (0, b"", b"", None)
    assert channel.run("stat", "-c", "%u %a", "/data/folder/note")[1] == b"1000 640\n"
    status, out, _, failure = channel.end(channel.open(COPY_OUT, path="/data/folder"))
    assert (status, failure) == (0, None)
    with tarfile.open(fileobj=io.BytesIO(out)) as tar:
        assert tar.extractfile("folder/note").read() == b"hello"
    assert channel.end(channel.open(COPY_OUT, path="/none"))[3][0] == "not-found"

    # freeze: a writer waits until the thaw
    assert channel.request(FREEZE) is None
    writer = channel.open(EXEC, ["sh", "-c", "echo late > /data/late; echo done"])
    assert channel.request(PING) is None
    assert writer not in channel.closed
    assert channel.request(THAW) is None
    assert channel.end(writer)[1] == b"done\n"
    assert channel.request(GROW, b"v1") is None
    assert channel.request(GROW, b"none")[0] == "not-found"

    # another identity, and the clock; of one that was frozen, as a paused machine is when it is suspended
    assert channel.request(FREEZE) is None
    assert channel.request(IDENTITY, field(1, "clone-1") + field(6, os.urandom(64)) + field(7, 2000000000 * 10**9)) is None
    assert channel.run("hostname")[1] == b"clone-1\n"
    assert channel.run("cat", "/etc/hostname")[1] == b"clone-1\n"
    assert channel.run("date", "+%Y")[1] == b"2033\n"

    # the host restarts: another session on the same port
    left = channel.open(EXEC, ["sleep", "1001"])
    channel.request(PING)
    channel.socket.close()
    channel = machine.channel()
    channel.state(RUNNING)
    assert b"1001" not in channel.run("sh", "-c", "cat /proc/[0-9]*/cmdline")[1].replace(b"\0", b" ").replace(b"cat /proc", b"")
    assert left
    program = channel.open(PROGRAM)

    assert channel.request(SHUTDOWN, struct.pack("<I", 10000)) is None
    status, out, _, _ = channel.end(program)
    assert (status, out) == (3, b"stopped\n")
    channel.state(ENDED)
    machine.ended()
    clean(root)
    clean(data)


def test_frozen_in_its_first_moment(start):
    """What the agent does by itself a second after the program began, and what it is asked to write, do not wait for a thaw that it would have to make."""
    machine, channel, root = start(["sh", "-c", "echo ready; exec sleep 1000"])
    program = channel.open(PROGRAM)
    channel.state(RUNNING)
    assert channel.request(FREEZE) is None
    assert channel.run("sleep", "3")[0] == 0
    # a clone that was made in that second: what it is told does not vanish below what the agent mounts later
    assert channel.request(IDENTITY, field(1, "clone-7") + field(8, 7)) is None
    assert channel.run("sh", "-c", "sleep 2; cat /run/carrel/clone; grep -c ' /run/carrel ' /proc/mounts")[1] == b"7\n1\n"
    assert channel.request(FREEZE) is None
    assert channel.request(GROW, b"root") is None
    assert channel.run("sh", "-c", "echo written > /file && cat /file")[1] == b"written\n"
    assert channel.request(SHUTDOWN, struct.pack("<I", 300)) is None
    assert channel.end(program)[0] == 143
    machine.ended()
    clean(root)


def test_modules(start):
    """The kernel's modules are there to be seen, and what is used is loaded without the right to load modules."""
    machine, channel, _ = start(["sh", "-c",
                                 "uname -r; ls -l /dev/net/tun; exec 3<>/dev/net/tun && cut -d' ' -f1 /proc/modules; "
                                             "mount -t nothing none /tmp; modprobe dummy || echo refused; ls "
                                             "/usr/lib/modules/*/kernel/drivers/net/tun.ko"],
                                capabilities=0x00A80425FB)
    program = channel.open(PROGRAM)
    status, out, err, _ = channel.end(program)
    said = out.decode().split("\n")
    assert status == 0 and "10, 200" in said[1] and "tun" in said and "refused" in said, (out, err)
    assert said[-2] == f"/usr/lib/modules/{said[0]}/kernel/drivers/net/tun.ko"
    machine.ended()


def test_ignores_the_stop(start):
    """A program that ignores its signal is killed when the time is over."""
    machine, channel, root = start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    program = channel.open(PROGRAM)
    channel.state(RUNNING)
    channel.until(lambda k, w, p: k == DATA and b"ready" in channel.data.get(program, {}).get(1, b""))
    assert channel.request(SHUTDOWN, struct.pack("<I", 300)) is None
    assert channel.end(program)[0] == 137
    channel.state(ENDED)
    machine.ended()
    clean(root)


def test_a_missing_command_and_a_missing_disk(start):
    machine, channel, _ = start(["nothing-here"])
    program = channel.open(PROGRAM)
    assert channel.end(program)[3][0] == "not-found"
    assert error(channel.state(FAILED))[0] == "not-found"
    machine.ended()


def test_system(start):
    """The image's own init is process 1; the agent beside it serves exec and tells the init to power off."""
    machine, channel, root = start(["/sbin/init"], flags=SYSTEM)
    channel.state(RUNNING)
    status, out, _, _ = channel.run("sh", "-c", "cat /proc/1/comm; cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep '^@'; ls /")
    assert status == 0 and out.startswith(b"init\n@init\n") and b"modules" not in out
    assert channel.run("sh", "-c", "cat /etc/started")[1] == b"by init\n"
    # its own modprobe loads what it asks for, from the kernel's partition
    release = channel.run("uname", "-r")[1].decode().strip()
    said = channel.run("sh", "-c", f"df /lib/modules/{release} | tail -n 1; echo x > /lib/modules/{release}/x; echo $?")[1]
    assert said.endswith(b"1\n")
    assert channel.run("modprobe", "wireguard")[0] == 0
    assert b"udp_tunnel" in channel.run("cat", "/proc/modules")[1]
    assert channel.request(SHUTDOWN, struct.pack("<I", 20000)) is None
    machine.ended()
    assert b"by init" in subprocess.run(["debugfs", "-R", "cat /upper/etc/started", root], capture_output=True).stdout


def test_a_host_that_lies(start):
    """Noise, unknown frames, too much input: the rest goes on."""
    machine, channel, _ = start(["sh", "-c", "while :; do sleep 0.1; done"])
    channel.state(RUNNING)
    channel.socket.sendall(os.urandom(5000))
    channel.send(99, 5, b"what")
    channel.send(DATA, 77, b"\0nobody")
    assert channel.request(PING) is None
    greedy = channel.open(EXEC, ["sleep", "1000"], stdin=True)
    for _ in range(20):
        channel.send(DATA, greedy, b"\0" + b"x" * 16000)
    assert channel.end(greedy)[3][0] == "invalid"
    assert channel.run("echo", "on")[1] == b"on\n"
