# SPDX-License-Identifier: Apache-2.0
"""Disk images become partitions: all formats as QEMU writes them, and those that must be refused."""
import bz2
import gzip
import lzma
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess

import pytest

from disk_tools import MIB, OVF, allocated, convert, need_qemu_img, ova, qemu_img, raw_disk, sha256
from image_tools import Failure, check_store, do_import, leftovers, need, start_import


@pytest.fixture
def store(tmp_path):
    need()
    need_qemu_img()
    yield tmp_path / "store"
    if (tmp_path / "store").exists():
        check_store(tmp_path / "store")
        assert leftovers(tmp_path / "store") == []


DISK = raw_disk()
FORMATS = [("qcow2", ()), ("qcow2", ("-o", "compat=0.10")), ("qcow2", ("-c",)),
           ("qcow2", ("-c", "-o", "compression_type=zstd")),
           ("qcow2", ("-o", "cluster_size=512")), ("qcow2", ("-o", "extended_l2=on,cluster_size=128k")),
           ("qcow2", ("-o", "cluster_size=2M")),
           ("vmdk", ()), ("vmdk", ("-o", "subformat=streamOptimized")),
           ("vmdk", ("-o", "subformat=monolithicSparse,zeroed_grain=on")),
           ("vhdx", ()), ("vhdx", ("-o", "subformat=fixed")), ("vhdx", ("-o", "block_size=1M")),
           ("vpc", ("-o", "force_size=on")), ("vpc", ("-o", "subformat=fixed,force_size=on")), ("vdi", ()),
           ("vdi", ("-o", "static=on"))]


@pytest.mark.parametrize("form,options", FORMATS, ids=[" ".join((f, *o)) for f, o in FORMATS])
def test_formats(store, tmp_path, form, options):
    image = do_import(store, convert(tmp_path, DISK, form, *options), format="disk")
    assert [p["digest"] for p in image["partitions"]] == [sha256(DISK)]
    assert image["partitions"][0]["size"] == len(DISK)
    assert image["machine"]["firmware"] == "bios"
    assert image["machine"].get("disk-bus") == (None if form == "qcow2" else "sata")
    steps = [p["step"] for p in image["progress"]]
    assert steps.index("fetch") < steps.index("convert") < steps.index("finish")


def test_raw_is_sparse_and_the_same_whatever_it_came_as(store, tmp_path):
    sparse = DISK[:6 * MIB] + bytes(200 * MIB)
    raw = do_import(store, sparse, format="disk")
    assert [p["digest"] for p in raw["partitions"]] == [sha256(sparse)]
    path = store / "partitions/sha256" / sha256(sparse)[7:]
    assert path.stat().st_size == len(sparse) and allocated(path) < 2 * MIB
    again = do_import(store, convert(tmp_path, sparse, "qcow2"), format="disk")
    assert again["digest"] == raw["digest"]


def test_wishes_go_before_what_was_found(store):
    image = do_import(store, DISK, format="disk", machine={"firmware": "uefi", "disk-bus": "nvme", "nic": "e1000"})
    assert image["machine"] == {"firmware": "uefi", "disk-bus": "nvme", "nic": "e1000"}


def test_raw_without_a_boot_sector(store):
    data = os.urandom(70001)
    with pytest.raises(Failure, match="boot sector"):
        do_import(store, data, format="disk")
    image = do_import(store, data, format="raw")
    assert [p["digest"] for p in image["partitions"]] == [sha256(data.ljust(70144, b"\0"))]


def test_uefi_is_found(store):
    disk = bytearray(DISK)
    disk[0:440] = bytes(440)
    disk[450] = 0xee
    disk[512:520] = b"EFI PART"
    disk[512 + 72:512 + 92] = struct.pack("<QIIi", 2, 4, 128, 0)
    disk[1024:1536] = bytes(512)
    disk[1024 + 128:1024 + 144] = bytes.fromhex("28732ac11ff8d211ba4b00a0c93ec93b")
    assert do_import(store, bytes(disk), format="disk")["machine"]["firmware"] == "uefi"


