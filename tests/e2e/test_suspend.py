# SPDX-License-Identifier: Apache-2.0
"""Suspend and resume of virtual machines: what runs goes on, and nothing is ever half suspended."""
import contextlib
import json
import os
import pathlib
import signal
import time
import uuid

import pytest

from conftest import give_kernel, import_image

RUN = ("run", "--engine", "emulator", "-d")
COUNT = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done"


@pytest.fixture
def name(here):
    name = "s" + uuid.uuid4().hex[:8]
    yield name
    here.carrel("rm", "-f", name, ok=None)


def counting(here, name, *options):
    here.carrel(*RUN, "--name", name, *options, "busybox", "--", "sh", "-c", COUNT)
    here.wait_state(name, "running")
    count(here, name)


def count(here, name):
    return here.number(name, "/tmp/count")


def folder(here, name):
    return here.state / "node/workspaces" / here.workspace(name)["id"] / "memory"


def goes_on(here, name, before):
    here.wait_state(name, "running")
    seen = count(here, name)
    assert seen >= before, "it began anew"
    here.wait(lambda: count(here, name) > seen)


def asks_others(here, name, tmp_path):
    """The facts of this host, of one with another QEMU, of one without any, and of one that tells nothing."""
    doctor = here.json("doctor")
    assert here.json("suspend", "--check", "--host", "local", name)["level"] == "memory"
    assert here.carrel("suspend", "--check", "--host", "nobody", name, ok=None).returncode == 4

    def asked(change, ok=0):
        facts = json.loads(json.dumps(doctor))
        change(facts["hosts"][0]["facts"])
        (tmp_path / "facts.json").write_text(json.dumps(facts))
        return here.carrel("suspend", "--check", "--target", tmp_path / "facts.json", "--format", "json", name, ok=ok)
    assert json.loads(asked(lambda facts: None).stdout)["level"] == "memory"

    def other(facts):
        for program in facts["resume"]["programs"]:
            program["version"] = "1.2.3"
    refused = json.loads(asked(other).stdout)
    assert refused["level"] == "volumes" and "1.2.3" in refused["reason"]
    refused = json.loads(asked(lambda facts: facts["resume"].update(programs=[])).stdout)
    assert refused["level"] == "volumes" and "qemu-system" in refused["reason"]
    assert asked(lambda facts: facts.pop("resume"), ok=None).returncode == 4
    (tmp_path / "facts.json").write_text("no")
    assert here.carrel("suspend", "--check", "--target", tmp_path / "facts.json", name, ok=None).returncode == 2


def test_what_ran_goes_on(here, name, tmp_path):
    counting(here, name)
    checked = here.json("suspend", "--check", name)
    assert checked["level"] == "memory" and checked["engine"] == "emulator"
    asks_others(here, name, tmp_path)
    here.carrel("exec", name, "--", "sh", "-c", "echo kept > /root-file; cat /proc/sys/kernel/random/boot_id > /boot-id")
    boot_id = here.carrel("exec", name, "--", "cat", "/boot-id").stdout
    found = here.workspace(name)
    status = json.loads((here.run / "node/workspaces" / found["id"] / "status").read_text())
    before = count(here, name)
    here.carrel("exec", name, "--", "date", "-s", "@1000000000")  # as after a suspend of many years
    here.carrel("suspend", name)
    found = here.wait_state(name, "suspended")
    assert found["memory_bytes"] > 1 << 20
    for pid in (found.get("pid", 0), status["runner_pid"], status["pid"]):
        assert not pid or not pathlib.Path(f"/proc/{pid}").exists(), "its processes are still there"
    assert (folder(here, name) / "manifest.json").exists()
    assert here.carrel("exec", name, "--", "true", ok=None).returncode != 0
    here.carrel("resume", name)
    goes_on(here, name, before)
    assert not (folder(here, name) / "manifest.json").exists()
    assert here.carrel("exec", name, "--", "cat", "/root-file", "/proc/sys/kernel/random/boot_id").stdout == "kept\n" + boot_id
    there = float(here.carrel("exec", name, "--", "date", "+%s").stdout)
    assert abs(there - time.time()) < 30
    before = count(here, name)
    here.carrel("suspend", name)  # and once more, from what was resumed
    here.carrel("resume", name)
    goes_on(here, name, before)
    here.carrel("stop", "-t", "0s", name)
    here.wait_state(name, "stopped")
    assert not folder(here, name).exists()


def test_paused_suspended_and_after_a_new_agent(here, name):
    counting(here, name)
    before = count(here, name)
    here.carrel("pause", name)
    here.carrel("suspend", name)
    here.wait_state(name, "suspended")
    here.node.kill()
    here.node.start()
    here.wait_state(name, "suspended")
    here.carrel("resume", name)
    goes_on(here, name, before)
    here.carrel("exec", name, "--", "sh", "-c", "echo thawed > /thawed; sync")  # a pause freezes the volumes


