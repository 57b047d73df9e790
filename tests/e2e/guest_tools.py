# SPDX-License-Identifier: Apache-2.0
"""The host's side of a machine's channel (docs/formats/guest.md, plan.md), written from the documents, and machines to try it on."""
import glob
import json
import os
import pathlib
import secrets
import shutil
import socket
import struct
import subprocess
import time

MARK, HEADER = 0x31464743, 24
(HELLO, CONFIGURE, STATE, ANSWER, OPEN, DATA, CREDIT, RESIZE, CLOSE, SIGNAL, FREEZE, THAW, GROW, IDENTITY, SHUTDOWN,
 PING) = range(1, 17)
RUNNING, ENDED, FAILED = 3, 5, 6
PROGRAM, EXEC, COPY_IN, COPY_OUT = 1, 2, 3, 4
WINDOW = 131072
SYSTEM, TERMINAL, INPUT = 1, 32, 64
MOUNT, VOLUME, LINK, FOLDER, WRITE = 1, 2, 5, 6, 9


def check(words):
    value = 0x811C9DC5
    for word in words:
        value = ((value ^ word) * 0x01000193) & 0xFFFFFFFF
    return value


def field(tag, value):
    if isinstance(value, int):
        value = struct.pack("<Q", value)
    elif isinstance(value, str):
        value = value.encode()
    return struct.pack("<II", tag, len(value)) + value


def fields(data):
    found = {}
    while data:
        tag, length = struct.unpack_from("<II", data)
        found.setdefault(tag, []).append(data[8:8 + length])
        data = data[8 + length:]
    return found


def number(found, tag):
    return struct.unpack("<Q", found[tag][0])[0] if tag in found else 0


def error(found):
    if 3 not in found:
        return None
    inner = fields(found[3][0])
    return tuple(inner.get(tag, [b""])[0].decode() for tag in (1, 2))


def plan(argv, steps=(), flags=0, environment=("PATH=/bin",), host_name="guest", user="", directory="", volumes=(),
         capabilities=(1 << 41) - 1, stop_signal=15):
    """docs/formats/plan.md"""
    n = lambda value: struct.pack("<Q", value)
    t = lambda text: text.encode() + b"\0"
    many = lambda texts: n(len(texts)) + b"".join(map(t, texts))
    out = n(0x314E5043) + b"".join(map(n, (flags, 0, 1, stop_signal, capabilities, 1024, 0, 0)))
    out += b"".join(map(t, ("00000000000000000000000000000000", "guest", host_name, "", "", "", "", "", "", user, directory)))
    out += many(()) + many(()) + many(argv) + many(environment) + many(volumes) + many(())
    out += n(len(steps))
    for kind, value, source, target, text in steps:
        out += n(kind) + n(value) + t(source) + t(target) + t(text)
    return out + n(0)


STEPS = (
    (MOUNT, 2, "proc", "/proc", ""),
    (MOUNT, 2, "sysfs", "/sys", ""),
    (MOUNT, 2, "devtmpfs", "/dev", ""),
    (MOUNT, 2, "devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=620,gid=5"),
    (WRITE, 0, "", "/etc/hostname", "guest\n"),
)


class Channel:
    def __init__(self, path, deadline):
        self.deadline = deadline
        self.socket = socket.socket(socket.AF_UNIX)
        while True:
            try:
                self.socket.connect(str(path))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.session, self.next, self.buffer, self.seen = secrets.randbits(31) | 1, 1, b"", []
        self.data, self.closed = {}, {}
        self.send(HELLO, 0, field(1, 1))

    def send(self, kind, which, payload=b""):
        words = (MARK, self.session, kind, which, len(payload))
        self.socket.sendall(struct.pack("<6I", *words, check(words)) + payload)

    def frame(self):
        while True:
            if len(self.buffer) >= HEADER:
                mark, session, kind, which, length, given = struct.unpack_from("<6I", self.buffer)
                assert mark == MARK and given == check((mark, session, kind, which, length))
                if len(self.buffer) >= HEADER + length:
                    payload, self.buffer = self.buffer[HEADER:HEADER + length], self.buffer[HEADER + length:]
                    if session == self.session:
                        return kind, which, payload
                    continue
            self.socket.settimeout(max(0.1, self.deadline - time.monotonic()))
            got = self.socket.recv(65536)
            if not got:
                raise EOFError("the machine is gone")
            self.buffer += got

    def until(self, wanted):
        """Takes frames until wanted(kind, which, payload) is true; data and ends of streams are kept."""
        while True:
            kind, which, payload = self.frame()
            self.seen.append((kind, which))
            if kind == DATA:
                self.data.setdefault(which, {}).setdefault(payload[0], bytearray()).extend(payload[1:])
                self.send(CREDIT, which, struct.pack("<I", len(payload)))
            elif kind == CLOSE:
                found = fields(payload)
                self.closed[which] = (number(found, 2), error(found))
            if wanted(kind, which, payload):
                return payload

    def take(self):
        self.next += 1
        return self.next - 1

    def request(self, kind, payload=b""):
        which = self.take()
        self.send(kind, which, payload)
        return error(fields(self.until(lambda k, w, p: k == ANSWER and w == which)))

    def state(self, phase):
        def wanted(kind, _, payload):
            if kind != STATE:
                return False
            found = fields(payload)
            assert number(found, 1) != FAILED or phase == FAILED, error(found)
            return number(found, 1) == phase
        return fields(self.until(wanted))

    def open(self, kind, command=(), path="", terminal=False, user="", environment=(), stdin=False):
        which = self.take()
        payload = b"".join(field(n, value) for n, value in (
            (1, kind), (2, int(terminal)), (3, int(stdin)), (4, 24), (5, 80), (6, user), (8, path)))
        self.send(OPEN, which, payload + b"".join(field(9, c) for c in command) + b"".join(field(10, v) for v in environment))
        return which

    def end(self, which):
        if which not in self.closed:
            self.until(lambda k, w, p: k == CLOSE and w == which)
        status, failure = self.closed[which]
        return status, bytes(self.data.get(which, {}).get(1, b"")), bytes(self.data.get(which, {}).get(2, b"")), failure

    def run(self, *command, **how):
        return self.end(self.open(EXEC, command, **how))


