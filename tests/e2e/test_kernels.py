# SPDX-License-Identifier: Apache-2.0
"""Kernels for machines: imported, chosen, kept and removed. No machine is booted here (test_machine.py)."""
import shutil
import subprocess
import tarfile


def kernels(site):
    return {k["name"]: k for k in site.api("GET", "/v1/kernels")[1]["items"]}


def test_the_first_kernel_becomes_the_default_and_equal_packages_one_partition(site, kernel_deb, tmp_path):
    refused = site.carrel("kernel", "show", "linux", ok=None)
    assert refused.returncode and "carrel kernel import linux debian:bookworm" in refused.stderr
    site.carrel("kernel", "import", "linux", kernel_deb)
    site.carrel("kernel", "import", "again", kernel_deb)
    found = kernels(site)
    assert found["linux"]["default"] and not found["again"]["default"]
    assert found["linux"]["partition"] == found["again"]["partition"]
    assert "cloud-amd64" in found["linux"]["release"] and found["linux"]["architecture"] == "amd64"
    site.carrel("kernel", "default", "again")
    assert kernels(site)["again"]["default"] and not kernels(site)["linux"]["default"]
    site.carrel("kernel", "rm", "again")
    assert list(kernels(site)) == ["linux"] and not kernels(site)["linux"]["default"]
    # a folder with the same files gives the same partition
    subprocess.run(["dpkg-deb", "-x", kernel_deb, tmp_path / "files"], check=True)
    site.carrel("kernel", "import", "folder", tmp_path / "files")
    assert kernels(site)["folder"]["partition"] == found["linux"]["partition"]
    assert kernels(site)["folder"]["default"]


def test_kernels_and_images_are_told_apart(site, kernel_deb):
    site.carrel("kernel", "import", "linux", kernel_deb)
    assert site.api("GET", "/v1/images")[1]["items"] == []
    assert "is a kernel" in site.carrel("image", "rm", "linux", ok=None).stderr
    assert "is a kernel" in site.carrel("deploy", "linux", ok=None).stderr
    site.carrel("image", "export", "--format-image", "partitions", "linux", site.folder / "linux.oci")
    assert tarfile.open(site.folder / "linux.oci").getnames()
    site.carrel("image", "import", "back", site.folder / "linux.oci")
    assert kernels(site)["back"]["partition"] == kernels(site)["linux"]["partition"]


def test_what_is_no_kernel_is_refused(site, kernel_deb, tmp_path):
    (tmp_path / "noise").write_bytes(b"no package at all")
    assert "cannot be read" in site.carrel("kernel", "import", "x", tmp_path / "noise", ok=None).stderr
    empty = tmp_path / "empty"
    (empty / "boot").mkdir(parents=True)
    (empty / "boot/readme").write_text("nothing")
    assert "no kernel" in site.carrel("kernel", "import", "x", empty, ok=None).stderr
    shutil.rmtree(empty / "boot")
    files = tmp_path / "files"
    subprocess.run(["dpkg-deb", "-x", kernel_deb, files], check=True)
    config = next(files.glob("boot/config-*"))
    config.write_text(config.read_text().replace("CONFIG_EROFS_FS=m", "# CONFIG_EROFS_FS is not set"))
    assert "CONFIG_EROFS_FS" in site.carrel("kernel", "import", "x", files, ok=None).stderr
    assert kernels(site) == {}


def test_a_machine_without_kernel_says_which_command_makes_one(site, busybox):
    done = site.carrel("deploy", "busybox", "--engine", "emulator", "--network", "none", "--", "true", ok=None)
    assert "carrel kernel import linux-amd64 debian:bookworm" in done.stderr
    done = site.carrel("deploy", "busybox", "--isolation", "machine", "--engine", "workspace", "--", "true", ok=None)
    assert "is no machine" in done.stderr
