# SPDX-License-Identifier: Apache-2.0
"""Kill carreld at each of its fault points while it works; afterwards nothing is lost, nothing is done twice, all agree again."""
import http.client
import os
import sqlite3
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tools"))
from api import CARRELD, Service  # noqa: E402
from pretend_host import PretendHost  # noqa: E402

POINTS = ["service:before-commit", "db:batch", "db:before-commit", "db:after-commit", "service:committed", "service:assigned"]

with open(CARRELD, "rb") as program:
    if b"service:before-commit" not in program.read():
        pytest.skip("fault points are not compiled in (-Dfaults=true)", allow_module_level=True)


@pytest.fixture
def faulty():
    made = []

    def make():
        one = Service()
        one.plan = one.folder + "/faults"
        one.deaths = 0
        one.stop()
        one.env["CARREL_FAULTS"] = one.plan
        with open(one.plan, "w", encoding="ascii"):
            pass
        one.start()
        made.append(one)
        return one

    yield make
    for one in made:
        one.remove()


def arm(service, text):
    with open(service.plan + ".new", "w", encoding="ascii") as f:
        f.write(text)
    os.rename(service.plan + ".new", service.plan)


def retry(service, host, *request, **more):
    """As a client does: the same request again when there was no answer; the service is started again when it died."""
    for _ in range(3):
        try:
            return service.ask(*request, **more)
        except (OSError, http.client.HTTPException):
            revive(service, host)
    raise AssertionError("no answer in three attempts")


def revive(service, host):
    if service.process.wait(60) is not None:
        service.deaths += 1
        arm(service, "")
        service.start()
        host.disconnect()
        host.connect()


def settle(service, host):
    """Both sides agree: no operation runs, each workspace is where it shall be."""
    def agreed():
        if service.process.poll() is not None:
            revive(service, host)
        try:
            running = [o for o in service.get("/v1/operations?limit=1000").json["items"] if o["state"] == "running"]
        except (OSError, http.client.HTTPException):
            return False
        return not running
    service.wait_for(agreed)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point_of_a_life(faulty, point):
    service = faulty()
    host = PretendHost(service.socket)
    body = {"spec": {"image": "busybox", "name": "victim"}}

    def step(*request, **more):
        arm(service, f"{point} kill\n")
        got = retry(service, host, *request, **more)
        settle(service, host)
        arm(service, "")
        if service.process.poll() is not None:
            revive(service, host)
        return got

    made = step("POST", "/v1/workspaces", body, headers={"Idempotency-Key": "life"})
    assert made.status == 201, made.body
    listed = service.get("/v1/workspaces").json["items"]
    assert [w["name"] for w in listed] == ["victim"]
    service.wait_for(lambda: service.get("/v1/workspaces/victim").json["state"] == "running")
    assert host.truth[listed[0]["id"]]["run"] == 1
    step("POST", "/v1/workspaces/victim/stop")
    service.wait_for(lambda: service.get("/v1/workspaces/victim").json["state"] == "stopped")
    step("POST", "/v1/workspaces/victim/start")
    service.wait_for(lambda: service.get("/v1/workspaces/victim").json["state"] == "running")
    assert host.truth[listed[0]["id"]]["run"] == 2
    step("DELETE", "/v1/workspaces/victim?force=1")
    service.wait_for(lambda: service.get("/v1/workspaces").json["items"] == [])
    service.wait_for(lambda: listed[0]["id"] not in host.truth)
    assert service.get("/v1/workspaces").json["items"] == []
    assert service.deaths == 4
    host.disconnect()
    service.stop()
    with sqlite3.connect(service.database) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT COUNT(*) FROM workspaces").fetchone() == (0,)
        assert db.execute("SELECT COUNT(*) FROM operations WHERE state = 'running'").fetchone() == (0,)


@pytest.mark.parametrize("point", ["db:batch", "db:before-commit"])
def test_disk_full_is_an_answer(faulty, point):
    service = faulty()
    host = PretendHost(service.socket)
    service.wait_for(lambda: service.get("/v1/hosts").json["items"])
    service.deploy("kept")
    settle(service, host)
    before = service.get("/v1/workspaces/kept").json
    requests = [("POST", "/v1/workspaces", {"spec": {"image": "busybox", "name": "new"}}), ("POST", "/v1/workspaces/kept/stop"),
                ("PATCH", "/v1/workspaces/kept", {"name": "renamed", "labels": {"a": "b"}}),
                ("DELETE", "/v1/workspaces/kept?force=1")]
    for request in requests:
        arm(service, f"{point} ENOSPC\n")
        got = service.ask(*request)
        assert got.status == 507 and got.error["kind"] == "no-capacity", got.body
        arm(service, "")
        assert [w["name"] for w in service.get("/v1/workspaces").json["items"]] == ["kept"]
        assert service.get("/v1/workspaces/kept").json == before
    service.done(service.post("/v1/workspaces/kept/stop"))
    host.disconnect()


def test_reports_that_were_not_stored_come_again(faulty):
    service = faulty()
    host = PretendHost(service.socket)
    made = service.deploy("told")
    settle(service, host)
    arm(service, "db:before-commit ENOSPC\n")
    host.report(dict(host.truth[made["id"]], state="stopped", **{"exit-status": 3}))
    service.wait_for(lambda: not service.get("/v1/hosts").json["items"][0]["connected"])
    host.disconnect()
    host.connect()
    service.wait_for(lambda: service.get("/v1/workspaces/told").json["state"] == "stopped")
    service.wait_for(lambda: any(v["kind"] == "workspace.stopped" for v in service.get("/v1/events").json["items"]))  # stored
    service.stop(9)
    service.start()
    assert service.get("/v1/workspaces/told").json["exit_status"] == 3
    host.disconnect()


def test_a_removal_that_was_not_stored_is_done_again(faulty):
    service = faulty()
    host = PretendHost(service.socket, delay=0.3)
    made = service.deploy("back")
    settle(service, host)
    removing = service.ask("DELETE", "/v1/workspaces/back?force=1").json
    arm(service, "db:before-commit ENOSPC\n")
    service.wait_for(lambda: not service.get("/v1/hosts").json["items"][0]["connected"])
    assert service.get("/v1/workspaces/back").json["wish"] == "removed"
    host.disconnect()
    host.connect()
    service.wait_for(lambda: service.get("/v1/workspaces/back").status == 404)
    service.wait_for(lambda: made["id"] not in host.truth)
    assert service.get(f"/v1/operations/{removing['id']}").json["state"] == "done"
    host.disconnect()


def test_a_newer_database_is_refused(faulty):
    service = faulty()
    service.stop()
    with sqlite3.connect(service.database) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        db.execute("PRAGMA user_version=99")
    got = subprocess.run([CARRELD, "--state", service.folder + "/state", "--run", service.folder + "/run"], capture_output=True,
                         text=True, check=False)
    assert got.returncode == 7 and "schema 99" in got.stderr and "newer version" in got.stderr
    with sqlite3.connect(service.database) as db:
        db.execute(f"PRAGMA user_version={version}")
    service.start()


def test_operations_of_images_end_honestly(faulty):
    service = faulty()
    service.stop()
    with sqlite3.connect(service.database) as db:
        db.execute("INSERT INTO operations VALUES (1, '0123456789abcdef', 'image-import', 'x', 'image', 0, 'running', NULL, "
                   "NULL, 1, 0)")
    service.start()
    got = service.get("/v1/operations").json["items"]
    assert got[0]["state"] == "failed" and "restarted" in got[0]["error"]["message"]