def kernel_package():
    """The newest cloud kernel of the distribution, downloaded once; None without one."""
    folder = pathlib.Path(os.environ.get("CARREL_TEST_CACHE", "/var/cache/carrel-test"))
    if not glob.glob(f"{folder}/linux-image-*.deb"):
        names = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"], capture_output=True, text=True).stdout
        names = [line.split()[-1] for line in names.splitlines() if "Depends: linux-image" in line]
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"new-{secrets.token_hex(4)}"
        fresh.mkdir()
        subprocess.run(["apt-get", "download", *names[:1]], cwd=fresh, capture_output=True)
        for package in fresh.glob("linux-image-*.deb"):
            package.rename(folder / package.name)
        shutil.rmtree(fresh)
    found = sorted(glob.glob(f"{folder}/linux-image-*.deb"))
    return pathlib.Path(found[-1]) if found else None


class Machine:
    """QEMU with partitions and volumes as carrel starts it, in the plainest way."""

    def __init__(self, folder, kernel, initramfs, disks, memory="512", append=""):
        self.folder, self.socket, self.console = (folder, folder / f"port-{secrets.token_hex(4)}",
                                                  folder / f"console-{secrets.token_hex(4)}")
        self.started = time.monotonic()
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-M", "q35", "-cpu", "max", "-m", memory, "-smp", "1",
                   "-nodefaults",
                   "-no-user-config", "-no-reboot", "-nographic", "-serial", f"file:{self.console}", "-kernel", kernel,
                   "-initrd", initramfs,
                   "-append", f"console=ttyS0 quiet panic=-1 {append}", "-device", "virtio-serial-pci", "-chardev",
                   f"socket,id=c,path={self.socket},server=on,wait=off", "-device", "virtserialport,chardev=c,name=carrel.0"]
        for serial, path, read_only in disks:
            command += ["-drive", f"if=none,id={serial},file={path},format=raw,file.locking=off"
                        + (",readonly=on" if read_only else ""), "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL)

    def channel(self, seconds=300):
        return Channel(self.socket, time.monotonic() + seconds)

    def ended(self, seconds=120):
        self.process.wait(seconds)
        return self.console.read_text(errors="replace")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def kernel_files(folder, build):
    """(vmlinuz, initramfs) made from the distribution's package, or a reason why not."""
    package = kernel_package()
    if not package:
        return "apt-get download of a cloud kernel does not work here"
    tool, partition = build / "tests/tools/kernel", folder / "kernel.erofs"
    made = json.loads(subprocess.run([tool, "build", package, partition], capture_output=True, text=True).stdout)
    assert "error" not in made, made
    init = folder / "carrel-init"
    subprocess.run(["strip", "-o", init, build / "src/guest/carrel-init"], check=True)
    made = json.loads(subprocess.run([tool, "initramfs", partition, init, folder], capture_output=True, text=True).stdout)
    assert "error" not in made, made
    out = folder / "kernel"
    subprocess.run(["fsck.erofs", f"--extract={out}", partition], check=True, capture_output=True)
    return out / "vmlinuz", folder / made["name"]


def copy_a_tree(site, name, folder):
    """Into a workspace and back: hard links, links, modes, owners, times, attributes and holes stay; the engine does not matter."""
    tree, back = folder / "tree", folder / "back"
    (tree / "below").mkdir(parents=True)
    (tree / "one").write_text("content\n")
    os.link(tree / "one", tree / "below/again")
    os.symlink("../one", tree / "below/link")
    os.chmod(tree / "one", 0o2751)
    with open(tree / "holes", "wb") as f:
        f.truncate(5 << 20)
        f.seek(3 << 20)
        f.write(b"island")
    (tree / ("\u00e4" * 90)).write_text("name\n")
    os.chown(tree / ("\u00e4" * 90), 1000, 1001)
    attributes = True
    try:
        os.setxattr(tree / "one", "user.note", b"kept\0")
    except OSError:
        attributes = False
    os.utime(tree / "one", (1, 1600000000))
    os.utime(tree / "below", (1, 1500000000))
    site.carrel("cp", "-a", tree, f"{name}:/tmp")
    said = site.carrel("exec", name, "--", "stat", "-c", "%h %a %s %b %Y", "/tmp/tree/below/again",
                       "/tmp/tree/holes").stdout.split()
    assert said[:3] == ["2", "2751", "8"] and said[4] == "1600000000" and int(said[7]) == 5 << 20 and int(said[8]) < 200, said
    site.carrel("cp", "-a", f"{name}:/tmp/tree", back)
    assert (back / "one").stat().st_ino == (back / "below/again").stat().st_ino
    assert (back / "holes").read_bytes() == (tree / "holes").read_bytes() and (back / "holes").stat().st_blocks < 200
    for path in [p.relative_to(tree) for p in tree.rglob("*")]:
        mine, its = (tree / path).lstat(), (back / path).lstat()
        assert (mine.st_mode, mine.st_uid, mine.st_gid, mine.st_nlink) == (its.st_mode, its.st_uid, its.st_gid,
                                                                           its.st_nlink), path
        assert int(mine.st_mtime) == int(its.st_mtime), path
    assert os.readlink(back / "below/link") == "../one"
    assert not attributes or os.getxattr(back / "one", "user.note") == b"kept\0"
