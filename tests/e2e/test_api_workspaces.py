# SPDX-License-Identifier: Apache-2.0
"""The API of workspaces against the real service with a host that pretends."""
import fcntl
import os
import socket
import struct
import sys
import termios
import threading
import time

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tools"))
from api import Service  # noqa: E402
from pretend_host import PretendHost, WebSocket  # noqa: E402


@pytest.fixture(scope="module")
def service():
    one = Service(images=("busybox", "debian"))
    yield one
    one.remove()


@pytest.fixture(scope="module")
def host(service):
    one = PretendHost(service.socket)
    yield one
    one.disconnect()


@pytest.fixture(scope="module", autouse=True)
def begun():
    """A service with a held workspace whose run is over and whom nobody attaches to, and a stream on which nothing is asked for."""
    alone = Service()
    try:
        host = PretendHost(alone.socket)
        host.ends["unseen"] = 0
        alone.post("/v1/workspaces", {"spec": {"image": "busybox", "name": "unseen", "remove-on-exit": True}, "held": True})
        alone.get("/v1/workspaces/unseen?wait=120&state=running,stopped")  # the first run is an answer to any wait
        running(alone, "silent")
        silent = WebSocket(alone.socket, "/v1/workspaces/silent/exec")
        silent.socket.settimeout(60)
        yield alone, silent
        silent.close()
        host.disconnect()
    finally:
        alone.remove()


def running(service, name, **spec):
    made = service.deploy(name, **spec)
    got = service.wait(made["operation"])
    assert got["state"] == "done", got
    return service.get(f"/v1/workspaces/{name}").json


def test_deploy_and_remove(service, host):
    made = service.deploy("first", command=["sleep", "1"], labels={"team": "red"})
    assert made["state"] == "defined" and made["wish"] == "running" and made["generation"] == 1
    assert made["spec"]["command"] == ["sleep", "1"]
    assert service.wait(made["operation"])["state"] == "done"
    shown = service.get("/v1/workspaces/first").json
    assert shown["state"] == "running" and shown["run"] == 1 and shown["pid"] == 4242 and shown["started"]
    assert "operation" not in shown
    refused = service.ask("DELETE", "/v1/workspaces/first")
    assert refused.status == 409 and "force" in refused.error["hint"]
    service.done(service.ask("DELETE", "/v1/workspaces/first?force=1"))
    assert host.assigned[made["id"]]["stop-timeout"] in ("0s", "0", 0, "0ms")
    assert service.get("/v1/workspaces/first").status == 404
    service.wait_for(lambda: made["id"] in host.forgotten)


def test_references(service, host):
    made = running(service, "references")
    for reference in (made["id"], made["id"][:6], "references"):
        assert service.get(f"/v1/workspaces/{reference}").json["id"] == made["id"]
    assert service.get("/v1/workspaces/" + made["id"][:3]).status == 404
    assert service.get("/v1/workspaces/nobody").error["kind"] == "not-found"


def test_names_are_unique_and_made_up(service, host):
    running(service, "taken")
    got = service.post("/v1/workspaces", {"spec": {"image": "busybox", "name": "taken"}})
    assert got.status == 409 and got.error["kind"] == "exists"
    assert service.deploy()["name"]


def test_lifecycle(service, host):
    running(service, "life")
    ref = "/v1/workspaces/life"

    def state():
        return service.get(ref).json["state"]

    service.done(service.post(ref + "/pause"))
    assert state() == "paused"
    assert "resume" in service.post(ref + "/start").error["hint"]
    service.done(service.post(ref + "/pause"))
    service.done(service.post(ref + "/resume"))
    assert state() == "running"
    service.done(service.post(ref + "/start"))
    service.done(service.post(ref + "/stop", {"timeout": "1s"}))
    assert state() == "stopped" and service.get(ref).json["exit_status"] == 143
    service.done(service.post(ref + "/stop"))
    for verb in ("pause", "resume"):
        got = service.post(f"{ref}/{verb}")
        assert got.status == 409 and "start" in got.error["hint"], got.body
    service.done(service.post(ref + "/start"))
    assert state() == "running" and service.get(ref).json["run"] == 2
    service.done(service.post(ref + "/restart"))
    assert service.get(ref).json["run"] == 3
    service.done(service.post(ref + "/stop"))
    service.done(service.ask("DELETE", ref))


