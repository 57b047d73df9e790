# SPDX-License-Identifier: Apache-2.0
"""Readers with threads work below their limit of memory, however much there is to read: carrel-memory, carrel-bundle, carrel-convert."""
import gzip
import json
import os
import shlex
import subprocess
import tarfile
import uuid

import pytest

from conftest import add_busybox, import_image, tar_entry

GIB = 1 << 30


@pytest.fixture
def name():
    return "big" + uuid.uuid4().hex[:8]


def with_files(program, *arguments, files):
    """Runs it with the files as descriptors 3, 4, ...; the answer, which is no error."""
    moves = " ".join(f"{3 + i}<>{shlex.quote(str(path))}" for i, path in enumerate(files))
    done = subprocess.run(["sh", "-c", f'exec "$@" {moves}', "sh", program, *map(str, arguments)], stdout=subprocess.PIPE,
                          timeout=120)
    answer = json.loads(done.stdout)
    assert done.returncode == 0 and "error" not in answer, answer
    return answer


def test_memory_of_a_large_machine(shared_site, tmp_path):
    plain, packed, back, told = (tmp_path / n for n in ("plain", "packed", "back", "told"))
    places = {0: b"first", 200 * GIB + 12345: os.urandom(3 << 20), 256 * GIB - 100: b"last"}
    with open(plain, "wb") as file:
        file.truncate(256 * GIB)
        for at, data in places.items():
            file.seek(at)
            file.write(data)
    program = shared_site.program("carrel-memory")
    answer = with_files(program, "pack", 1, files=[plain, packed])
    with_files(program, "unpack", answer["digest"], 256 * GIB, files=[packed, back, told])
    assert told.read_bytes() == b"\0" and back.stat().st_size == 256 * GIB
    with open(back, "rb") as file:
        for at, data in places.items():
            file.seek(at)
            assert file.read(len(data)) == data


def test_image_of_many_and_large_files(shared_site, tmp_path, name):
    with (gzip.open(tmp_path / "big.tar.gz", "wb", compresslevel=1) as packed,
          tarfile.open(fileobj=packed, mode="w|") as archive):
        add_busybox(archive)
        for i in range(20000):
            tar_entry(archive, f"home/{i}", b"%d" % i)
        tar_entry(archive, "home/large", bytes(256 << 20))
    import_image(shared_site, name, tmp_path / "big.tar.gz")
    try:
        found = shared_site.carrel("run", "--network", "none", "--rm", name, "--", "sh", "-c",
                                   "ls /home | wc -l; wc -c < /home/large").stdout
    finally:
        shared_site.carrel("image", "rm", name)
    assert found.split() == ["20001", str(256 << 20)]


def test_bundle_of_a_large_volume(shared_site, shared_busybox, tmp_path, name):
    site = shared_site
    site.carrel("run", "-d", "--network", "none", "--name", name, "--volume", "data:64G:/data", "busybox", "--", "sleep",
                "100000")
    site.wait_state(name, "running")
    write = "for i in 1 2 3; do dd if=/dev/urandom of=/data/$i bs=1M count=16 seek=$((i * 600)); done 2>/dev/null; "
    sums = "for i in 1 2 3; do dd if=/data/$i bs=1M skip=$((i * 600)) 2>/dev/null | md5sum; done"
    before = site.carrel("exec", name, "--", "sh", "-c", write + sums).stdout
    assert len(set(before.split())) == 4
    site.carrel("stop", "-t", "0s", name)
    site.carrel("export", name, tmp_path / "bundle", timeout=300)
    site.carrel("rm", "-f", name)
    site.carrel("import", tmp_path / "bundle", timeout=300)
    site.carrel("start", name)
    site.wait_state(name, "running")
    try:
        assert site.carrel("exec", name, "--", "sh", "-c", sums).stdout == before
    finally:
        site.carrel("rm", "-f", name)
