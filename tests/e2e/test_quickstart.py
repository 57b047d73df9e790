# SPDX-License-Identifier: Apache-2.0
"""./quickstart in a place of its own: first run, second run, --stop, --remove. Its packages are here already, so nothing is installed."""
import os
import shutil
import subprocess

import pytest

import conftest


@pytest.fixture
def place():
    while True:  # until the ids that follow from the name (quickstart) are none of those that a Site may have
        path = conftest.pathlib.Path(conftest.tempfile.mkdtemp(prefix="carrel-test-qs-", dir="/var/tmp"))
        if int(subprocess.run(["cksum"], input=f"{path}/q".encode(), capture_output=True).stdout.split()[0]) % 100 + 8 >= 100:
            break
        path.rmdir()
    path.chmod(0o755)
    yield path
    leftovers = conftest.host_processes(str(path)) + conftest.host_mounts(str(path)) + conftest.host_loops(str(path))
    for entry in conftest.host_processes(str(path)):
        os.kill(int(entry.split()[0]), 9)
    for line in reversed(conftest.host_mounts(str(path))):
        subprocess.run(["umount", "-l", line.split()[4]], check=False)
    shutil.rmtree(path, ignore_errors=True)
    assert leftovers == []


def quickstart(place, *arguments, ok=0, timeout=900):
    done = subprocess.run([conftest.ROOT / "quickstart", "--private", place / "q", "--build", place / "build", *arguments],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout)
    logs = "".join(p.read_text(errors="replace")[-2000:] for p in (place / "q" / "log").glob("*.log"))
    assert done.returncode == ok, done.stdout + logs
    return done.stdout


def carrel(place, *arguments):
    return subprocess.run([place / "q" / "prefix" / "bin" / "carrel", "--address", f"unix:{place}/q/run/carreld.sock",
                           *arguments],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)


def test_from_a_clone_to_a_workspace_and_back(place, alone_on_the_host):
    had_user = subprocess.run(["id", "carrel"], capture_output=True).returncode == 0
    first = quickstart(place)
    assert "Debian GNU/Linux 12" in first and "first process systemd" in first
    assert "Try next:" in first and first.count(" exec -it first -- bash") == 1
    assert carrel(place, "exec", "first", "--", "sh", "-c", "echo hello > /root/hello").returncode == 0
    # the service runs without privileges
    pid = int((place / "q" / "run" / "carreld.pid").read_text())
    assert os.stat(f"/proc/{pid}").st_uid != 0

    second = quickstart(place)
    assert "runs already" in second and "image debian is here" in second
    assert int((place / "q" / "run" / "carreld.pid").read_text()) == pid

    stopped = quickstart(place, "--stop")
    assert "have ended" in stopped
    assert conftest.host_processes(str(place)) == [] and conftest.host_mounts(str(place)) == []
    quickstart(place)
    assert carrel(place, "exec", "first", "--", "cat", "/root/hello").stdout == "hello\n"

    kept = quickstart(place, "--remove")
    assert "kept" in kept and (place / "q" / "state").exists() and not (place / "q" / "prefix").exists()
    if not had_user:  # it owns what was kept
        assert subprocess.run(["id", "carrel"], capture_output=True).returncode == 0
    quickstart(place, "--remove", "--yes")
    assert not (place / "q").exists()
    assert (subprocess.run(["id", "carrel"], capture_output=True).returncode == 0) == had_user


def test_help_and_unknown_options(place):
    assert "--remove" in quickstart(place, "--help")
    assert "unknown option" in quickstart(place, "--wat", ok=2)


def test_says_who_may_run_it(place):
    done = subprocess.run([conftest.ROOT / "quickstart"], user=65534, group=65534, extra_groups=[], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=120)
    if "Permission denied" in done.stderr:
        pytest.skip("the source tree cannot be read by other users here")
    assert done.returncode == 1 and "root" in done.stderr