def test_snapshots_inside_are_left_behind(store, tmp_path):
    convert(tmp_path, DISK, "qcow2")
    qemu_img("snapshot", "-c", "before", tmp_path / "disk.qcow2")
    image = do_import(store, (tmp_path / "disk.qcow2").read_bytes(), format="disk")
    assert image["partitions"][0]["digest"] == sha256(DISK)


# --- OVA ---


def test_ova(store, tmp_path):
    other = raw_disk(8, seed=2)
    disks = [convert(tmp_path, d, "vmdk", "-o", "subformat=streamOptimized", name=str(n)) for n, d in enumerate((DISK, other))]
    image = do_import(store, ova(disks), format="disk")
    assert [p["digest"] for p in image["partitions"]] == [sha256(DISK), sha256(other)]
    assert image["machine"]["firmware"] == "uefi"
    assert image["machine"]["memory"] == 384 * MIB
    assert image["machine"]["cpu"] == 2000 or image["machine"]["cpu"] == 2


def lines(files="", disks="", items=""):
    return OVF.format(files=files, disks=disks, items=items)


DISK_ITEM = "<Item><rasd:HostResource>ovf:/disk/d</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>"
BAD_OVF = {
    "not in the archive": lines('<File ovf:id="f" ovf:href="/etc/shadow"/>', '<Disk ovf:diskId="d" ovf:fileRef="f"/>',
                                DISK_ITEM),
    "no disks": lines(),
    "only the difference": lines('<File ovf:id="f" ovf:href="disk0.vmdk"/>',
                                 '<Disk ovf:diskId="d" ovf:fileRef="f" ovf:parentRef="x"/>', DISK_ITEM),
    "compressed as a whole": lines('<File ovf:id="f" ovf:href="disk0.vmdk" ovf:compression="gzip"/>',
                                   '<Disk ovf:diskId="d" ovf:fileRef="f"/>', DISK_ITEM),
    "document type": '<!DOCTYPE x [<!ENTITY a "aaaa">]>' + lines()[lines().index("<Envelope"):],
    "cannot be read": "<Envelope><References>",
    "several machines": "<Envelope><VirtualSystemCollection/></Envelope>",
    "too long": lines(f'<File ovf:id="{"x" * 300}" ovf:href="y"/>'),
}


@pytest.mark.parametrize("why", BAD_OVF)
def test_descriptions_that_are_refused(store, why):
    with pytest.raises(Failure, match=why):
        do_import(store, ova([DISK[:MIB]], ovf=BAD_OVF[why], manifest=False), format="disk")


