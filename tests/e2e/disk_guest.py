# SPDX-License-Identifier: Apache-2.0
"""
A small Linux on a disk of its own, which BIOS and UEFI both boot: Debian's cloud kernel, busybox and QEMU's guest agent, made by tools that need
neither root nor a mount. Its first process tells on the serial line what it sees, counts its starts on the disk, and obeys the power button.
"""
import glob
import gzip
import io
import os
import shutil
import struct
import subprocess

from guest_tools import kernel_package

TOOLS = ("busybox", "qemu-ga", "syslinux", "mcopy", "mformat", "depmod", "objcopy", "dpkg-deb", "ldd")
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
MBR = "/usr/lib/syslinux/mbr/mbr.bin"
MODULES = ("virtio_pci virtio_blk virtio_console virtio_net isofs vfat nls_cp437 nls_ascii nls_iso8859-1 button evdev "
           "virtio-rng".split())
START = 2048  # first sector of the partition

INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /run /tmp /seed /disk /etc/acpi/PWRF /var/run /var/log
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
for m in MODULES; do modprobe $m || echo "no module $m"; done
[ -d /sys/firmware/efi ] && echo "FIRMWARE uefi" || echo "FIRMWARE bios"
echo "DISKS $(cd /sys/block && echo [vns]*)"
for d in /sys/block/*/serial /sys/block/nvme*/device/serial; do [ -r $d ] && echo "SERIAL $(echo $d | cut -d/ -f4) $(cat $d)"; done
for d in /dev/vd? /dev/nvme?n? /dev/sr?; do
  [ -b $d ] && mount -t iso9660 -o ro $d /seed 2>/dev/null && echo "SEED $d" && break
