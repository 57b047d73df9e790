# SPDX-License-Identifier: Apache-2.0
"""What an image needs that is to be a host itself, inside a machine: our installed tree, programs with their libraries, modules, firmware, and a
script of cases."""
import pathlib
import re
import shlex
import shutil
import subprocess

FIRMWARE = ("bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin", "vgabios-stdvga.bin", "keymaps/en-us")
PLACES = ("/usr/share/seabios", "/usr/share/qemu")
TRY = r"""
try() { name=$1; shift; if "$@" >/tmp/out 2>&1; then echo "ok - $name"; else echo "not ok - $name: $(tr '\n' '|' </tmp/out)"; fi; }
"""


def cases(text):
    """Each case is a name, on a line of its own, and the indented lines of what must succeed."""
    return dict(re.findall(r"^(\S.*)\n((?: .*\n)+)", text, re.M))


def script(named):
    return TRY + "".join(f"case_{i}() {{\n{what}\n}}\ntry {shlex.quote(name)} case_{i}\n"
                         for i, (name, what) in enumerate(named.items()))


def passed(log):
    return re.findall(r"^ok - (.*?)\r?$", log, re.M)


def libraries(program):
    return set(re.findall(r"(/\S+)", subprocess.run(["ldd", program], capture_output=True, text=True).stdout))


def add_program(files, inside, program):
    files[inside] = (0o755, pathlib.Path(program).read_bytes())
    for library in libraries(program):
        files[library] = (0o755, pathlib.Path(library).read_bytes())


def add_programs(files, prefix, names):
    """The tree as /carrel, and programs of the host at their own places."""
    for name in names:
        add_program(files, shutil.which(name), shutil.which(name))
    for folder in ("bin", "sbin", "libexec/carrel"):
        for path in (prefix / folder).iterdir():
            add_program(files, f"/carrel/{folder}/{path.name}", path)


def add_firmware(files):
    for name in FIRMWARE:
        path = next(p for p in (pathlib.Path(place) / name for place in PLACES) if p.exists())
        files[str(path)] = path.read_bytes()


def add_criu(files, program):
    """CRIU with what lies beside it, as /criu/criu."""
    for path in pathlib.Path(program).parent.rglob("*"):
        if path.is_file():
            files["/criu/" + str(path.relative_to(pathlib.Path(program).parent))] = (0o755, path.read_bytes())
    for library in libraries(program):
        files[library] = (0o755, pathlib.Path(library).read_bytes())


def add_modules(files, package, folder, names=None):
    """Modules of the kernel's package with those that they need, for modprobe; without names all of them."""
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    root = next((folder / "lib/modules").iterdir())
    paths = {path.stem.replace("-", "_"): path for path in root.rglob("*.ko")}
    wanted = list(names or ())
    taken = set() if names else set(paths.values())
    while wanted:
        path = paths.get(wanted.pop().replace("-", "_"))
        if path and path not in taken:
            taken.add(path)
            needs = subprocess.run(["modinfo", "-F", "depends", path], check=True, capture_output=True, text=True).stdout
            wanted += [name for name in needs.strip().split(",") if name]
    for path in set(paths.values()) - taken:
        path.unlink()
    subprocess.run(["depmod", "-b", folder, root.name], check=True)
    for path in [*taken, *root.glob("modules.*")]:
        files["/" + str(path.relative_to(folder))] = path.read_bytes()
    add_program(files, "/sbin/modprobe", shutil.which("modprobe"))
