# SPDX-License-Identifier: Apache-2.0
"""Files and archives on the command line: images in and out, and `cp`."""
import io
import os
import signal
import subprocess
import tarfile
import time

import pytest

from conftest import CARREL, done, operation


# --- images ---

def member(name, data=b"x", **more):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def make_tar(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for m in members:
            tar.addfile(*m)
    return out.getvalue()


def take_import(fake):
    fake.answer("POST", "/v1/images", lambda r: (202, operation(fake, done(kind="import"))))


def test_import_of_archives(cli, fake, tmp_path):
    take_import(fake)
    plain, layout = make_tar(member("etc/passwd")), make_tar(member("oci-layout"), member("index.json"))
    saved = make_tar(member("0" * 64 + "/layer.tar"), member("manifest.json"))
    (tmp_path / "x.tar").write_bytes(plain)
    cli("image", "import", "a/b:c", tmp_path / "x.tar")
    cli("image", "import", "x", "-", input=layout)
    cli("image", "import", "x", "-", input=saved)
    cli("image", "import", "x", "-", input=b"\x1f\x8b whatever")
    cli("image", "import", "--format-image", "oci", "x", "-", input=plain)
    asked = fake.asked("POST")
    assert [r.query for r in asked] == [{"name": "a/b:c", "format": "tar"}] + [{"name": "x", "format": f}
                                                                               for f in ("oci", "oci", "tar", "oci")]
    assert asked[0].body == plain and asked[1].body == layout and asked[3].body == b"\x1f\x8b whatever"


def test_import_of_a_folder_is_deterministic(cli, fake, tmp_path):
    take_import(fake)
    for name in ("one", "two"):
        root = tmp_path / name
        (root / "etc").mkdir(parents=True)
        names = ["b", "a", "ü" * 60, "x" * 200]
        for n in names if name == "one" else reversed(names):
            (root / "etc" / n).write_text(n)
            os.utime(root / "etc" / n, (7, 7))
        os.link(root / "etc/a", root / "link")
        os.symlink("/etc/a", root / "soft")
        for path in (root / "etc", root):
            os.utime(path, (9, 9))
        os.utime(root / "soft", (9, 9), follow_symlinks=False)
        cli("image", "import", "x", root)
    first, second = fake.asked("POST")
    assert first.body == second.body and first.query["format"] == "tar"
    with tarfile.open(fileobj=io.BytesIO(first.body)) as tar:
        assert {m.name for m in tar} == {".", "./etc", "./etc/a", "./etc/b", "./etc/" + "ü" * 60, "./etc/" + "x" * 200,
                                         "./link", "./soft"}
        assert tar.getmember("./link").islnk() and tar.getmember("./soft").linkname == "/etc/a"
    (tmp_path / "one/oci-layout").write_text("{}")
    cli("image", "import", "x", tmp_path / "one")
    assert fake.asked("POST")[-1].query["format"] == "oci"


def test_import_from_a_registry(cli, fake):
    take_import(fake)
    cli("image", "import", "alpine", "docker://docker.io/library/alpine:3")
    assert fake.asked("POST")[0].json == {"name": "alpine", "source": "docker://docker.io/library/alpine:3"}


def test_import_failures(cli, fake, tmp_path):
    take_import(fake)
    cli.fails(4, "image", "import", "x", tmp_path / "absent")
    cli.fails(2, "image", "import", "x", "-", input=b"")
    cli.fails(2, "image", "import", "x", "debian:--help")
    assert "apt install mmdebstrap" in cli.fails(7, "image", "import", "x", "debian:bookworm", env={"PATH": str(tmp_path)})
    (tmp_path / "mmdebstrap").write_text("#!/bin/sh\necho 'I: one' >&2; echo 'E: no such suite' >&2; exit 3\n")
    (tmp_path / "mmdebstrap").chmod(0o755)
    assert "E: no such suite" in cli.fails(1, "image", "import", "x", "debian:nonsense",
                                           env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    (tmp_path / "mmdebstrap").write_text("#!/bin/sh\nhead -c 100000 /dev/zero; echo 'E: disk is full' >&2; exit 1\n")
    assert "E: disk is full" in cli.fails(1, "image", "import", "x", "debian:bookworm",
                                          env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    fake.refuse("POST", "/v1/images", 507, "no-capacity", "the store is full")
    assert "the store is full" in cli.fails(6, "image", "import", "x", "-", input=make_tar(member("a", b"z" * 5_000_000)))


def test_import_of_debian_passes_its_options(cli, fake, tmp_path):
    take_import(fake)
    (tmp_path / "mmdebstrap").write_text(f'#!/bin/sh\necho "$SOURCE_DATE_EPOCH $@" > {tmp_path}/asked; echo tar\n')
    (tmp_path / "mmdebstrap").chmod(0o755)
    cli("image", "import", "x", "debian:bookworm", "--include", "cron,ssh", "--variant", "minbase", "--mirror", "http://m/",
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SOURCE_DATE_EPOCH": "77"})
    assert ((tmp_path / "asked").read_text()
            == "77 --mode=auto --format=tar --variant=minbase --include=cron,ssh bookworm - http://m/\n")
    assert fake.asked("POST")[0].body == b"tar\n"


def test_an_interrupt_ends_an_import(cli, fake, tmp_path):
    take_import(fake)
    reader, writer = os.pipe()
    process = subprocess.Popen([CARREL, "image", "import", "x", "-"], env=cli.env, stdin=reader, stderr=subprocess.PIPE)
    os.write(writer, b"y" * 70000)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 10
    os.close(writer), os.close(reader), process.stderr.close()


def test_export(cli, fake, tmp_path):
    fake.answer("GET", "/v1/images/debian/export", b"archive" * 10000)
    cli("image", "export", "debian", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"archive" * 10000 and os.listdir(tmp_path) == ["x"]
    assert cli("image", "export", "--format-image", "tar", "debian", "-").stdout == b"archive" * 10000
    assert [r.query["format"] for r in fake.requests] == ["oci", "tar"]


def test_export_leaves_nothing_half_made(cli, fake, tmp_path):
    def short(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
        connection.shutdown(2)
    fake.answer("GET", "/v1/images/debian/export", lambda r: (200, short))
    (tmp_path / "x").write_text("old")
    cli.fails(9, "image", "export", "debian", tmp_path / "x")
    assert (tmp_path / "x").read_text() == "old" and os.listdir(tmp_path) == ["x"]
    fake.answer("GET", "/v1/images/debian/export", b"z" * 100000)
    assert "No space left" in cli.fails(6, "image", "export", "debian", "-", stdout=open("/dev/full", "wb"))


# --- cp ---

class Inside:
    """A folder that plays the workspace's files: copy-in unpacks, copy-out packs."""

    def __init__(self, fake, root):
        self.root = root
        fake.answer("GET", "/v1/workspaces/web", {"id": "0" * 16, "name": "web"})
        fake.stream("/v1/workspaces/web/copy-in", self.copy_in)
        fake.stream("/v1/workspaces/web/copy-out", self.copy_out)

    def copy_in(self, stream):
        folder = self.root / stream.first["path"].lstrip("/")
        if not folder.is_dir():
            stream.text({"error": {"kind": "not-found", "message": f"no folder {stream.first['path']}"}})
            return
        with tarfile.open(fileobj=io.BytesIO(stream.input_until_end())) as tar:
            self.last = tar.getmembers()
            tar.extractall(folder)
        stream.exit(0)

    def copy_out(self, stream):
        path = self.root / stream.first["path"].lstrip("/")
        if not path.exists():
            stream.text({"error": {"kind": "not-found", "message": f"no {stream.first['path']}"}})
            return
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            tar.add(path, arcname=path.name)
        data = out.getvalue()
        for at in range(0, len(data), 60000):
            stream.output(data[at:at + 60000])
        stream.exit(0)


@pytest.fixture
def inside(fake, tmp_path):
    root = tmp_path / "inside"
    (root / "there").mkdir(parents=True)
    (root / "file").write_text("inside")
    return Inside(fake, root)


def tree(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def test_cp_into(cli, fake, inside, tmp_path):
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/sub/f").write_text("hello")
    (tmp_path / "one").write_bytes(b"1" * 200000)
    cli("cp", tmp_path / "one", "web:/there")
    cli("cp", tmp_path / "one", "web:/there/")
    cli("cp", tmp_path / "one", "web:/there/two")
    cli("cp", tmp_path / "src", "web:/there")
    cli("cp", f"{tmp_path}/src/.", "web:/there")
    cli("cp", tmp_path / "src", "web:/new")
    cli("cp", tmp_path / "one", "web:/file")
    assert tree(inside.root / "there") == ["one", "src", "src/sub", "src/sub/f", "sub", "sub/f", "two"]
    assert tree(inside.root / "new") == ["sub", "sub/f"] and (inside.root / "file").read_bytes() == b"1" * 200000
    assert all(m.uid == 0 for m in inside.last)
    assert "over the file" in cli.fails(5, "cp", tmp_path / "src", "web:/file")
    cli.fails(4, "cp", tmp_path / "one", "web:/absent/")
    cli.fails(4, "cp", tmp_path / "one", "web:/absent/x")
    cli.fails(4, "cp", tmp_path / "absent", "web:/there")


def test_cp_out_of(cli, fake, inside, tmp_path):
    (inside.root / "there/sub").mkdir()
    (inside.root / "there/sub/f").write_bytes(b"2" * 300000)
    here = tmp_path / "here"
    here.mkdir()
    cli("cp", "web:/file", here)
    cli("cp", "web:/file", here / "renamed")
    cli("cp", "web:/there", here)
    cli("cp", "web:/there/.", here)
    cli("cp", "web:/there", here / "new")
    assert tree(here) == ["file", "new", "new/sub", "new/sub/f", "renamed", "sub", "sub/f", "there", "there/sub", "there/sub/f"]
    assert (here / "new/sub/f").read_bytes() == b"2" * 300000
    cli.fails(4, "cp", "web:/absent", here)
    cli.fails(5, "cp", "web:/there", here / "file")
    cli.fails(4, "cp", "web:/file", f"{here}/absent/")


def test_cp_of_tars(cli, fake, inside):
    cli("cp", "-", "web:/there", input=make_tar(member("a/b")))
    assert tree(inside.root / "there") == ["a", "a/b"]
    with tarfile.open(fileobj=io.BytesIO(cli("cp", "web:/there", "-").stdout)) as tar:
        assert tar.getnames() == ["there", "there/a", "there/a/b"]


def test_cp_of_nonsense(cli, fake, inside, tmp_path):
    assert "exactly one" in cli.fails(2, "cp", "a", "b")
    assert "exactly one" in cli.fails(2, "cp", "web:/a", "web:/b")
    cli.fails(2, "cp", "web:relative", tmp_path)
    cli.fails(2, "cp", ":/x", tmp_path)
    cli.fails(4, "cp", "other:/x", tmp_path)


@pytest.mark.parametrize("members", [
    [member("x/../../evil")], [member("/evil")], [member("../evil")], [member("other/evil")],
    [member("x", b"", type=tarfile.SYMTYPE, linkname="/tmp"), member("x/evil")],
    [member("x/l", b"", type=tarfile.SYMTYPE, linkname=".."), member("x/l/evil")],
    [member("x/h", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")],
    [member("x/h", b"", type=tarfile.LNKTYPE, linkname="x/../../secret")],
])
def test_a_workspace_cannot_write_outside_the_destination(cli, fake, tmp_path, members):
    fake.answer("GET", "/v1/workspaces/web", {"id": "0" * 16})

    def evil(stream):
        data = make_tar(*members)
        stream.output(data)
        stream.exit(0)
    fake.stream("/v1/workspaces/web/copy-out", evil)
    (tmp_path / "secret").write_text("secret")
    here = tmp_path / "a/b"
    here.mkdir(parents=True)
    before = set(tree(tmp_path))
    result = subprocess.run([CARREL, "cp", "web:/x", here], env=cli.env, capture_output=True, timeout=120)
    made = set(tree(tmp_path)) - before
    assert result.returncode != 0
    assert all(p.startswith("a/b/x") for p in made) and not any("evil" in p for p in made) and not os.path.exists("/tmp/evil")