done
for f in meta-data network-config user-data; do echo "--- $f"; cat /seed/$f; echo; done
echo "---"
for i in /sys/class/net/*; do echo "NIC $(basename $i) $(cat $i/address)"; done
a=$(grep -o '"[0-9.]*/[0-9]*"' /seed/network-config | head -n 1 | tr -d '"')
g=$(grep -o '"gateway4": "[0-9.]*"' /seed/network-config | cut -d'"' -f4)
[ -n "$a" ] && ip link set eth0 up && ip addr add $a dev eth0 && ip route add default via $g && ping -c 1 -W 20 $g && echo "NETWORK $a"
p=$(ls /dev/vda1 /dev/nvme0n1p1 2>/dev/null | head -n 1)
mount -t vfat $p /disk && n=$(($(cat /disk/count 2>/dev/null || echo 0) + 1)) && echo $n >/disk/count && sync && echo "STARTS $n"
printf '#!/bin/busybox sh\necho BUTTON >/dev/ttyS0\numount /disk\npoweroff -f\n' >/etc/acpi/PWRF/00000080
chmod 755 /etc/acpi/PWRF/00000080
mkdir -p /sbin
printf '#!/bin/busybox sh\necho ASKED >/dev/ttyS0\numount /disk\npoweroff -f\n' >/sbin/shutdown
chmod 755 /sbin/shutdown
acpid -c /etc/acpi -l /dev/null
for v in /sys/class/virtio-ports/*; do
  grep -q guest_agent $v/name && qemu-ga -d -p /dev/$(basename $v) -m virtio-serial -t /run
done
echo "READY"
while :; do sleep 3600; done
"""


def missing():
    """What a machine lacks to make this disk, or None."""
    for tool in TOOLS:
        if not shutil.which(tool):
            return f"{tool} is not installed"
    for path in (STUB, MBR):
        if not os.path.exists(path):
            return f"{path} is not installed"
    return None if kernel_package() else "apt-get download of a cloud kernel does not work here"


def run(*words, **options):
    done = subprocess.run([str(w) for w in words], capture_output=True, **options)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


class Cpio:
    """An initramfs (newc), with its folders."""

    def __init__(self):
        self.out, self.made, self.inode = io.BytesIO(), set(), 1

    def entry(self, name, mode, data=b"", device=(0, 0)):
        self.inode += 1
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        self.out.write(b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0")
        self.out.write(bytes(-self.out.tell() % 4) + data)
        self.out.write(bytes(-self.out.tell() % 4))

    def parents(self, name):
        parts = name.split("/")[:-1]
        for n in range(1, len(parts) + 1):
            folder = "/".join(parts[:n])
            if folder not in self.made:
                self.made.add(folder)
                self.entry(folder, 0o040755)

    def file(self, name, data, mode=0o755):
        self.parents(name)
        self.entry(name, 0o100000 | mode, data)

    def bytes(self):
        self.entry("TRAILER!!!", 0)
        return gzip.compress(self.out.getvalue(), 1)


def libraries(program):
    for line in run("ldd", program).decode().splitlines():
        words = line.split()
        path = words[2] if "=>" in words else words[0]
        if path.startswith("/"):
            yield path


def initramfs(folder, release):
    """Only what the modules named need; the rest of the kernel's is left out."""
    cpio = Cpio()
    base = f"lib/modules/{release}"
    wanted, found = list(MODULES), {}
    for path in glob.glob(f"{folder}/{base}/**/*.ko", recursive=True):
        found[os.path.basename(path)[:-3].replace("-", "_")] = path
    taken = {}
    while wanted:
        name = wanted.pop().replace("-", "_")
        if name in taken or name not in found:
            continue
        taken[name] = found[name]
        wanted += [d for d in run("/sbin/modinfo", "-F", "depends", found[name]).decode().strip().split(",") if d]
    small = folder / "small"
    for path in taken.values():
        target = small / os.path.relpath(path, folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for name in ("modules.builtin", "modules.order"):
        shutil.copy(f"{folder}/{base}/{name}", small / base / name)
    run("/sbin/depmod", "-b", small, release)
    for path in sorted(small.rglob("*")):
        if path.is_file():
            cpio.file(str(path.relative_to(small)), path.read_bytes(), 0o644)
    cpio.file("bin/busybox", open(shutil.which("busybox"), "rb").read())
    cpio.file("bin/qemu-ga", open(shutil.which("qemu-ga"), "rb").read())
    for path in libraries(shutil.which("qemu-ga")):
        cpio.file(path.lstrip("/"), open(os.path.realpath(path), "rb").read())
    cpio.file("init", INIT.replace("MODULES", " ".join(MODULES)).encode())
    return cpio.bytes()


def unified(folder, kernel, initrd, line):
    """A UEFI program of kernel, initramfs and command line (systemd's stub)."""
    target = folder / "linux.efi"
    (folder / "line").write_bytes(line.encode())
    (folder / "release").write_bytes(b"ID=test\n")
    run("objcopy", "--add-section", f".osrel={folder / 'release'}", "--change-section-vma", ".osrel=0x20000",
        "--add-section", f".cmdline={folder / 'line'}", "--change-section-vma", ".cmdline=0x30000",
        "--add-section", f".linux={kernel}", "--change-section-vma", ".linux=0x2000000",
        "--add-section", f".initrd={initrd}", "--change-section-vma", ".initrd=0x4000000", STUB, target)
    return target


def make(folder, megabytes=128):
    """The disk, as a path below `folder` (a pathlib.Path)."""
    run("dpkg-deb", "-x", kernel_package(), folder)
    kernel = next(folder.glob("boot/vmlinuz-*"))
    release = kernel.name[len("vmlinuz-"):]
    initrd = folder / "initrd"
    initrd.write_bytes(initramfs(folder, release))
    line = "console=ttyS0 quiet panic=-1"
    efi = unified(folder, kernel, initrd, line)
    part = folder / "part"
    sectors = megabytes * 2048 - START
    with open(part, "wb") as out:
        out.truncate(sectors * 512)
    run("mformat", "-i", part, "-F", "-h", 16, "-s", 63, "-H", START, "-T", sectors, "::")
    (folder / "syslinux.cfg").write_text(f"DEFAULT l\nPROMPT 0\nLABEL l\n LINUX /vmlinuz\n INITRD /initrd\n APPEND {line}\n")
    run("mmd", "-i", part, "::/EFI", "::/EFI/BOOT")
    for source, target in ((kernel, "vmlinuz"), (initrd, "initrd"), (folder / "syslinux.cfg", "syslinux.cfg"),
                           (efi, "EFI/BOOT/BOOTX64.EFI")):
        run("mcopy", "-i", part, source, f"::/{target}")
    run("syslinux", "--install", part)
    disk = folder / "guest.raw"
    with open(disk, "wb") as out:
        entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0xEF, b"\xfe\xff\xff", START, sectors)
        out.write(open(MBR, "rb").read()[:440].ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa")
        out.seek(START * 512)
        with open(part, "rb") as source:
            shutil.copyfileobj(source, out)
    return disk