def test_ova_manifest_is_checked(store):
    good = ova([DISK[:MIB]])
    bad = bytearray(good)
    bad[-len(good) // 4] ^= 1
    with pytest.raises(Failure, match="manifest"):
        do_import(store, bytes(bad), format="disk")


def test_ova_that_is_cut(store):
    with pytest.raises(Failure, match="cut"):
        do_import(store, ova([DISK[:MIB]])[:300000], format="disk")


# --- images that name other files, and other refusals ---


def patched(data, at, value):
    return data[:at] + value + data[at + len(value):]


def with_backing(tmp_path):
    data = convert(tmp_path, DISK, "qcow2")
    name = b"/etc/shadow"
    return patched(patched(data, 8, struct.pack(">QI", 0x200, len(name))), 0x200, name)


def with_data_file(tmp_path):
    source = tmp_path / "source.raw"
    source.write_bytes(DISK)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-o", f"data_file={tmp_path}/data.raw", source, tmp_path / "d.qcow2")
    return (tmp_path / "d.qcow2").read_bytes()


def encrypted(tmp_path):
    qemu_img("create", "-q", "--object", "secret,id=s,data=abc", "-f", "qcow2", "-o",
             "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", tmp_path / "e.qcow2", "1M")
    return (tmp_path / "e.qcow2").read_bytes()


def vmdk_with(tmp_path, old, new):
    data = convert(tmp_path, DISK, "vmdk")
    at = data.index(old)
    return patched(data, at, new.ljust(len(old), b"\n"))


def flat(tmp_path):
    convert(tmp_path, DISK, "vmdk", "-o", "subformat=monolithicFlat")
    return (tmp_path / "disk.vmdk").read_bytes().ljust(1024, b"\n")


def difference_vhdx(tmp_path):
    data = convert(tmp_path, DISK, "vhdx")
    at = data.index(bytes.fromhex("3767a1ca36fa434db3b633f0aa44e76b"))
    place = data.index(b"metadata") + struct.unpack_from("<I", data, at + 16)[0]
    return patched(data, place + 4, b"\x02")


def vhd_type(tmp_path):
    data = bytearray(convert(tmp_path, DISK, "vpc", "-o", "force_size=on"))
    footer = len(data) - 512
    data[footer + 60:footer + 68] = struct.pack(">II", 4, 0)
    data[footer + 64:footer + 68] = struct.pack(">I", ~sum(data[footer:]) & 0xffffffff)
    return bytes(data)


REFUSED = {
    "a qcow2 on top of /etc/shadow": (with_backing, "backing file"),
    "a qcow2 whose data is elsewhere": (with_data_file, "another file"),
    "a qcow2 that is encrypted": (encrypted, "encrypted"),
    "a qcow2 of unknown features": (lambda t: patched(convert(t, DISK, "qcow2"), 72, b"\x80"), "not known"),
    "a qcow2 that is damaged": (lambda t: patched(convert(t, DISK, "qcow2"), 79, b"\x02"), "damaged"),
    "a qcow2 of 2^62 bytes": (lambda t: patched(convert(t, DISK, "qcow2"), 24, b"\x40"), "at most"),
    "a qcow2 of no bytes": (lambda t: patched(convert(t, DISK, "qcow2"), 24, bytes(8)), "sectors"),
    "a qcow2 of 2 TiB": (lambda t: patched(convert(t, DISK, "qcow2"), 24, struct.pack(">Q", 2 << 40)), "table|more than"),
    "a qcow2 that is cut": (lambda t: convert(t, DISK, "qcow2")[:400000], "ends too early|within a cluster"),
    "a VMDK on a parent": (lambda t: vmdk_with(t, b"parentCID=ffffffff", b"parentCID=12345678"), "difference"),
    "a VMDK with a parent's name": (lambda t: vmdk_with(t, b'parentCID=ffffffff\ncreateType="monolithicSparse"',
                                                        b'parentFileNameHint="/etc/shadow"'),
                                     "difference"),
    "a VMDK with a flat extent": (lambda t: vmdk_with(t, b" SPARSE ", b" FLAT "), "another file|cannot be read"),
    "a VMDK with an extent elsewhere": (lambda t: vmdk_with(t, b'SPARSE "disk', b'SPARSE "/etc'), "in a folder"),
    "a VMDK descriptor": (flat, "in other files"),
    "a short VMDK descriptor": (lambda t: b'# Disk DescriptorFile\nversion=1\nRW 8 FLAT "/etc/shadow" 0\n', "in other files"),
    "a QED": (lambda t: convert(t, DISK, "qed"), "QED"),
    "a disk of Parallels": (lambda t: convert(t, DISK, "parallels"), "Parallels"),
    "a packed disk that is cut": (lambda t: gzip.compress(DISK, 1)[:200000], "truncated"),
    "a packed text": (lambda t: lzma.compress(b"hello\n" * 1000), "none of"),
    "a VMDK without a disk": (lambda t: patched(convert(t, DISK, "vmdk"), 12, bytes(8)), "0 sectors"),
    "a VMDK stream that is cut": (lambda t: convert(t, DISK, "vmdk", "-o", "subformat=streamOptimized")[:200000],
                                  "ends too early|cut"),
    "a VHDX on a parent": (difference_vhdx, "difference"),
    "a VHDX with a bad header": (lambda t: patched(patched(convert(t, DISK, "vhdx"), 65536 + 20, b"x"), 131072 + 20, b"x"),
                                 "neither"),
    "a VHD on a parent": (vhd_type, "difference"),
    "a VHD with a bad footer": (lambda t: (lambda d: patched(d, len(d) - 100, b"x"))(convert(t, DISK, "vpc")), "checksum"),
    "a VDI on a parent": (lambda t: patched(convert(t, DISK, "vdi"), 76, b"\x04"), "difference"),
    "nothing": (lambda t: b"", "no disk"),
    "a text": (lambda t: b"hello\n" * 1000, "none of"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(store, tmp_path, what):
    make, why = REFUSED[what]
    with pytest.raises(Failure, match=why):
        do_import(store, make(tmp_path), format="disk")
    assert not list((store / "partitions/sha256").iterdir())


PACKED = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress,
          "zstd": lambda data: subprocess.run(["zstd", "-q"], input=data, stdout=subprocess.PIPE, check=True).stdout}


@pytest.mark.parametrize("how", PACKED)
def test_packed_as_a_whole(store, tmp_path, how):
    """As vendors offer their disks: .raw.xz, .img.gz; what is in it may be any of the formats."""
    if how == "zstd" and not shutil.which("zstd"):
        pytest.skip("zstd is not installed")
    for data in (DISK[:8 * MIB], convert(tmp_path, DISK[:8 * MIB], "qcow2")):
        image = do_import(store, PACKED[how](data), format="disk")
        assert [p["digest"] for p in image["partitions"]] == [sha256(DISK[:8 * MIB])]
        assert allocated(store / "partitions/sha256" / sha256(DISK[:8 * MIB])[7:]) < 4 * MIB
    with pytest.raises(Failure, match="more than"):
        do_import(store, PACKED[how](bytes(40 * MIB)), format="disk", **{"layer-bytes": 32 * MIB})


def test_limits(store, tmp_path):
    with pytest.raises(Failure, match="more than"):
        do_import(store, DISK, format="disk", **{"layer-bytes": MIB})
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "big.qcow2", "100G")
    with pytest.raises(Failure, match="more than"):
        do_import(store, (tmp_path / "big.qcow2").read_bytes(), format="disk", **{"layer-bytes": 1 << 30})


def test_every_cut_and_many_flips_end_in_a_disk_or_an_error(store, tmp_path):
    """No crash, no hang, nothing left: the answer is a partition or an error with a reason."""
    chance = random.Random(5)
    small = raw_disk(2, seed=3)
    for form, options in (("qcow2", ("-c",)), ("vmdk", ("-o", "subformat=streamOptimized")), ("vhdx", ()), ("vdi", ())):
        data = convert(tmp_path, small, form, *options)
        heads = sorted(chance.randrange(min(len(data), 200000)) for _ in range(6))
        for kind, at in [("cut", a) for a in heads[:3]] + [("flip", a) for a in heads[3:]]:
            bad = data[:at] if kind == "cut" else patched(data, at, bytes([data[at] ^ 0xff]))
            try:
                do_import(store, bad, format="disk")
            except Failure as failure:
                assert "signal" not in str(failure) and "without an answer" not in str(failure)


def test_cancelled_import_leaves_nothing(store):
    program = start_import(store, DISK * 4, format="disk")
    assert "progress" in program.read_line()
    program.signal(signal.SIGTERM)
    with pytest.raises(Failure):
        program.result()
    program.end()
    assert not pathlib.Path(store, "tmp").exists() or leftovers(store) == []