def test_suspend_keeps_memory_until_it_is_asked_away(service, host):
    running(service, "sleeper")
    ref = "/v1/workspaces/sleeper"
    checked = service.post(ref + "/suspend?check=1")
    assert checked.status == 200 and checked.json["level"] == "memory"
    assert service.get(ref).json["state"] == "running"
    service.done(service.post(ref + "/suspend"))
    assert service.get(ref).json["state"] == "suspended"
    service.done(service.post(ref + "/suspend"))
    for verb in ("start", "stop", "restart"):
        got = service.post(f"{ref}/{verb}")
        assert got.status == 409 and "resume" in got.error["hint"] and "--discard-memory" in got.error["hint"], got.body
    assert service.ask("DELETE", ref).status == 409
    service.done(service.post(ref + "/resume"))
    got = service.get(ref).json
    assert (got["state"], got["run"]) == ("running", 1)
    service.done(service.post(ref + "/suspend"))
    service.done(service.post(ref + "/stop", {"discard-memory": True}))
    assert service.get(ref).json["state"] == "stopped"
    got = service.post(ref + "/suspend")
    assert got.status == 409, got.body
    service.done(service.ask("DELETE", ref))


def test_a_suspend_that_fails_leaves_the_wish_as_it_was(service, host):
    running(service, "busy")
    host.failures["busy"] = {"kind": "unsupported", "message": "it cannot", "step": "suspend"}
    got = service.wait(service.post("/v1/workspaces/busy/suspend").json["id"])
    assert got["state"] == "failed" and got["error"]["kind"] == "unsupported"
    del host.failures["busy"]
    seen = service.get("/v1/workspaces/busy").json
    assert (seen["state"], seen["wish"]) == ("running", "running")
    service.done(service.post("/v1/workspaces/busy/pause"))
    assert service.get("/v1/workspaces/busy").json["state"] == "paused"


def test_failure_is_told_whole(service, host):
    host.failures["bad"] = {"kind": "no-capacity", "message": "no room for the volume", "hint": "free some", "step": "prepare"}
    made = service.deploy("bad")
    got = service.wait(made["operation"])
    assert got["state"] == "failed" and got["error"]["kind"] == "no-capacity" and "no room" in got["error"]["message"]
    why = service.get("/v1/workspaces/bad/why").json
    assert why["reason"] == "failed" and why["hint"] == "free some" and why["error"]["step"] == "prepare"
    del host.failures["bad"]
    service.done(service.post("/v1/workspaces/bad/start"))
    assert service.get("/v1/workspaces/bad").json["state"] == "running"


def test_until(service, host):
    for until, state in (("staged", "staged"), ("prepared", "prepared"), ("paused", "paused")):
        assert running(service, f"until-{until}", until=until)["state"] == state


def test_remove_on_exit(service, host):
    host.ends["gone"] = 0
    made = service.deploy("gone", **{"remove-on-exit": True})
    service.wait_for(lambda: service.get("/v1/workspaces/gone").status == 404)
    service.wait_for(lambda: made["id"] in host.forgotten)


def test_held_waits_for_the_attach(service, host):
    host.ends["held"] = 7

    def stream(message, ws):
        assert message["kind"] == "attach"
        ws.send(b"\x01hello")
        ws.send({"exit": 7})
        ws.receive()

    host.on_stream = stream
    made = service.post("/v1/workspaces",
                        {"spec": {"image": "busybox", "name": "held", "remove-on-exit": True}, "held": True}).json
    service.wait_for(lambda: service.get("/v1/workspaces/held").json["state"] == "stopped")
    client = WebSocket(service.socket, f"/v1/workspaces/{made['id']}/attach")
    client.send({"stdin": False})
    assert client.receive() == b"\x01hello"
    assert client.receive() == {"exit": 7}
    client.close()
    service.wait_for(lambda: service.get("/v1/workspaces/held").status == 404)


def test_stream_relays_both_ways(service, host):
    running(service, "relay")

    def echo(message, ws):
        assert message["request"] == {"command": ["cat"]}
        while (message := ws.receive()) is not None:
            ws.send(message)

    host.on_stream = echo
    client = WebSocket(service.socket, "/v1/workspaces/relay/exec")
    client.send({"command": ["cat"]})
    client.send({"signal": "USR1"})
    assert client.receive() == {"signal": "USR1"}
    payload = b"\x00" + os.urandom(65535)
    sender = threading.Thread(target=lambda: [client.send(payload) for _ in range(64)])
    sender.start()
    for _ in range(64):
        assert client.receive() == payload
    sender.join()
    client.close()


