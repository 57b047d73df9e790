# SPDX-License-Identifier: Apache-2.0
"""The life of a workspace as its user sees it: programs in small images, every verb of the command line against real processes."""
import json
import os
import pathlib
import signal
import subprocess
import tarfile
import time
import threading
import uuid

import pytest


@pytest.fixture
def name():
    return "t" + uuid.uuid4().hex[:8]


@pytest.fixture
def here(shared_site, shared_busybox):
    return shared_site


def output(site, name, *command, **how):
    return site.carrel("exec", name, "--", *command, **how).stdout


# --- run ---


def test_run_gives_output_errors_and_status(here):
    done = here.carrel("run", "--rm", "busybox", "--", "sh", "-c", "echo out; echo err >&2; exit 7", ok=7)
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr


def test_run_rm_leaves_no_workspace(here, name):
    here.carrel("run", "--rm", "--name", name, "busybox", "--", "true")
    assert here.workspace(name) is None


def test_run_without_rm_keeps_workspace_and_status(here, name):
    here.carrel("run", "--name", name, "busybox", "--", "sh", "-c", "exit 3", ok=3)
    found = here.wait_state(name, "stopped")
    assert found["exit_status"] == 3
    here.carrel("rm", name)


def test_run_sends_standard_input(here):
    data = os.urandom(300000)
    done = here.carrel("run", "--rm", "-i", "busybox", "--", "cat", input=data, binary=True)
    assert done.stdout == data


def test_run_loses_nothing_of_large_output(here):
    done = here.carrel("run", "--rm", "busybox", "--", "seq", "1", "200000", binary=True)
    assert done.stdout == b"".join(b"%d\n" % i for i in range(1, 200001))


def test_run_reports_missing_and_forbidden_programs_like_a_shell(here):
    assert here.carrel("run", "--rm", "busybox", "--", "/no/such", ok=127).stderr
    assert here.carrel("run", "--rm", "busybox", "--", "/etc/passwd", ok=126).stderr


def test_run_of_missing_image_says_so(here):
    done = here.carrel("run", "--rm", "nosuch", "--", "true", ok=125)
    assert "nosuch" in done.stderr


def test_run_hands_signals_on(here, name):
    child = here.popen("run", "--rm", "--name", name, "busybox", "--", "sh", "-c",
                       "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done")
    assert child.stdout.readline() == b"up\n"
    child.send_signal(signal.SIGTERM)
    assert child.wait(120) == 5


def test_run_user_directory_and_environment(here):
    done = here.carrel("run", "--rm", "-u", "reader", "--workdir", "/tmp", "-e", "GREETING=hello", "busybox", "--", "sh", "-c",
                       "id -u; pwd; echo $GREETING")
    assert done.stdout.splitlines() == ["1000", "/tmp", "hello"]


def test_host_name_inside(here, name):
    done = here.carrel("run", "--rm", "--name", name, "busybox", "--", "hostname")
    assert done.stdout.strip() == name
    done = here.carrel("run", "--rm", "--hostname", "elsewhere", "busybox", "--", "hostname")
    assert done.stdout.strip() == "elsewhere"


# --- deploy, ls, show, stop, start, restart, rename, rm ---