def test_memory_is_thrown_away_only_by_name(here, name):
    counting(here, name)
    here.carrel("suspend", name)
    assert "--discard-memory" in here.carrel("stop", name, ok=None).stderr
    assert here.carrel("rm", name, ok=None).returncode != 0
    for verb in (("exec", name, "--", "true"), ("pause", name), ("cp", f"{name}:/etc/hostname", "-")):
        refused = here.carrel(*verb, ok=None)
        assert refused.returncode and "suspended" in refused.stderr and "carrel resume" in refused.stderr, verb
    here.carrel("stop", "--discard-memory", name)
    here.wait_state(name, "stopped")
    assert not folder(here, name).exists()
    here.carrel("start", name)
    here.wait_state(name, "running")


def damage(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x10]))


def test_damaged_and_foreign_states_are_refused_and_stay(here, name):
    counting(here, name)
    before = count(here, name)
    here.carrel("suspend", name)
    memory = folder(here, name)
    manifest = (memory / "manifest.json").read_text()

    def refused(word):
        done = here.carrel("resume", name, ok=None)
        assert done.returncode != 0 and word in done.stderr, done.stderr
        assert here.wait_state(name, "suspended")["state"] == "suspended"

    damage(memory / "state", 4000)
    refused("damaged")
    damage(memory / "state", 4000)
    with open(memory / "ram", "rb") as file:
        at = os.lseek(file.fileno(), 1 << 20, os.SEEK_DATA) + 100
    damage(memory / "ram", at)
    refused("damaged")
    damage(memory / "ram", at)
    size = (memory / "ram").stat().st_size
    os.truncate(memory / "ram", size - 4096)
    refused("bytes")
    os.truncate(memory / "ram", size)
    for key, value, word in (("version", "1.2.3", "1.2.3"), ("machine", "pc-q35-99.0", "pc-q35-99.0"),
                             ("features", ["no-such-feature"], "no-such-feature"),
                             ("architecture", "arm64", "aarch64"), ("layout", "sha256:" + 64 * "0", "devices"),
                             ("workspace", 16 * "0", "workspace"), ("unknown", 1, "unknown")):
        (memory / "manifest.json").write_text(json.dumps(dict(json.loads(manifest), **{key: value})))
        refused(word)
    (memory / "manifest.json").write_text(manifest)
    here.carrel("resume", name)
    goes_on(here, name, before)


def test_the_processor_is_what_is_wished(here, name, tmp_path):
    spec = {"name": name, "image": "busybox", "engine": "emulator", "machine": {"cpu": "x86-64-v2"},
            "command": ["sh", "-c", COUNT]}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    here.carrel("deploy", tmp_path / "spec.json")
    here.wait_state(name, "running")
    before = count(here, name)
    flags = here.carrel("exec", name, "--", "sh", "-c", "grep -m 1 ^flags /proc/cpuinfo").stdout.split()
    assert "sse4_2" in flags and "avx2" not in flags and "aes" not in flags
    here.carrel("suspend", name)
    manifest = json.loads((folder(here, name) / "manifest.json").read_text())
    assert manifest["processor"].startswith("qemu64,+cx16")
    here.carrel("resume", name)
    goes_on(here, name, before)
    here.carrel("rm", "-f", name)
    for cpu, word in (("no-such-model", "no-such-model"), ("host", "host")):
        (tmp_path / "spec.json").write_text(json.dumps({**spec, "machine": {"cpu": cpu}}))
        refused = here.carrel("deploy", tmp_path / "spec.json", ok=None)
        assert refused.returncode != 0 and word in refused.stderr, (cpu, refused.stderr)
        here.carrel("rm", "-f", name, ok=None)
    (tmp_path / "spec.json").write_text(json.dumps({**spec, "machine": {"cpu": "max,-sse2"}}))
    assert here.carrel("deploy", tmp_path / "spec.json", ok=None).returncode == 2
    assert "processor-emulator" in here.carrel("doctor", ok=None).stdout


def test_a_snapshot_with_memory_goes_on_from_there(here, name):
    counting(here, name)
    here.carrel("exec", name, "--", "sh", "-c", "echo first > /kept; sync")
    low = count(here, name)
    here.carrel("snapshot", "create", "--memory", name, "then")
    high = count(here, name)
    goes_on(here, name, low)
    here.carrel("exec", name, "--", "sh", "-c", "echo second > /kept; sync")
    here.wait(lambda: count(here, name) > high + 40)
    far = count(here, name)
    assert here.carrel("snapshot", "restore", name, "then", ok=None).returncode != 0, "while it runs"
    here.carrel("stop", "-t", "0s", name)
    for _ in range(2):  # it can be gone back to more than once
        here.carrel("snapshot", "restore", name, "then")
        here.wait_state(name, "running")
        assert here.carrel("exec", name, "--", "cat", "/kept").stdout == "first\n"
        assert low <= count(here, name) < far
        goes_on(here, name, low)
        here.carrel("stop", "-t", "0s", name)
        here.wait_state(name, "stopped")
    assert here.carrel("snapshot", "create", "--memory", name, ok=None).returncode != 0
    here.carrel("start", name)
    here.wait_state(name, "running")