def test_stream_refusals(service, host):
    running(service, "quiet", until="staged")
    assert service.get("/v1/workspaces/relay/exec").error["message"] == "this address speaks WebSocket"
    with pytest.raises(PermissionError, match="not running"):
        service.wait_for(lambda: service.get("/v1/workspaces/quiet").json["state"] == "staged")
        WebSocket(service.socket, "/v1/workspaces/quiet/exec")
    with pytest.raises(PermissionError, match="no such stream"):
        WebSocket(service.socket, "/v1/hosts/local/streams/0123456789abcdef")


def test_what_ends_while_a_request_is_on_its_way_is_refused(service, host):
    running(service, "ending")
    client = WebSocket(service.socket, "/v1/workspaces/ending/exec")
    client.socket.settimeout(60)
    service.done(service.post("/v1/workspaces/ending/stop"))
    client.send({"command": ["true"]})
    assert client.receive()["error"]["message"] == "workspace 'ending' is not running (stopped)"
    client.close()


def unread(one):
    """Bytes that wait for a reader, once there come no more."""
    seen = -1
    while True:
        time.sleep(0.05)
        now = struct.unpack("i", fcntl.ioctl(one, termios.FIONREAD, b"\0" * 4))[0]
        if now == seen:
            return now
        seen = now