def test_deployed_program_lives_through_stop_and_start(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    assert here.workspace(name)["state"] == "running"
    output(here, name, "sh", "-c", "echo kept > /root/file")
    here.carrel("stop", name, "-t", "1s")
    assert here.workspace(name)["state"] == "stopped"
    here.carrel("start", name)
    assert output(here, name, "cat", "/root/file") == "kept\n"
    run = here.workspace(name)["run"]
    here.carrel("restart", name)
    found = here.workspace(name)
    assert found["state"] == "running" and found["run"] > run
    here.carrel("rm", "-f", name)
    assert here.workspace(name) is None


def test_rm_of_running_needs_force(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    assert here.carrel("rm", name, ok=range(1, 126)).stderr
    assert here.workspace(name)["state"] == "running"
    here.carrel("rm", "-f", name)


def test_stop_kills_what_ignores_the_signal(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    here.carrel("stop", name, "-t", "200ms")
    assert here.workspace(name)["state"] == "stopped"
    here.carrel("rm", name)


def test_rename(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    other = name + "-new"
    here.carrel("rename", name, other)
    assert here.workspace(name) is None
    assert here.workspace(other)["state"] == "running"
    here.carrel("deploy", "busybox", "--name", name, "--until", "staged")
    assert other in here.carrel("rename", name, other, ok=5).stderr
    assert here.workspace(name)["name"] == name
    here.carrel("rm", "-f", name, other)


def test_formats_say_the_same(here, name):
    here.carrel("deploy", "busybox", "--name", name, "-l", "purpose=test", "--", "sleep", "1000")
    shown = here.json("show", name)
    listed = [w for w in here.json("ls") if w["name"] == name]
    assert listed and listed[0]["id"] == shown["id"]
    assert shown["spec"]["labels"] == {"purpose": "test"}
    assert name in here.carrel("ls").stdout
    assert f"name: {name}" in here.carrel("show", name, "--format", "yaml").stdout
    assert here.carrel("ls", "-q", "-l", "purpose=test").stdout.split() == [name]
    here.carrel("rm", "-f", name)


def test_id_prefix_is_a_reference(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--until", "staged")
    found = here.workspace(name)
    assert here.json("show", found["id"][:8])["name"] == name
    here.carrel("rm", found["id"])


# --- spec files ---


def test_spec_file(here, name, tmp_path):
    spec = tmp_path / "web.yaml"
    spec.write_text(f"""
name: {name}
image: busybox
command: [sh, -c, 'echo "$COLOUR"; pwd; sleep 1000']
environment: {{COLOUR: green}}
directory: /tmp
resources: {{memory: 64MiB, disk: 64MiB, processes: 20}}
volumes:
  - {{name: data, size: 32MiB, mount: /srv/data}}
hostname: desk
labels: {{team: library}}
""")
    here.carrel("deploy", spec)
    found = here.workspace(name)
    assert found["spec"]["labels"] == {"team": "library"}
    assert output(here, name, "hostname") == "desk\n"
    size = int(output(here, name, "df", "-k", "/srv/data").splitlines()[-1].split()[1])
    assert 24 * 1024 < size <= 32 * 1024
    here.wait(lambda: "green\n/tmp\n" in here.carrel("logs", name).stdout)
    here.carrel("rm", "-f", name)


def test_unknown_key_names_line_and_nearest(here, tmp_path):
    spec = tmp_path / "bad.yaml"
    spec.write_text("image: busybox\nresuorces: {memory: 1GiB}\n")
    done = here.carrel("deploy", spec, ok=2)
    assert "bad.yaml:2" in done.stderr and "resources" in done.stderr


def test_dry_run_changes_nothing(here, name):
    before = here.json("ls")
    plan = here.carrel("deploy", "busybox", "--name", name, "--dry-run", "--memory", "64MiB", "--", "true").stdout
    assert "overlay" in plan and "memory" in plan
    assert here.json("ls") == before


# --- rungs ---


@pytest.mark.parametrize("rung", ["staged", "prepared", "paused"])
def test_until_stops_at_a_rung_and_start_climbs_on(here, name, rung):
    here.carrel("deploy", "busybox", "--name", name, "--until", rung, "--", "sh", "-c", "echo ran > /root/ran; sleep 1000")
    assert here.workspace(name)["state"] == rung
    here.carrel("resume" if rung == "paused" else "start", name)
    here.wait_state(name, "running")
    here.says(name, "cat", "/root/ran", until=lambda text: text == "ran\n")
    here.carrel("rm", "-f", name)


def test_pause_stops_time_of_the_program(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sh", "-c",
                "i=0; while :; do i=$((i+1)); echo $i > /tmp/n; sleep 0.01; done")
    here.number(name, "/tmp/n")
    here.carrel("pause", name)
    assert here.workspace(name)["state"] == "paused"
    here.carrel("resume", name)
    here.number(name, "/tmp/n", above=here.number(name, "/tmp/n"))
    here.carrel("rm", "-f", name)


# --- exec ---


def test_exec_status_input_user_and_missing(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    assert here.carrel("exec", name, "--", "sh", "-c", "exit 9", ok=9).returncode == 9
    assert here.carrel("exec", "-i", name, "--", "wc", "-c", input=b"12345", binary=True).stdout.strip() == b"5"
    assert output(here, name, "id", "-u") == "0\n"
    assert here.carrel("exec", "-u", "1000", name, "--", "id", "-u").stdout == "1000\n"
    assert here.carrel("exec", name, "--", "/no/such", ok=127).stderr
    assert here.carrel("exec", "nosuch", "--", "true", ok=125).stderr
    here.carrel("rm", "-f", name)


def test_exec_sees_the_same_processes_and_files(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    assert "sleep 1000" in output(here, name, "ps")
    output(here, name, "sh", "-c", "echo a > /run/x")
    assert output(here, name, "cat", "/run/x") == "a\n"
    here.carrel("rm", "-f", name)


# --- logs ---


def test_logs_and_tail(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sh", "-c", "seq 1 50; echo last >&2")
    here.wait_state(name, "stopped")
    assert here.carrel("logs", name).stdout.split()[:3] == ["1", "2", "3"]
    done = here.carrel("logs", "-n", "2", name)
    assert (done.stdout + done.stderr).split() in (["50", "last"], ["last", "50"])
    here.carrel("rm", name)


def test_logs_follow_ends_with_the_program(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sh", "-c", "mkfifo /tmp/go; echo one; cat /tmp/go; echo two")
    child = here.popen("logs", "-f", name)
    assert child.stdout.readline() == b"one\n"
    output(here, name, "sh", "-c", "echo now > /tmp/go")
    assert child.stdout.readline() == b"now\n"
    assert child.stdout.readline() == b"two\n"
    child.terminate()
    child.wait(120)
    here.carrel("rm", "-f", name)


# --- cp ---


def test_cp_files_and_folders(here, name, tmp_path):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a b").write_bytes(b"\0\1\2" * 1000)
    (tmp_path / "in" / "link").symlink_to("a b")
    os.chmod(tmp_path / "in" / "a b", 0o751)
    here.carrel("cp", tmp_path / "in", f"{name}:/srv-in")
    assert output(here, name, "stat", "-c", "%a %u %s", "/srv-in/a b") == "751 0 3000\n"
    assert output(here, name, "readlink", "/srv-in/link") == "a b\n"
    here.carrel("cp", f"{name}:/srv-in", tmp_path / "out")
    assert (tmp_path / "out" / "a b").read_bytes() == b"\0\1\2" * 1000
    assert os.readlink(tmp_path / "out" / "link") == "a b"
    here.carrel("cp", f"{name}:/etc/passwd", tmp_path / "passwd")
    assert "reader" in (tmp_path / "passwd").read_text()
    assert here.carrel("cp", f"{name}:/no/such", tmp_path / "x", ok=4).stderr
    here.carrel("rm", "-f", name)


def test_cp_works_on_a_stopped_workspace(here, name, tmp_path):
    here.carrel("deploy", "busybox", "--name", name, "--", "sh", "-c", "echo left > /root/left")
    here.wait_state(name, "stopped")

    def copy(*words):  # 5: the workspace is still being put away
        here.wait(lambda: here.carrel("cp", *words, ok=(0, 5)).returncode == 0)
    copy(f"{name}:/root/left", tmp_path / "left")
    assert (tmp_path / "left").read_text() == "left\n"
    (tmp_path / "new").write_text("new\n")
    copy(tmp_path / "new", f"{name}:/root/new")
    copy(f"{name}:/root/new", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "new\n"
    here.wait(lambda: here.carrel("rm", name, ok=(0, 5)).returncode == 0)


def test_cp_tar_streams(here, name, tmp_path):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    tar = here.carrel("cp", f"{name}:/etc", "-", binary=True).stdout
    (tmp_path / "etc.tar").write_bytes(tar)
    with tarfile.open(tmp_path / "etc.tar") as archive:
        assert any(n.endswith("passwd") for n in archive.getnames())
    output(here, name, "mkdir", "/back")
    here.carrel("cp", "-", f"{name}:/back", input=tar, binary=True)
    assert "reader" in output(here, name, "sh", "-c", "cat /back/etc/passwd")
    here.carrel("rm", "-f", name)


# --- snapshots and volumes ---


def test_snapshot_restore(here, name):
    here.carrel("deploy", "busybox", "--name", name, "-v", "data:32MiB:/data", "--", "sleep", "1000")
    output(here, name, "sh", "-c", "echo one > /root/f; echo one > /data/f")
    assert here.carrel("snapshot", "create", name, "s0", ok=range(1, 126)).stderr  # it runs
    here.carrel("stop", name, "-t", "0s")
    here.carrel("snapshot", "create", name, "s1")
    here.carrel("start", name)
    output(here, name, "sh", "-c", "echo two > /root/f; echo two > /data/f; echo x > /data/g")
    here.carrel("stop", name, "-t", "0s")
    assert [s["name"] for s in here.json("snapshot", "ls", name)] == ["s1"]
    here.carrel("snapshot", "restore", name, "s1")
    here.carrel("start", name)
    assert output(here, name, "cat", "/root/f", "/data/f") == "one\none\n"
    assert output(here, name, "ls", "/data") == "f\n"
    here.carrel("stop", name, "-t", "0s")
    here.carrel("snapshot", "rm", name, "s1")
    assert here.json("snapshot", "ls", name) == []
    here.carrel("rm", "-f", name)


def test_snapshot_of_paused(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    output(here, name, "sh", "-c", "echo one > /root/f")
    here.carrel("pause", name)
    here.carrel("snapshot", "create", name, "s1")
    here.carrel("resume", name)
    output(here, name, "sh", "-c", "echo two > /root/f")
    here.carrel("stop", name, "-t", "0s")
    here.carrel("snapshot", "restore", name, "s1")
    here.carrel("start", name)
    assert output(here, name, "cat", "/root/f") == "one\n"
    here.carrel("rm", "-f", name)


def test_kept_volume_comes_back(here, name):
    volume = name + "-books"
    here.carrel("deploy", "busybox", "--name", name, "-v", f"{volume}:32MiB:/books,keep", "--", "sleep", "1000")
    output(here, name, "sh", "-c", "echo page > /books/one")
    here.carrel("rm", "-f", name)
    here.wait(lambda: volume in [v["name"] for v in here.json("volume", "ls") if not v.get("workspace")])
    here.carrel("deploy", "busybox", "--name", name, "-v", f"{volume}:32MiB:/books,keep", "--", "sleep", "1000")
    assert output(here, name, "cat", "/books/one") == "page\n"
    here.carrel("volume", "rm", volume, ok=None)  # in use: it stays
    assert output(here, name, "cat", "/books/one") == "page\n"
    here.carrel("rm", "-f", name)
    here.wait(lambda: not [v for v in here.json("volume", "ls") if v["name"] == volume and v.get("workspace")])
    here.carrel("volume", "rm", volume)
    here.wait(lambda: volume not in [v["name"] for v in here.json("volume", "ls")])


def test_runner_is_quiet_when_its_agent_has_died(here, name):
    """The ends of its watchers and clients are no work, whatever errno said before: here that a pipe had no more, which a child still holds."""
    here.carrel("deploy", "busybox", "--name", name, "--", "sh", "-c",
                "i=0; while usleep 100000; do i=$((i+1)); echo $i; echo $i > /lines; done")
    folder = here.run / "node/workspaces" / here.workspace(name)["id"]
    runner = json.loads((folder / "status").read_text())["runner_pid"]

    def seconds():
        words = pathlib.Path(f"/proc/{runner}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK")

    def lines():
        path = pathlib.Path(f"/proc/{here.workspace(name)['pid']}/root/lines")
        return int(path.exists() and path.read_text() or 0)
    watching = [here.popen(*words, stdout=subprocess.DEVNULL)
                for words in (("console", name), ("logs", "-f", name), ("exec", name, "--", "sleep", "1000"))]
    children = pathlib.Path(f"/proc/{runner}/task/{runner}/children")
    here.wait(lambda: len(children.read_text().split()) > 1, what="the exec that stays")
    assert here.carrel("exec", name, "--", "sh", "-c", "sleep 1000 & echo done").stdout == "done\n"
    here.node.kill()
    try:
        begun, spent = here.wait(lines), seconds()
        here.wait(lambda: lines() > begun + 30, what="thirty lines of output")
        assert seconds() - spent < 0.2, "the runner is busy with nothing"
    finally:
        here.node.start()
    for one in watching:
        one.wait(timeout=60)
    here.carrel("rm", "-f", name)


def test_flood_that_nobody_watches_has_a_rate(here, name):
    """Its log is as long as what 16 MiB/s say in a second. More would take processor and disk that are not the workspace's."""
    here.carrel("deploy", "busybox", "--name", name, "--", "yes", "0123456789" * 100)
    runner = json.loads((here.run / "node/workspaces" / here.workspace(name)["id"] / "status").read_text())["runner_pid"]

    def written():
        return int(pathlib.Path(f"/proc/{runner}/io").read_text().split("wchar: ")[1].split()[0])
    here.wait(lambda: written() > 16 << 20, what="the flood")
    begun, before = time.monotonic(), written()
    here.wait(lambda: time.monotonic() > begun + 2)
    assert written() - before < (24 << 20) * (time.monotonic() - begun)
    watching = here.popen("console", name)
    assert len(watching.stdout.read(32 << 20)) == 32 << 20, "who watches it gets it all"
    watching.kill()
    here.wait(lambda: written() > before + (64 << 20), what="the flood that goes on")
    here.carrel("stop", name, "-t", "1s")


def test_volume_that_is_not_kept_goes(here, name):
    here.carrel("deploy", "busybox", "--name", name, "-v", "scratch:32MiB:/scratch", "--", "sleep", "1000")
    here.carrel("rm", "-f", name)
    assert "scratch" not in [v["name"] for v in here.json("volume", "ls")]


def test_disks_grow_while_stopped(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--disk", "64MiB", "-v", "one:32MiB:/one", "-v", "two:32MiB:/two", "--",
                "sleep", "1000")
    here.carrel("stop", name, "-t", "0s")
    here.carrel("set", name, "--disk", "256MiB", "--volume", "two:128MiB")
    for smaller in (("--disk", "32MiB"), ("--volume", "two:64MiB")):
        assert "shrink" in here.carrel("set", name, *smaller, ok=None).stderr
    assert "no volume 'three'" in here.carrel("set", name, "--volume", "three:1GiB", ok=4).stderr
    here.carrel("start", name)
    sizes = {place: int(output(here, name, "df", "-k", place).splitlines()[-1].split()[1]) for place in ("/", "/one", "/two")}
    assert sizes["/"] > 128 * 1024 and sizes["/one"] < 32 * 1024 and sizes["/two"] > 100 * 1024
    here.carrel("rm", "-f", name)


# --- restart policies ---


def test_restart_on_failure_until_it_succeeds(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--restart", "on-failure", "--", "sh", "-c",
                "echo x >> /root/runs; [ $(wc -l < /root/runs) -ge 3 ]")
    found = here.wait(lambda: (w := here.workspace(name)) and w["state"] == "stopped" and w["exit_status"] == 0 and w)
    assert found["restarts"] == 2
    here.carrel("rm", name)


def test_restart_always_comes_back_after_a_kill(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--restart", "always", "--", "sleep", "1000")
    first = here.workspace(name)
    os.kill(first["pid"], signal.SIGKILL)
    found = here.wait(lambda: (w := here.workspace(name)) and w["state"] == "running" and w["restarts"] >= 1
                      and w["pid"] != first["pid"] and w)
    assert found
    here.carrel("stop", name, "-t", "0s")  # a stop by its user is no failure
    assert here.workspace(name)["state"] == "stopped"
    here.carrel("rm", name)


# --- why, events, operations, doctor ---


def test_why_names_step_reason_and_hint(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "/no/such/program", ok=range(1, 128))
    why = here.json("why", name)
    assert "/no/such/program" in json.dumps(why)
    here.carrel("rm", "-f", name)


def test_why_of_a_running_workspace(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--", "sleep", "1000")
    assert "running" in here.carrel("why", name).stdout
    here.carrel("rm", "-f", name)


def test_events_tell_the_life(here, name):
    follower = here.popen("events", "-f", "--after", "0", "--format", "json")
    here.carrel("run", "--rm", "--name", name, "busybox", "--", "true")
    here.carrel("rm", "-f", name, ok=None)
    lines, kinds, subject = [], [], None
    done = threading.Thread(target=lambda: lines.extend(iter(follower.stdout.readline, b"")))
    done.start()

    def told():
        nonlocal subject
        events = [json.loads(line) for line in list(lines)]
        subject = next((e["subject"] for e in events if e["body"].get("name") == name), None)
        kinds[:] = [e["kind"] for e in events if e["subject"] == subject]
        return subject and "workspace.removed" in kinds
    try:
        here.wait(told, what="the event of the removal")
    finally:
        follower.kill()
        done.join(10)
    assert kinds[0] == "workspace.created" and kinds.index("workspace.created") < kinds.index("workspace.removed")


def test_operations(here, name, busybox_tar):
    done = here.carrel("image", "import", "-d", name, busybox_tar)
    operation = done.stdout.strip()
    here.carrel("operation", "wait", operation)
    listed = {o["id"]: o for o in here.json("operation", "ls", "--all")}
    assert listed[operation]["state"] == "done"
    here.carrel("image", "rm", name)


def test_doctor(here):
    facts = json.dumps(here.json("doctor"))
    assert "cgroup" in facts and "overlay" in facts


def test_doctor_looks_when_it_is_asked(new_site, tmp_path):
    """What was missing and is there now is told without a restart of the agent."""
    criu = tmp_path / "criu"
    site = new_site(env={"CARREL_CRIU": str(criu)})

    def said():
        items = {item["name"]: item for item in site.json("doctor")["hosts"][0]["facts"]["items"]}
        return items["suspend-workspace"]["detail"]
    site.wait(lambda: "no CRIU" in said(), what="the agent's facts")
    criu.write_text("#!/bin/sh\nexit 1\n")
    criu.chmod(0o755)
    assert f"{criu} does not work here" in said()


def test_image_in_use_is_not_removed(here, name):
    here.carrel("deploy", "busybox", "--name", name, "--until", "staged")
    assert here.carrel("image", "rm", "busybox", ok=range(1, 126)).stderr
    assert any(i["name"].startswith("busybox") for i in here.json("image", "ls"))
    here.carrel("rm", name)


def test_names_with_bad_characters_are_refused(here):
    for bad in ("a/b", "../x", "", "a b", "ä", "x" * 300, "-n"):
        done = subprocess.run([here.program("carrel"), "deploy", "busybox", "--name=" + bad, "--until", "staged"],
                              env=here.environment,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 2, (bad, done)
