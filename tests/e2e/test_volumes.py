# SPDX-License-Identifier: Apache-2.0
"""Volumes of real workspaces: limits, space given back, kept ones, snapshots, growth, and files copied into workspaces at rest."""
import time

import pytest

SLEEP = ["/bin/sleep", "1000"]


def deploy(site, name, state="running", **spec):
    status, answer, _ = site.api("POST", "/v1/workspaces",
                                 {"spec": {"name": name, "image": "busybox", "command": SLEEP, "stop-timeout": "1s", **spec}})
    assert status == 201, answer
    return site.wait_state(name, state)


def shell(site, name, script, **how):
    return site.carrel("exec", name, "--", "/bin/sh", "-c", script, **how).stdout


def volume_file(site, workspace, name="root"):
    return site.state / "node" / "workspaces" / workspace["id"] / "volumes" / f"{name}.ext4"


def test_size_is_a_hard_limit_and_space_comes_back(site, busybox):
    workspace = deploy(site, "small", resources={"disk": "48M"})
    done = site.carrel("exec", "small", "--", "/bin/dd", "if=/dev/zero", "of=/big", "bs=1M", "count=200", ok=None)
    assert done.returncode != 0 and "No space left" in done.stderr
    path = volume_file(site, workspace)
    assert path.stat().st_size == 48 << 20
    shell(site, "small", "sync")
    full = path.stat().st_blocks * 512
    assert full > 24 << 20
    shell(site, "small", "rm /big; sync")
    site.wait(lambda: path.stat().st_blocks * 512 < full // 2 or shell(site, "small", "sync"), 60, "space given back")


def test_kept_volume_belongs_to_its_owner(site, busybox):
    data = {"volumes": [{"name": "data", "size": "32M", "mount": "/data", "keep": True}]}
    deploy(site, "first", **data)
    assert shell(site, "first", "ls -A /data; echo treasure > /data/x; sync") == ""  # no lost+found
    status, answer, _ = site.api("POST", "/v1/workspaces",
                                 {"spec": {"name": "second", "image": "busybox", "command": SLEEP, **data}})
    assert status == 409 and "data" in answer["error"]["message"]
    site.carrel("rm", "-f", "first")
    site.wait(lambda: site.workspace("first") is None, 60, "removal")
    site.wait(lambda: [v["name"] for v in site.api("GET", "/v1/volumes")[1]["items"]] == ["data"], 60, "the list of volumes")
    deploy(site, "third", **data)
    assert shell(site, "third", "cat /data/x") == "treasure\n"
    site.carrel("rm", "-f", "third")
    site.wait(lambda: site.workspace("third") is None, 60, "removal")
    status, answer, _ = site.api("DELETE", "/v1/volumes/data")
    assert status < 300, answer
    site.wait(lambda: site.api("GET", "/v1/volumes")[1]["items"] == [], 60, "the volume to go")
    assert not list((site.state / "node" / "kept").glob("*/*.ext4"))


def test_snapshot_of_a_paused_workspace(site, busybox):
    deploy(site, "w", resources={"disk": "32M"})
    shell(site, "w", "echo before > /x")  # not synced: the pause must see to that
    site.carrel("pause", "w")
    site.carrel("snapshot", "create", "w", "one")
    site.carrel("resume", "w")
    shell(site, "w", "echo after > /x")
    site.carrel("stop", "w")
    site.carrel("snapshot", "restore", "w", "one")
    site.carrel("start", "w")
    site.wait_state("w", "running")
    assert shell(site, "w", "cat /x") == "before\n"
    site.carrel("snapshot", "rm", "w", "one")  # also while it runs
    workspace = site.workspace("w")
    assert workspace["snapshots"] == []
    assert list((site.state / "node" / "workspaces" / workspace["id"] / "snapshots").iterdir()) == []


def test_grown_by_the_next_start_at_the_latest(site, busybox):
    deploy(site, "w", resources={"disk": "32M"})
    size = "df -k / | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"
    before = int(shell(site, "w", size))
    status, answer, _ = site.api("PATCH", "/v1/workspaces/w", {"resources": {"disk": "96M"}})
    assert status == 200, answer
    site.carrel("stop", "w")
    site.carrel("start", "w")
    site.wait_state("w", "running")
    assert int(shell(site, "w", size)) > 2 * before


def test_growth_that_has_to_wait_is_told(new_site, busybox_tar, tmp_path):
    plan = tmp_path / "faults"
    plan.write_text("")
    site = new_site(env={"CARREL_FAULTS": str(plan)})
    site.carrel("image", "import", "busybox", busybox_tar)
    deploy(site, "w", resources={"disk": "32M"})
    plan.write_text("volume-grow-mounted EPERM\n")  # as for a root without CAP_SYS_RESOURCE
    told = site.carrel("set", "w", "--disk", "96M")
    if "EPERM" in plan.read_text():
        pytest.skip("no fault points: this build has none (meson setup -Dfaults=true)")
    assert "at the next start" in told.stderr
    assert "at the next start" in site.workspace("w")["notice"]
    site.carrel("stop", "w")
    site.carrel("start", "w")
    assert "notice" not in site.wait_state("w", "running")
    assert "next start" not in site.carrel("set", "w", "--label", "a=b").stderr


def test_a_stop_has_its_own_time(site, busybox):
    """--timeout is this stop's: the spec's is as before, and counts for the next one."""
    for name, timeout in (("w", 100), ("v", 2)):
        deploy(site, name, command=["/bin/sh", "-c", "trap '' TERM; echo deaf; while true; do sleep 1000; done"],
               **{"stop-timeout": f"{timeout}s"})
        site.wait(lambda name=name: "deaf" in site.carrel("logs", name).stdout)
        before = site.workspace(name)["spec"]
        started = time.monotonic()
        site.carrel("stop", "--timeout", "0s", name)
        assert time.monotonic() - started < 100
        assert site.workspace(name)["spec"] == before
    site.carrel("start", "v")
    site.wait(lambda: site.carrel("logs", "v").stdout.count("deaf") == 2)
    started = time.monotonic()
    site.carrel("stop", "v")
    assert time.monotonic() - started >= 2


def test_copies_at_rest(site, busybox, tmp_path):
    deploy(site, "w")
    shell(site, "w", "echo inside > /root/made-inside")
    site.carrel("stop", "w")
    (tmp_path / "note").write_text("from outside\n")
    site.carrel("cp", tmp_path / "note", "w:/root/note")
    site.carrel("cp", "w:/root/made-inside", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "inside\n"
    site.carrel("start", "w")
    site.wait_state("w", "running")
    assert shell(site, "w", "cat /root/note") == "from outside\n"


def test_restart_policy_and_logs(site, busybox):
    status, answer, _ = site.api("POST", "/v1/workspaces", {"spec": {
        "name": "twice", "image": "busybox", "restart": "on-failure",
        "command": ["/bin/sh", "-c", "if [ -e /ran ]; then echo second; exit 0; fi; touch /ran; echo first; exit 3"]}})
    assert status == 201, answer
    ended = site.wait_state("twice", "stopped")
    assert ended["restarts"] == 1 and ended["exit_status"] == 0
    assert site.carrel("logs", "twice").stdout == "first\nsecond\n"
    assert site.carrel("logs", "--tail", "1", "twice").stdout == "second\n"


def test_loop_mounts_work_as_well(new_site, busybox_tar):
    """Kernels before 6.12 mount partitions through loop devices; so can this one."""
    site = new_site(node_args=["--mount", "loop"])
    site.carrel("image", "import", "busybox", busybox_tar)
    assert site.carrel("run", "--rm", "busybox", "--", "/bin/echo", "hello").stdout == "hello\n"
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        lines = [line for line in f if str(site.run) in line]
    assert len(lines) == 1 and "/dev/loop" in lines[0]


def test_volumes_that_are_thrown_away_are_used_again(site, busybox):
    """The same files serve one run after the other, and nothing of one is there in the next."""
    def ready():
        return sorted(p.stat().st_ino for p in (site.state / "node" / "blanks").glob("ready-*"))

    def full():
        names = ready()
        return names if len(names) == 4 else None
    site.carrel("run", "--rm", "busybox", "--", "true")  # its size is wanted from now on
    before = site.wait(full, what="volumes made ready")
    for number in range(6):
        out = site.carrel("run", "--rm", "busybox", "--", "sh", "-c",
                          f"cat /root/file /tmp/file 2>/dev/null; echo secret{number} > /root/file; echo x > /tmp/file").stdout
        assert out.strip() == ""
        site.wait(lambda: ready() == before, what="the volume to come back")