def test_a_client_that_vanishes_is_not_attached(service, host):
    """remove-on-exit waits for who is attached: one who went before the answer to his upgrade must not count."""
    made = running(service, "left", **{"remove-on-exit": True})
    simple = b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"
    upgrade = (f"GET /v1/workspaces/{made['id']}/attach HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()

    def send(count, last=b""):
        one = socket.socket(socket.AF_UNIX)
        one.connect(service.socket)
        one.sendall(simple * count + last)
        got = unread(one)
        one.close()
        return got

    # Answers that nobody reads fill the socket, so that the one to the upgrade is the first that finds no room.
    fit = send(1000) // send(1)
    assert 10 < fit < 1000
    for count in range(fit - 3, fit + 4):
        send(count, upgrade)
    service.done(service.post("/v1/workspaces/left/stop"))
    service.wait_for(lambda: service.get("/v1/workspaces/left").status == 404)


def test_a_client_that_leaves_while_it_waits(service, host):
    made = running(service, "waited", until="prepared", **{"remove-on-exit": True})
    before = len(os.listdir(f"/proc/{service.process.pid}/fd"))
    for _ in range(5):
        client = WebSocket(service.socket, f"/v1/workspaces/{made['id']}/attach")
        client.send({"stdin": False})
        client.socket.close()
    service.wait_for(lambda: len(os.listdir(f"/proc/{service.process.pid}/fd")) <= before)
    waiting = WebSocket(service.socket, f"/v1/workspaces/{made['id']}/attach")
    waiting.send({"stdin": False})
    service.done(service.ask("DELETE", "/v1/workspaces/waited"))
    assert waiting.receive()["error"]["kind"] == "not-found"  # nobody waits for what is gone
    waiting.close()


def test_etags(service, host):
    running(service, "tagged")
    got = service.get("/v1/workspaces/tagged")
    tag = got.headers["ETag"]
    assert service.get("/v1/workspaces/tagged", headers={"If-None-Match": tag}).status == 304
    listed = service.get("/v1/workspaces?limit=1000")
    assert service.get("/v1/workspaces?limit=1000", headers={"If-None-Match": listed.headers["ETag"]}).status == 304
    changed = service.ask("PATCH", "/v1/workspaces/tagged", {"labels": {"a": "b"}}, headers={"If-Match": tag})
    assert changed.status == 200 and changed.headers["ETag"] != tag and changed.json["spec"]["labels"] == {"a": "b"}
    assert service.get("/v1/workspaces/tagged", headers={"If-None-Match": tag}).status == 200
    stale = service.ask("PATCH", "/v1/workspaces/tagged", {"labels": {}}, headers={"If-Match": tag})
    assert stale.status == 412 and stale.error["kind"] == "precondition-failed"
    assert service.ask("DELETE", "/v1/workspaces/tagged?force=1", headers={"If-Match": tag}).status == 412
    assert service.get("/v1/workspaces?label=a").json["items"][0]["name"] == "tagged"
    assert service.get("/v1/workspaces?label=a=c").json["items"] == []


def test_rename_and_grow(service, host):
    running(service, "small", volumes=[{"name": "data", "size": "1GiB", "mount": "/data"}])
    got = service.ask("PATCH", "/v1/workspaces/small", {"name": "large", "resources": {"disk": "20GiB"},
                                                        "volumes": [{"name": "data", "size": "2GiB"}]})
    assert got.status == 200, got.body
    assert got.json["name"] == "large" and got.json["spec"]["name"] == "large"
    assert service.get("/v1/workspaces/small").status == 404
    before = service.get("/v1/workspaces/large").json
    for body, part in (({"resources": {"disk": "1GiB"}}, "shrink"), ({"volumes": [{"name": "data", "size": "1GiB"}]}, "shrink"),
                       ({"volumes": [{"name": "other", "size": "1GiB"}]}, "no volume"), ({"nme": "x"}, "nme"),
                       ({"labels": 3}, "labels"), ({"name": "large", "resources": {"disk": "30GiB"}, "volumes": 3}, "list")):
        got = service.ask("PATCH", "/v1/workspaces/large", body)
        assert got.status in (400, 404) and part in got.error["message"], got.body
    assert service.get("/v1/workspaces/large").json == {**service.get("/v1/workspaces/large").json, "spec": before["spec"]}


def test_snapshots(service, host):
    running(service, "snap")
    ref = "/v1/workspaces/snap"
    refused = service.post(ref + "/snapshots", {"name": "one"})
    assert refused.status == 409 and "pause" in refused.error["hint"]
    service.done(service.post(ref + "/pause"))
    made = service.done(service.post(ref + "/snapshots", {"name": "one"}))
    assert made["result"]["name"] == "one"
    assert service.post(ref + "/snapshots", {"name": "one"}).error["kind"] == "exists"
    listed = service.get(ref + "/snapshots").json["items"]
    assert [s["name"] for s in listed] == ["one"] and listed[0]["ready"]
    refused = service.post(ref + "/snapshots/one/restore")
    assert refused.status == 409 and "stop" in refused.error["hint"]
    service.done(service.post(ref + "/stop"))
    service.done(service.post(ref + "/snapshots/one/restore"))
    assert host.assigned[service.get(ref).json["id"]]["restore"] == 1
    assert service.post(ref + "/snapshots/two/restore").status == 404
    host.failures["snap"] = {"kind": "no-capacity", "message": "no room", "step": "snapshot"}
    failed = service.wait(service.post(ref + "/snapshots", {"name": "two"}).json["id"])
    assert failed["state"] == "failed"
    del host.failures["snap"]
    assert [s["name"] for s in service.get(ref + "/snapshots").json["items"]] == ["one"]
    service.done(service.ask("DELETE", ref + "/snapshots/one"))
    assert service.get(ref + "/snapshots").json["items"] == []


def test_a_snapshot_that_is_overtaken_by_a_resume(service):
    slow = Service()
    try:
        host = PretendHost(slow.socket)
        made = slow.deploy("racer", until="paused")
        assert slow.wait(made["operation"])["state"] == "done"
        host.delay = 3600  # the host has other things to do first
        snapshot = slow.post("/v1/workspaces/racer/snapshots", {"name": "late"}).json
        slow.wait_for(lambda: host.due)
        host.delay = 0
        resumed = slow.done(slow.post("/v1/workspaces/racer/resume"))
        assert resumed["state"] == "done"
        assert slow.wait(snapshot["id"])["state"] == "cancelled"
        assert slow.get("/v1/workspaces/racer/snapshots").json["items"] == []
        slow.done(slow.post("/v1/workspaces/racer/stop"))
        host.disconnect()
    finally:
        slow.remove()


def test_dry_run_changes_nothing(service, host):
    got = service.post("/v1/workspaces?dry-run=1", {"spec": {"image": "busybox", "name": "planned"}})
    assert got.status == 200 and got.json["plan"]["steps"][0]["step"] == "stage"
    assert service.get("/v1/workspaces/planned").status == 404


def test_idempotency_key(service, host):
    body = {"spec": {"image": "busybox", "name": "once"}}
    first = service.post("/v1/workspaces", body, headers={"Idempotency-Key": "k1"})
    second = service.post("/v1/workspaces", body, headers={"Idempotency-Key": "k1"})
    assert first.status == second.status == 201 and first.json["id"] == second.json["id"]
    other = service.post("/v1/workspaces", {"spec": {"image": "busybox"}}, headers={"Idempotency-Key": "k1"})
    assert other.status == 409 and "idempotency" in other.error["message"]
    dry = service.post("/v1/workspaces?dry-run=1", body, headers={"Idempotency-Key": "k1"})
    assert dry.status == 409, dry.body  # never the workspace that was made, as if it were the plan's answer


def test_cancel_and_replace(service):
    slow = Service()
    try:
        host = PretendHost(slow.socket, delay=0.3)
        made = slow.deploy("slow")
        assert slow.get("/v1/workspaces/slow/why").json["reason"] in ("waiting", "step")
        host.progress(made["id"], "stage", 10, 100)
        slow.wait_for(lambda: slow.get(f"/v1/operations/{made['operation']}").json["progress"]["done"] == 10)
        why = slow.get("/v1/workspaces/slow/why").json
        assert why["reason"] == "step" and "10 B of 100 B" in why["message"]
        assert slow.post(f"/v1/operations/{made['operation']}/cancel").json["state"] == "cancelled"
        slow.wait_for(lambda: slow.get("/v1/workspaces/slow").status == 404)
        assert slow.post(f"/v1/operations/{made['operation']}/cancel").status == 409
        made = slow.deploy("replaced")
        stopped = slow.post("/v1/workspaces/replaced/stop")
        assert slow.wait(made["operation"])["state"] == "cancelled"
        assert slow.wait(stopped.json["id"])["state"] == "done"
        host.disconnect()
    finally:
        slow.remove()


def test_host_away_and_back(service):
    lonely = Service()
    try:
        made = lonely.deploy("patient")
        why = lonely.get("/v1/workspaces/patient/why").json
        assert why["reason"] == "host-away" and "carrel-node" in why["hint"]
        assert lonely.post("/v1/workspaces?dry-run=1", {"spec": {"image": "busybox"}}).status == 503
        host = PretendHost(lonely.socket)
        assert lonely.wait(made["operation"])["state"] == "done"
        host.disconnect()
        lonely.wait_for(lambda: not lonely.get("/v1/hosts").json["items"][0]["connected"])
        stopping = lonely.post("/v1/workspaces/patient/stop").json
        host.connect()
        assert lonely.wait(stopping["id"])["state"] == "done"
        host.disconnect()
    finally:
        lonely.remove()


def test_kept_volumes(service, host):
    host.volumes = [{"owner": 0, "name": "base", "size": 1 << 30, "used": 4096, "workspace": None},
                    {"owner": 1234, "name": "theirs", "size": 1 << 30, "used": 4096, "workspace": "0123456789abcdef"}]
    host.tell_volumes()
    items = service.wait_for(lambda: service.get("/v1/volumes").json["items"])
    assert [v["name"] for v in items] == ["base", "theirs"]
    assert service.ask("DELETE", "/v1/volumes/theirs?owner=1234").status == 409
    assert service.ask("DELETE", "/v1/volumes/none").status == 404
    host.volume_failures["base"] = {"kind": "conflict", "message": "volume base: it is mounted", "hint": "look"}
    refused = service.ask("DELETE", "/v1/volumes/base")
    assert refused.status == 409 and "mounted" in refused.error["message"] and refused.error["hint"] == "look"
    del host.volume_failures["base"]
    assert service.ask("DELETE", "/v1/volumes/base").status == 204
    # 204 means gone: nothing has to be waited for
    assert host.removed_volumes == [(0, "base")]
    assert [v["name"] for v in service.get("/v1/volumes").json["items"]] == ["theirs"]
    running(service, "keeper", volumes=[{"name": "shared", "size": "1GiB", "mount": "/d", "keep": True}])
    got = service.post("/v1/workspaces", {"spec": {"image": "busybox", "volumes": [
        {"name": "shared", "size": "1GiB", "mount": "/d", "keep": True}]}})
    assert got.status == 409 and "keeper" in got.error["message"]
    got = service.ask("DELETE", "/v1/volumes/shared")
    assert got.status == 409 and "keeper" in got.error["message"]


def test_a_host_that_goes_while_a_volume_is_removed(service):
    lonely = Service()
    try:
        host = PretendHost(lonely.socket)
        host.volumes = [{"owner": 0, "name": "base", "size": 1 << 30, "used": 4096, "workspace": None}]
        host.volume_failures["base"] = None
        host.tell_volumes()
        lonely.wait_for(lambda: lonely.get("/v1/volumes").json["items"])
        answers = []
        asking = threading.Thread(target=lambda: answers.append(lonely.ask("DELETE", "/v1/volumes/base")))
        asking.start()
        asking.join(0.3)
        assert asking.is_alive() and not answers
        host.disconnect()
        asking.join(20)
        assert answers[0].status == 503 and "base" in answers[0].error["message"]
        assert lonely.get("/v1/volumes").json["items"]
    finally:
        lonely.remove()


def test_waiting_for_a_state(service):
    slow = Service()
    try:
        host = PretendHost(slow.socket, delay=0.3)
        slow.deploy("awaited")
        got = slow.get("/v1/workspaces/awaited?wait=60&state=running,failed")
        assert got.status == 200 and got.json["state"] == "running" and got.headers["ETag"]
        assert slow.get("/v1/workspaces/awaited?wait=600&state=running").json["state"] == "running"
        started = time.monotonic()
        assert slow.get("/v1/workspaces/awaited?wait=1&state=stopped").json["state"] == "running"
        assert 0.9 < time.monotonic() - started < 30
        # another run answers, too: who waits for the end of this one has missed it
        answers = []
        asking = threading.Thread(target=lambda: answers.append(slow.get("/v1/workspaces/awaited?wait=60&state=failed")))
        asking.start()
        slow.post("/v1/workspaces/awaited/restart")
        asking.join(30)
        assert answers[0].json["run"] == 2
        slow.ask("DELETE", "/v1/workspaces/awaited?force=1")
        gone = slow.get("/v1/workspaces/awaited?wait=60&state=failed")
        assert gone.status == 404 and gone.error["kind"] == "not-found"
        slow.deploy("other")
        for query in ("wait=1", "state=running", "wait=1&state=runing", "wait=601&state=running", "wait=x&state=running"):
            assert slow.get("/v1/workspaces/other?" + query).status == 400, query
        host.disconnect()
    finally:
        slow.remove()


@pytest.mark.parametrize("spec, kind, part", [
    ({"image": "none"}, "not-found", "no image"),
    ({}, "invalid", "image"),
    ({"image": "busybox", "nmae": "x"}, "invalid", "nmae"),
    ({"image": "busybox", "name": "a/b"}, "invalid", "name"),
    ({"image": "busybox", "name": "-x"}, "invalid", "name"),
    ({"image": "busybox", "name": "x" * 64}, "invalid", "name"),
    ({"image": "busybox", "engine": "xen"}, "unsupported", "xen"),
    ({"image": "busybox", "resources": {"disk": "1"}}, "invalid", "disk"),
    ({"image": "busybox", "resources": {"memory": "99999999999999999999"}}, "invalid", "memory"),
    ({"image": "../../etc"}, "invalid", "image"),
])
def test_specs_that_are_refused(service, host, spec, kind, part):
    got = service.post("/v1/workspaces", {"spec": spec})
    assert got.error["kind"] == kind and part in got.error["message"], got.body


def test_pages(service, host):
    names, after = [], ""
    while True:
        got = service.get(f"/v1/workspaces?limit=3{after}").json
        names += [w["name"] for w in got["items"]]
        assert len(got["items"]) <= 3
        if "next" not in got:
            break
        after = "&after=" + got["next"]
    assert names == [w["name"] for w in service.get("/v1/workspaces?limit=1000").json["items"]]
    assert len(names) == len(set(names)) > 6


def test_ten_thousand(service):
    many = Service(config="workspaces-per-user: 20000\n")
    try:
        host = PretendHost(many.socket)
        from api import Connection
        connection = Connection(many.socket)
        for i in range(10000):
            got = many.post("/v1/workspaces", {"spec": {"image": "busybox", "name": f"w{i}"}}, connection=connection)
            assert got.status == 201
        many.wait_for(lambda: 'carrel_workspaces{state="running"} 10000' in many.get("/metrics").body.decode(), 300)
        many.stop(9)
        many.start()
        host.disconnect()
        host.connect()
        assert many.get("/v1/workspaces/w9999").json["state"] == "running"
        assert len(many.get("/v1/workspaces?limit=1000&after=9500").json["items"]) == 500
        host.disconnect()
    finally:
        many.remove()


# What takes the service half a minute; it was begun with the first of these cases.


def test_a_stream_without_a_request_ends(begun):
    _, silent = begun
    assert silent.receive()["error"]["kind"] == "timeout"


def test_a_held_workspace_that_nobody_attaches_to(begun):
    """It is removed after a while, and the service lives on."""
    alone, _ = begun
    assert alone.get("/v1/workspaces/unseen?wait=120&state=removed").status == 404