# --- faults: afterwards it runs on from where it was, or is suspended as a whole ---

CASES = (("suspend", "runner.suspend", "ENOSPC"), ("suspend", "runner.saved", "ENOSPC"), ("suspend", "runner.saved", "kill"),
         ("suspend", "suspend-saved", "kill"), ("suspend", "suspend-manifest", "ENOSPC"), ("suspend", "suspend-commit", "kill"),
         ("suspend", "runner.commit", "ENOSPC"), ("suspend", "runner.commit", "kill"), ("suspend", "runner.committed", "kill"),
         ("suspend", "task-suspend-end", "kill"),
         ("resume", "task-start-begin", "kill"), ("resume", "launch-begin", "ENOSPC"), ("resume", "runner.loaded", "ENOSPC"),
         ("resume", "runner.loaded", "kill"), ("resume", "runner.resumed", "kill"), ("resume", "launch-end", "kill"))


@pytest.fixture(scope="module")
def faulty(new_module_site, kernel, busybox_tar):  # noqa: F811
    plan = pathlib.Path(f"/var/tmp/carrel-suspend-faults-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    plan.write_text("")
    site = new_module_site(env={"CARREL_FAULTS": str(plan)})
    give_kernel(site, kernel)
    import_image(site, "busybox", busybox_tar)
    site.plan = plan
    yield site
    plan.unlink()


def revived(site):
    for daemon in (site.service, site.node):
        if not daemon.running():
            daemon.start()


def settled(site, name):
    def look():
        revived(site)
        with contextlib.suppress(Exception):
            found = site.workspace(name)
            if found and not found.get("operation") and found["state"] in ("running", "paused", "suspended", "stopped",
                                                                           "failed") and not found.get("step"):
                return found
        return None
    end, last = time.monotonic() + 120, None
    while time.monotonic() < end:
        found = look()
        if found and last and found["state"] == last["state"] and found["generation"] == last["generation"]:
            return found
        last = found
        time.sleep(0.3)  # what was killed is told by somebody else
    raise AssertionError(f"{name} does not settle: {site.workspace(name)}")


def test_no_fault_leaves_it_half_suspended(faulty):
    if faulty.carrel("version", ok=None).returncode:
        pytest.skip("no command line")
    name, lost = "faulty", []

    def fresh():
        faulty.plan.write_text("")
        faulty.carrel("rm", "-f", name, ok=None)
        counting(faulty, name)

    fresh()
    for verb, point, fault in CASES:
        state = settled(faulty, name)["state"]
        if (verb == "resume") != (state == "suspended"):
            faulty.carrel("suspend" if verb == "resume" else "resume", name)
        before = 0 if verb == "resume" else count(faulty, name)
        faulty.plan.write_text(f"{point} {fault}\n")
        asked = faulty.popen(verb, name)
        while asked.poll() is None:  # what was killed is started again, as systemd does
            revived(faulty)
            time.sleep(0.1)
        reached = faulty.plan.read_text().startswith("#")
        faulty.plan.write_text("")
        found = settled(faulty, name)
        there = (folder(faulty, name) / "manifest.json").exists()
        assert there == (found["state"] == "suspended"), (verb, point, fault, found)
        assert reached, (verb, point)
        if found["state"] == "running":
            goes_on(faulty, name, before)
        elif found["state"] != "suspended":
            # A runner that is killed takes its machine with it, as QEMU's own death does; anything else must not.
            assert point.startswith("runner.") and fault == "kill", (verb, point, fault, found)
            lost.append((verb, point, fault))
            fresh()
    assert ("suspend", "runner.committed", "kill") not in lost, "the manifest was there"
    assert ("resume", "runner.loaded", "kill") not in lost, "it had not moved yet"


@pytest.mark.parametrize("who", ["pid", "runner_pid"])
def test_killed_while_suspended_or_running(here, name, who):
    """QEMU or the runner dies at a moment of its own choosing: between two polls of a suspend that is asked for in a loop."""
    counting(here, name)
    found = here.workspace(name)
    status = json.loads((here.run / "node/workspaces" / found["id"] / "status").read_text())
    asked = here.popen("suspend", name)
    time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(status[who], signal.SIGKILL)
    asked.wait(60)
    found = settled(here, name)
    assert found["state"] in ("suspended", "stopped"), found
    assert (folder(here, name) / "manifest.json").exists() == (found["state"] == "suspended")
    if found["state"] == "suspended":
        here.carrel("resume", name)
        goes_on(here, name, 1)
