# SPDX-License-Identifier: Apache-2.0
"""Disk images for tests: made by qemu-img, the reference, and archives of them made by hand."""
import hashlib
import io
import os
import random
import shutil
import subprocess
import tarfile

import pytest

MIB = 1 << 20


def need_qemu_img():
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img (qemu-utils) is not installed")


def raw_disk(megabytes=24, seed=1):
    """A disk with a boot sector, data that compresses and data that does not, and much that is zero."""
    chance = random.Random(seed)
    disk = bytearray(megabytes * MIB)
    disk[0:3] = b"\xeb\xfe\x90"
    disk[510:512] = b"\x55\xaa"
    disk[MIB:MIB + 300000] = chance.randbytes(300000)
    disk[5 * MIB + 100:5 * MIB + 400100] = b"text " * 80000
    for _ in range(40):
        at = chance.randrange(len(disk) // 512) * 512
        disk[at:at + 512] = chance.randbytes(512)
    disk[-512:] = b"the last sector ".ljust(512, b"!")
    return bytes(disk)


def qemu_img(*words):
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def convert(folder, disk, form, *options, name="disk"):
    """`disk` (bytes) as another format, by qemu-img."""
    source, target = folder / f"{name}.raw", folder / f"{name}.{form}"
    source.write_bytes(disk)
    qemu_img("convert", "-f", "raw", "-O", form, *options, source, target)
    return target.read_bytes()


OVF = """<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData" xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References>{files}</References>
 <DiskSection><Info>disks</Info>{disks}</DiskSection>
 <VirtualSystem ovf:id="vm"><Info>one machine</Info><VirtualHardwareSection><Info>hardware</Info>
  <Item><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
  <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>384</rasd:VirtualQuantity></Item>
  {items}<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/>
 </VirtualHardwareSection></VirtualSystem></Envelope>
"""


def ova(disks, ovf=None, manifest=True, names=None, extra=()):
    """An OVA of VMDKs; `ovf` replaces the description."""
    names = names or [f"disk{n}.vmdk" for n in range(len(disks))]
    if ovf is None:
        ovf = OVF.format(
            files="".join(f'<File ovf:id="f{n}" ovf:href="{name}"/>' for n, name in enumerate(names)),
            disks="".join(f'<Disk ovf:diskId="d{n}" ovf:fileRef="f{n}" ovf:capacity="1"/>' for n in range(len(names))),
            items="".join(f"<Item><rasd:HostResource>ovf:/disk/d{n}</rasd:HostResource>"
                          "<rasd:ResourceType>17</rasd:ResourceType></Item>"
                          for n in range(len(names))))
    members = [("vm.ovf", ovf.encode())] + list(zip(names, disks))
    if manifest:
        text = "".join(f"SHA256({name})= {hashlib.sha256(data).hexdigest()}\n" for name, data in members)
        members.insert(1, ("vm.mf", text.encode()))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in [*members, *extra]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def allocated(path):
    return os.stat(path).st_blocks * 512


def boot_disk(message, megabytes=2):
    """A raw disk whose boot sector writes `message` to the screen and the first serial line, and halts."""
    # cli; ds, es, ss = 0; sp = 0x7c00; sti; cld; si = 0x7c80
    # next: lodsb; test al, al; jz halt; teletype by int 0x10; wait for the line (0x3fd, bit 5); out 0x3f8; jmp next
    # halt: hlt; jmp halt
    code = bytes.fromhex("fa31c08ed88ec08ed0bc007cfbfcbe807c ac84c0741bb40ebb070050cd1058 88c4bafd03eca82074fb 88e0baf803ee "
                         "ebe0 f4ebfd")
    sector = code.ljust(0x80, b"\x90") + message + b"\r\n\0"
    return sector.ljust(510, b"\0") + b"\x55\xaa" + bytes(megabytes * MIB - 512)
