# SPDX-License-Identifier: Apache-2.0
"""What an image needs that is to be a host itself, inside a machine: our installed tree, programs with their libraries, firmware."""
import pathlib
import re
import shutil
import subprocess

FIRMWARE = ("bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin")


def libraries(program):
    return set(re.findall(r"(/\S+)", subprocess.run(["ldd", program], capture_output=True, text=True).stdout))


def add_programs(files, prefix, names):
    """The tree as /carrel, and programs of the host at their own places."""
    programs = {shutil.which(p): shutil.which(p) for p in names}
    for folder in ("bin", "sbin", "libexec/carrel"):
        for path in (prefix / folder).iterdir():
            programs[f"/carrel/{folder}/{path.name}"] = str(path)
    for inside, program in programs.items():
        files[inside] = (0o755, pathlib.Path(program).read_bytes())
        for library in libraries(program):
            files[library] = (0o755, pathlib.Path(library).read_bytes())


def add_firmware(files):
    for name in FIRMWARE:
        found = [p for p in (pathlib.Path("/usr/share/seabios") / name, pathlib.Path("/usr/share/qemu") / name) if p.exists()]
        files[f"/usr/share/{found[0].parent.name}/{name}"] = found[0].read_bytes()
