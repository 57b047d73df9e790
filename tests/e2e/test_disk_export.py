# SPDX-License-Identifier: Apache-2.0
"""Disks in the formats of others: as QEMU reads them, as strict readers of a VMDK stream do, and back again."""
import hashlib
import io
import os
import re
import struct
import tarfile
import xml.etree.ElementTree
import zlib

import pytest

from disk_tools import MIB, convert, need_qemu_img, ova, qemu_img, raw_disk, sha256
from image_tools import Failure, Program, check_store, do_import, leftovers, need


@pytest.fixture
def store(tmp_path):
    need()
    need_qemu_img()
    yield tmp_path / "store"
    check_store(tmp_path / "store")
    assert leftovers(tmp_path / "store") == []


# two tables of a VMDK and of a qcow2 refer to nothing; the last grain and the last cluster are cut
DISK = raw_disk(70) + bytes(32 * MIB) + os.urandom(700) + bytes(324) + b"end".ljust(512, b".")


def export(store, image, form, folder):
    path = folder / f"out.{form}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    program = Program("carrel-export", {"store": str(store), "format": form, "image": image, "tag": "A <machine>"}, output=fd)
    os.close(fd)
    assert program.result().get("complete")
    assert program.end() == 0
    return path


@pytest.fixture
def image(store):
    image = do_import(store, DISK, format="raw")
    return {k: v for k, v in image.items() if k != "progress"}


@pytest.mark.parametrize("form", ["qcow2", "vmdk", "raw"])
def test_round_trip(store, image, tmp_path, form):
    path = export(store, image, form, tmp_path)
    reference = tmp_path / "reference.raw"
    reference.write_bytes(DISK)
    if form != "raw":
        qemu_img("check", "-f", form, path)
        assert os.path.getsize(path) < 8 * MIB
    qemu_img("compare", "-f", form, "-F", "raw", path, reference)
    back = do_import(store, path.read_bytes(), format="raw" if form == "raw" else "disk")
    assert back["partitions"][0]["digest"] == sha256(DISK)
    assert export(store, image, form, tmp_path).read_bytes() == path.read_bytes()


def test_vmdk_as_a_strict_reader_of_the_stream_sees_it(store, image, tmp_path):
    """Front to back, by the markers alone, as the format's specification has it."""
    data = export(store, image, "vmdk", tmp_path).read_bytes()
    assert data[:4] == b"KDMV" and struct.unpack_from("<II", data, 4) == (3, 0x30001)
    assert struct.unpack_from("<Q", data, 56)[0] == (1 << 64) - 1
    assert data[73:77] == b"\n \r\n" and struct.unpack_from("<H", data, 77)[0] == 1
    capacity, grain = struct.unpack_from("<QQ", data, 12)
    at, disk, grains, tables, footer = struct.unpack_from("<Q", data, 64)[0] * 512, bytearray(capacity * 512), {}, {}, None
    while True:
        value, size, kind = struct.unpack_from("<QII", data, at)
        if size:
            plain = zlib.decompress(data[at + 12:at + 12 + size])
            assert len(plain) == grain * 512
            grains[value] = at // 512
            disk[value * 512:value * 512 + len(plain)] = plain[:len(disk) - value * 512]
            at += (12 + size + 511) // 512 * 512
            continue
        if kind == 0:
            assert data[at:at + 512] == bytes(512) and at + 512 == len(data)
            break
        at += 512
        if kind == 1:
            tables[at // 512] = struct.unpack_from("<512I", data, at)
        elif kind == 2:
            directory_at, directory = at // 512, struct.unpack_from(f"<{value * 128}I", data, at)
        elif kind == 3:
            footer = data[at:at + 512]
        at += value * 512
    assert bytes(disk) == DISK
    assert struct.unpack_from("<Q", footer, 56)[0] == directory_at and footer[:56] == data[:56]
    for number, sector in enumerate(directory):
        for i, place in enumerate(tables[sector] if sector else ()):
            assert place == grains.get((number * 512 + i) * grain, 0)
    assert b'createType="streamOptimized"' in data[512:20 * 512] and b"parentCID=ffffffff" in data[512:20 * 512]


def test_ova(store, tmp_path):
    disks = [raw_disk(7, seed=4), raw_disk(6, seed=5)]
    vmdks = [convert(tmp_path, d, "vmdk", name=str(n)) for n, d in enumerate(disks)]
    image = do_import(store, ova(vmdks), format="disk")
    image.pop("progress")
    path = export(store, image, "ova", tmp_path)
    with tarfile.open(path) as archive:
        names = archive.getnames()
        members = {n: archive.extractfile(n).read() for n in names}
    assert names == ["machine.ovf", "machine.mf", "disk0.vmdk", "disk1.vmdk"]
    lines = re.findall(r"SHA256\((.*?)\)= ([0-9a-f]{64})\n", members["machine.mf"].decode())
    assert dict(lines) == {n: hashlib.sha256(members[n]).hexdigest() for n in names if n != "machine.mf"}
    tree = xml.etree.ElementTree.fromstring(members["machine.ovf"])
    space = {"o": "http://schemas.dmtf.org/ovf/envelope/1"}
    files = {f.get(f"{{{space['o']}}}href"): int(f.get(f"{{{space['o']}}}size")) for f in tree.iterfind(".//o:File", space)}
    assert files == {n: len(members[n]) for n in names[2:]}
    assert tree.find(".//o:VirtualSystem/o:Name", space).text == "A <machine>"
    back = do_import(store, path.read_bytes(), format="disk")
    assert [p["digest"] for p in back["partitions"]] == [sha256(d) for d in disks]
    assert back["machine"] == image["machine"]


def test_forms_that_do_not_fit(store, image, tmp_path):
    with pytest.raises(Failure, match="is a disk"):
        export(store, image, "oci", tmp_path)
    two = {**image, "partitions": image["partitions"] * 2}
    with pytest.raises(Failure, match="2 disks"):
        export(store, two, "qcow2", tmp_path)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("etc/hostname"))
    files = do_import(store, buffer.getvalue(), format="tar")
    files.pop("progress")
    with pytest.raises(Failure, match="no disk"):
        export(store, files, "vmdk", tmp_path)
