# SPDX-License-Identifier: Apache-2.0
"""Partitions beside three oracles: the kernel's mount, fsck.erofs, and what tar unpacks."""
import hashlib
import os
import pathlib
import random
import shutil
import stat
import subprocess
import time

import pytest

BUILD = pathlib.Path(os.environ.get("CARREL_BUILD_ROOT", pathlib.Path(__file__).parents[2] / "build"))
CONVERT = BUILD / "src/store/carrel-convert"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes devices and mounts images"),
    pytest.mark.skipif(not CONVERT.exists(), reason="carrel-convert is not built"),
]


def convert(archive, image):
    """Exit status and answer of one conversion."""
    read, write = os.pipe()
    with open(archive, "rb") as source, open(image, "w+b") as out:
        actions = [(os.POSIX_SPAWN_DUP2, source.fileno(), 0), (os.POSIX_SPAWN_DUP2, out.fileno(), 1),
                   (os.POSIX_SPAWN_DUP2, write, 3)]
        pid = os.posix_spawn(CONVERT, ["carrel-convert"], os.environ, file_actions=actions)
        os.close(write)
        with os.fdopen(read) as answer:
            text = answer.read()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def make_tree(root):
    rng = random.Random(7)
    (root / "d/e").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "many").mkdir()
    for number in range(3000):
        (root / f"many/file-{number}").write_bytes(bytes([number % 251]) * (number % 4200))
    for size in (0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8192, 1 << 20, (1 << 20) + 1):
        (root / f"size-{size}").write_bytes(rng.randbytes(size))
    (root / "d" / ("n" * 255)).write_text("long name")
    (root / "d/é中").write_text("not ASCII")
    with open(os.fsencode(root) + b"/d/\xff\xfe", "wb") as raw:
        raw.write(b"not UTF-8")
    for name in ("-a", "!", "...", "a b"):
        (root / "d" / name).mkdir()
    os.link(root / "size-4097", root / "d/hard")
    os.symlink("../size-1", root / "d/link")
    os.symlink("x" * 4000, root / "d/long-link")
    with open(root / "sparse", "wb") as sparse:
        sparse.truncate(6 << 30)
        sparse.seek(5 << 30)
        sparse.write(b"hello" * 1000)
    os.mknod(root / "char", stat.S_IFCHR | 0o620, os.makedev(5, 300))
    os.mknod(root / "block", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.mkfifo(root / "fifo")
    os.chmod(root / "size-1", 0o6755)
    os.chown(root / "size-0", 70000, 3000000000)
    os.setxattr(root / "size-1", "user.note", b"v" * 3000)
    os.setxattr(root / "d", "user.folder", b"\0binary\n")
    os.setxattr(root / "size-4096", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.utime(root / "size-0", ns=(0, -5_500_000_001))
    os.utime(root / "size-1", ns=(0, 1_234_567_890_123_456_789))


def describe(path):
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    facts = [st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns]
    if not stat.S_ISDIR(st.st_mode):
        facts += [st.st_nlink]
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        facts += [st.st_rdev]
    if kind == stat.S_IFLNK:
        facts += [os.readlink(path)]
    if kind == stat.S_IFREG and st.st_size < 1 << 30:
        facts += [st.st_size, hashlib.sha256(open(path, "rb").read()).hexdigest()]
    elif kind == stat.S_IFREG:
        with open(path, "rb") as large:
            large.seek(5 << 30)
            facts += [st.st_size, large.read(8192)]
    return facts + [sorted((name, os.getxattr(path, name, follow_symlinks=False))
                           for name in os.listxattr(path, follow_symlinks=False))]


def walk(root):
    root = os.fsencode(root)
    found = {b".": describe(root)}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = describe(path)
    return found


@pytest.fixture
def mounted(tmp_path):
    """Mounts an image at a folder; unmounted in the end."""
    point = tmp_path / "mounted"

    def mount(image):
        point.mkdir()
        done = subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", image, point], capture_output=True, text=True)
        if done.returncode:
            (pytest.fail(f"the kernel refuses the image: {done.stderr}") if "erofs" in open("/proc/filesystems").read()
             else pytest.skip("no erofs in this kernel"))
        return point

    yield mount
    if point.is_mount():
        subprocess.run(["umount", point], check=True)


@pytest.mark.parametrize("form", ["pax", "gnu"])
def test_same_as_tar_unpacks(tmp_path, mounted, form):
    tree, unpacked, archive, image = (tmp_path / name for name in ("tree", "unpacked", "a.tar", "a.erofs"))
    tree.mkdir()
    unpacked.mkdir()
    try:
        make_tree(tree)
    except OSError as error:
        pytest.skip(f"this file system or machine cannot hold the tree: {error}")
    xattrs = ["--xattrs", "--xattrs-include=*"] if form == "pax" else []
    subprocess.run(["tar", f"--format={form}", *xattrs, "-S", "-C", tree, "-cf", archive, "."], check=True)
    subprocess.run(["tar", "-C", unpacked, "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf", archive], check=True)
    status, answer = convert(archive, image)
    assert status == 0, answer
    if shutil.which("fsck.erofs"):
        assert subprocess.run(["fsck.erofs", image], capture_output=True).returncode == 0
    ours, theirs = walk(mounted(image)), walk(unpacked)
    assert ours.keys() == theirs.keys()
    assert {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]} == {}


def test_packed_archives_give_the_same_partition(tmp_path):
    tree, archive = tmp_path / "tree", tmp_path / "a.tar"
    tree.mkdir()
    (tree / "file").write_bytes(b"content" * 10000)
    subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
    answers = {convert(archive, tmp_path / "plain")}
    for tool in ("gzip", "xz", "zstd"):
        if shutil.which(tool):
            packed = tmp_path / f"a.{tool}"
            packed.write_bytes(subprocess.run([tool, "-c", archive], check=True, stdout=subprocess.PIPE).stdout)
            answers.add(convert(packed, tmp_path / tool))
    assert len(answers) == 1


def test_sockets_and_files_are_out_of_reach(tmp_path):
    """The converter has left its rights behind when it reads: seen from outside while it waits for its input."""
    read, write = os.pipe()
    image = open(tmp_path / "image", "w+b")
    answer_read, answer_write = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_DUP2, image.fileno(), 1), (os.POSIX_SPAWN_DUP2, answer_write, 3)]
    pid = os.posix_spawn(CONVERT, ["carrel-convert"], os.environ, file_actions=actions)
    os.close(answer_write)
    os.close(read)
    try:
        os.write(write, b"x" * 100)  # it waits for more
        fields = {}
        while fields.get("Seccomp") != "2":  # until it is in the sandbox
            assert not fields.get("State", "").startswith("Z"), "the converter ended early"
            time.sleep(0.01)
            fields = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
        assert fields["NoNewPrivs"] == "1"
        assert fields["CapEff"].strip("0") == fields["CapPrm"].strip("0") == ""
        assert "0" not in fields["Uid"].split()
    finally:
        os.close(write)
        with os.fdopen(answer_read) as answer:
            assert "error" in answer.read()
        assert os.waitpid(pid, 0)[1] != 0
        image.close()
