# SPDX-License-Identifier: Apache-2.0
"""Roles, the API file against the running server, events, and clients that misbehave."""
import json
import os
import re
import resource
import socket
import sys
import threading
import time

import pytest

jsonschema = pytest.importorskip("jsonschema", reason="needs python3-jsonschema")
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tools"))
from api import CARRELD, Connection, Service, as_user, ask  # noqa: E402
from pretend_host import PretendHost, WebSocket  # noqa: E402

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become other users")


@pytest.fixture(scope="module")
def service():
    # Groups that every Debian has stand for those that an administrator would make.
    one = Service(config="admins: adm\nusers: games\nviewers: backup\nworkspaces-per-user: 3\nconnections-per-user: 20\n")
    yield one
    one.remove()


@pytest.fixture(scope="module")
def host(service):
    one = PretendHost(service.socket)
    yield one
    one.disconnect()


def gid(name):
    import grp
    return grp.getgrnam(name).gr_gid


def requests_as(service, uid, groups, requests):
    """[(status, body text)] of requests made by another user."""
    def work():
        answers = [ask(service.socket, *request) for request in requests]
        return [(a.status, a.body.decode("utf-8", "replace")) for a in answers]
    return as_user(uid, groups, work)


@needs_root
def test_every_route_and_every_role(service, host):
    """Who may call what follows from x-role; a refusal is 403 with a reason, and what is allowed is never 403."""
    api = service.get("/v1/openapi.json").json
    roles = {"stranger": (70001, [65534]), "viewer": (70002, [gid("backup")]), "user": (70003, [gid("games")]),
             "admin": (70004, [gid("adm")])}
    may = {"read": {"viewer", "user", "admin"}, "change": {"user", "admin"}, "admin": {"admin"}, "host": set()}
    calls = [(method.upper(), re.sub(r"\{[a-z]+\}", "nothing-here", path), route["x-role"])
             for path, methods in api["paths"].items() for method, route in methods.items()]
    assert len(calls) > 35
    for role, (uid, groups) in roles.items():
        for (method, path, need), (status, body) in zip(calls, requests_as(service, uid, groups, [c[:2] for c in calls])):
            assert (status == 403) == (role not in may[need]), (role, method, path, status, body)
            if status == 403:
                assert json.loads(body)["error"]["message"]


@needs_root
def test_users_see_only_their_own(service, host):
    one, two, viewer = (70005, [gid("games")]), (70006, [gid("games")]), (70007, [gid("backup")])
    made = requests_as(service, *one, [("POST", "/v1/workspaces", {"spec": {"image": "busybox", "name": "mine"}})])
    assert made[0][0] == 201 and json.loads(made[0][1])["owner"] == 70005
    workspace = json.loads(made[0][1])
    service.wait(workspace["operation"])
    calls = [("GET", "/v1/workspaces/mine"), ("GET", f"/v1/workspaces/{workspace['id']}"),
             ("GET", f"/v1/workspaces/{workspace['id'][:8]}"),
             ("POST", "/v1/workspaces/mine/stop"), ("DELETE", "/v1/workspaces/mine?force=1"),
             ("GET", "/v1/workspaces/mine/why"),
             ("GET", f"/v1/operations/{workspace['operation']}"), ("PATCH", "/v1/workspaces/mine", {"name": "stolen"})]
    for status, body in requests_as(service, *two, calls):
        assert status == 404, body
    lists = [("GET", "/v1/workspaces"), ("GET", "/v1/operations"), ("GET", "/v1/events")]
    for status, body in requests_as(service, *two, lists):
        assert workspace["id"] not in body
    for status, body in requests_as(service, *viewer, lists):
        assert workspace["id"] in body
    taken = requests_as(service, *two, [("POST", "/v1/workspaces", {"spec": {"image": "busybox", "name": "mine"}})])[0]
    assert taken[0] == 409 and workspace["id"] not in taken[1] and "another user" in taken[1]
    denied = requests_as(service, *viewer, [("POST", "/v1/workspaces/mine/stop")])[0]
    assert denied[0] == 403 and "may look" in denied[1]


@needs_root
def test_what_only_administrators_may(service, host):
    user = (70008, [gid("games")])
    spec = {"image": "busybox", "network": "host"}
    status, body = requests_as(service, *user, [("POST", "/v1/workspaces", {"spec": spec})])[0]
    assert status == 403 and "administrators" in body
    got = requests_as(service, 70004, [gid("adm")], [("POST", "/v1/workspaces", {"spec": spec})])[0]
    assert got[0] == 201
    deploys = [("POST", "/v1/workspaces", {"spec": {"image": "busybox"}})] * 4
    statuses = [a[0] for a in requests_as(service, *user, deploys)]
    assert statuses == [201, 201, 201, 507]


@needs_root
def test_a_user_cannot_take_all_connections(service):
    def work():
        mine = []
        for _ in range(60):
            one = socket.socket(socket.AF_UNIX)
            one.connect(service.socket)
            mine.append(one)
        closed = 0
        for one in mine[20:]:  # the first twenty are kept
            one.settimeout(60)
            closed += one.recv(1) == b""
        for one in mine[:20]:
            one.setblocking(False)
            try:
                one.recv(1)
                return -1
            except BlockingIOError:
                pass
        return closed

    assert as_user(70009, [gid("games")], work) == 40
    assert service.get("/v1/version").status == 200


def check_shape(api, schema, value):
    jsonschema.validate(value, {**schema, "components": api["components"]})


def test_answers_hold_what_the_api_file_says(service, host):
    api = service.get("/v1/openapi.json").json
    assert api["openapi"] == "3.1.0"
    assert service.post("/v1/networks", {"name": "lab", "kind": "isolated"}).status == 201
    made = service.deploy("described", labels={"a": "b"}, groups=["team"],
                          networks=[{"network": "lab", "rates": {"in-most": "10M"}}],
                          volumes=[{"name": "d", "size": "1GiB", "mount": "/d"}],
                          resources={"cpu": 1.5, "memory": "1GiB"}, environment={"A": "1"})
    service.wait(made["operation"])
    service.done(service.post("/v1/workspaces/described/pause"))
    service.done(service.post("/v1/workspaces/described/snapshots", {"name": "s1"}))
    host.volumes = [{"owner": 0, "name": "base", "size": 1 << 30, "used": 4096, "workspace": None}]
    host.tell_volumes()
    service.wait_for(lambda: service.get("/v1/volumes").json["items"])
    places = {"workspace": "described", "operation": made["operation"], "snapshot": "s1", "image": "busybox", "host": "local",
              "volume": "none", "stream": "none", "network": "lab", "group": "team", "kernel": "none"}
    seen = 0
    for path, methods in api["paths"].items():
        if "get" not in methods or path in ("/metrics", "/v1/images/{image}/export"):
            continue
        got = service.get(re.sub(r"\{([a-z]+)\}", lambda m: places[m.group(1)], path))
        route = methods["get"]["responses"]
        if "101" in route or "{kernel}" in path:  # there is none: it has to be made of a real package (test_kernels.py)
            assert got.status in (400, 404)
            check_shape(api, route["default"]["content"]["application/json"]["schema"], got.json)
            continue
        if got.status == 501:  # nothing to show here
            continue
        assert got.status == 200, (path, got.body)
        content = route["200"].get("content", {}).get("application/json")
        if content:
            check_shape(api, content["schema"], got.json)
            seen += 1
    assert seen >= 10
    for path, method, body in (("/v1/workspaces/{workspace}/stop", "post", {}),
                               ("/v1/workspaces/{workspace}", "patch", {"labels": {}}),
                               ("/v1/workspaces/{workspace}/snapshots/{snapshot}", "delete", None),
                               ("/v1/workspaces/{workspace}", "delete", None)):
        got = service.ask(method.upper(), re.sub(r"\{([a-z]+)\}", lambda m: places[m.group(1)], path), body)
        status = [s for s in api["paths"][path][method]["responses"] if s != "default"][0]
        assert str(got.status) == status, (path, got.body)
        check_shape(api, api["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"], got.json)
        if got.status == 202:
            service.wait(got.json["id"])


def test_the_program_prints_the_same_api_file(service):
    import subprocess
    printed = subprocess.run([CARRELD, "--openapi"], capture_output=True, check=True).stdout
    assert json.loads(printed) == service.get("/v1/openapi.json").json


def test_references_in_the_api_file_resolve(service):
    text = service.get("/v1/openapi.json").body.decode()
    schemas = json.loads(text)["components"]["schemas"]
    for name in re.findall(r"#/components/schemas/([a-z-]+)", text):
        assert name in schemas
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_metrics(service):
    text = service.get("/metrics").body.decode()
    assert text.endswith("# EOF\n")
    for line in text.splitlines()[:-1]:
        assert line.startswith("#") or re.fullmatch(r'carrel_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.]+',
                                                    line), line


def test_events_are_followed(service, host):
    lines, connection = [], Connection(service.socket)
    last = service.get("/v1/events?limit=1000").json["items"][-1]["seq"]
    connection.request("GET", f"/v1/events?follow=1&after={last}")
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "text/event-stream"
    made = service.deploy("followed")

    def read():
        while True:
            line = answer.readline().decode().rstrip("\n")
            lines.append(line)
            if line == "event: workspace.running":
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(120)
    assert not reader.is_alive()
    kinds = [line[7:] for line in lines if line.startswith("event: ")]
    assert kinds[0] == "workspace.created" and kinds[-1] == "workspace.running"
    numbers = [int(line[4:]) for line in lines if line.startswith("id: ")]
    assert numbers == sorted(numbers) and numbers[0] == last + 1
    data = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert data[0]["subject"] == made["id"]
    connection.close()
    listed = service.get(f"/v1/events?after={last}&limit=1").json
    assert listed["items"][0]["seq"] == last + 1 and listed["next"] == str(last + 1)


def raw(service, data, wait=5.0):
    """What the server answers to bytes, until it closes or says nothing for a while."""
    one = socket.socket(socket.AF_UNIX)
    one.connect(service.socket)
    one.settimeout(wait)
    got = b""
    try:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        while True:
            more = one.recv(65536)
            if not more:
                break
            got += more
    except (TimeoutError, ConnectionError):
        pass
    one.close()
    return got


@pytest.mark.parametrize("target, status", [
    ("/v1/workspaces/%00", 400), ("/v1/workspaces/%zz", 400), ("/v1/workspaces/a%2", 400), ("//v1", 404),
    ("/v1//workspaces", 404),
    ("/", 404), ("/v1/workspaces/", 404), ("/v1/nothing", 404), ("/v1/workspaces?limit=x", 400),
    ("/v1/workspaces?limit=1001", 400),
    ("/v1/workspaces?limit=0", 400), ("/v1/workspaces?limit=-1", 400), ("/v1/workspaces?after=abc", 400),
    ("/v1/workspaces?limit=1&limit=2", 400), ("/v1/workspaces?=1", 400), ("/v1/workspaces?&&", 200),
    ("/v1/workspaces/" + "a" * 3000, 404), ("/v1/workspaces/..", 404), ("/v1/events?after=99999999999999999999", 400),
    ("/v1/operations/x?wait=601", 404), ("/v1/a/b/c/d/e/f/g/h/i/j", 404),
])
def test_odd_addresses(service, target, status):
    got = service.get(target)
    assert got.status == status, got.body
    assert status == 200 or got.error["message"]


@pytest.mark.parametrize("body, part", [
    (b"{", "request body"), (b"[]", "map"), (b"{}", "spec"), (b"\xff\xfe\x00", "request body"),
    (b'{"spec": {"image": "b", "image": "c"}}', "image"),
    (b"[" * 10000, "request body"), (b'{"spec": ' + b'{"a": ' * 5000, "request body"), (b"&a [*a]", "request body"),
    (b"", "missing"), (b"{\x00}", "request body"),
])
def test_odd_bodies(service, body, part):
    got = service.ask("POST", "/v1/workspaces", body)
    assert got.status == 400 and part in got.error["message"], got.body


def test_methods(service):
    for method, target, takes in (("PUT", "/v1/workspaces", "GET, HEAD, POST, OPTIONS"),
                                  ("PUT", "/v1/events", "GET, HEAD, OPTIONS"),
                                  ("POST", "/v1/workspaces/x", "GET, HEAD, PATCH, DELETE, OPTIONS"),
                                  ("HEAD", "/v1/workspaces/x/start", "POST, OPTIONS"),
                                  ("GET", "/v1/operations/x/cancel", "POST, OPTIONS"),
                                  ("BREW", "/v1/version", "GET, HEAD, OPTIONS")):
        got = service.ask(method, target)
        assert got.status == 405 and got.headers["Allow"] == takes, (method, target, got.headers)
        assert method == "HEAD" or got.error["kind"] == "method" and takes in got.error["hint"]
    assert service.ask("PUT", "/v1/nothing").status == service.ask("OPTIONS", "/v1/nothing").status == 404
    options = service.ask("OPTIONS", "/v1/workspaces")
    assert options.status == 204 and options.headers["Allow"] == "GET, HEAD, POST, OPTIONS" and options.body == b""
    full, head = service.get("/v1/version"), service.ask("HEAD", "/v1/version")
    assert head.status == 200 and head.body == b"" and head.headers["Content-Length"] == full.headers["Content-Length"]
    assert service.ask("HEAD", "/v1/workspaces/none").status == 404


def test_lists_have_one_form(service):
    api = service.get("/v1/openapi.json").json
    for path, methods in api["paths"].items():
        schema = methods.get("get", {}).get("responses",
                                            {}).get("200", {}).get("content", {}).get("application/json", {}).get("schema", {})
        if "items" not in schema.get("properties", {}) or "{" in path:
            continue
        assert schema["properties"]["next"]["type"] == "string"
        assert "next" not in service.get(path + ("?limit=1000" if "limit" in json.dumps(methods["get"])
                                                 else "")).json or path == "/v1/events"
        for parameter in methods["get"]["parameters"]:
            if parameter["name"] == "limit":
                assert parameter["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
                assert "100 when missing" in parameter["description"]


def test_no_descriptors_left(service):
    """New connections wait without a spinning processor, and are served when others have gone."""
    def seconds():
        with open(f"/proc/{service.process.pid}/stat", encoding="ascii") as f:
            return sum(int(n) for n in f.read().rsplit(")", 1)[1].split()[11:13]) / os.sysconf("SC_CLK_TCK")

    open_now = len(os.listdir(f"/proc/{service.process.pid}/fd"))
    before = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (open_now + 4, before[1]))
    try:
        crowd = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        for one in crowd:
            one.connect(service.socket)
        time.sleep(0.3)
        used = seconds()
        time.sleep(1)
        assert seconds() - used < 0.3
        for one in crowd:
            one.close()
        assert service.get("/v1/version").status == 200
        assert service.read_log().count("new connections wait") == 1
    finally:
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, before)


def test_bodies_where_none_belong(service):
    assert service.post("/v1/workspaces/x/start", {"a": 1}).status == 400


def test_too_large(service):
    got = raw(service, b"POST /v1/workspaces HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n")
    assert b"413" in got.split(b"\r\n")[0] and b"too-large" in got
    chunks = b"".join(b"10000\r\n" + b"x" * 65536 + b"\r\n" for _ in range(20)) + b"0\r\n\r\n"
    got = raw(service, b"POST /v1/workspaces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert b"413" in got.split(b"\r\n")[0]
    got = raw(service, b"GET /v1/version HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 200000 + b"\r\n\r\n")
    assert got == b"" or got.split(b" ")[1] in (b"400", b"413", b"414", b"431")
    got = raw(service, b"GET /v1/" + b"x" * 200000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got == b"" or got.split(b" ")[1] in (b"400", b"404", b"413", b"414", b"431")
    assert service.get("/v1/version").status == 200


def test_garbage(service):
    for _ in range(200):
        raw(service, os.urandom(300), 0.05)
    raw(service, b"\r\n" * 1000, 0.5)
    raw(service, b"GET /v1/version HTTP/9.9\r\n\r\n", 0.5)
    raw(service, b"GET /v1/workspaces/x/exec HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", 0.5)
    assert service.get("/v1/version").status == 200


def test_garbage_on_the_channel(service, host):
    ws = WebSocket(service.socket, "/v1/hosts/other/channel")
    for message in ("{", "[]", "null", '{"type": 3}', '{"type":"reports"}', '{"type":"reports","items":{}}',
                    '{"type":"reports","items":[{"id":7}]}',
                    '{"type":"hello","protocol":9}', '{"type":"progress"}', '{"type":"planned","id":"x"}',
                    '{"type":"volumes","items":3}',
                    json.dumps({"type": "reports", "items": [{"id": "../../x", "state": "running"}]})):
        try:
            ws.send(message)
        except OSError:
            ws = WebSocket(service.socket, "/v1/hosts/other/channel")
    ws.close()
    assert service.get("/v1/version").status == 200
    assert service.get("/v1/workspaces").status == 200


def test_slow_senders_hold_up_nobody(service):
    slow = []
    for _ in range(200):
        one = socket.socket(socket.AF_UNIX)
        one.connect(service.socket)
        one.sendall(b"GET /v1/version HTTP/1.1\r\nHo")
        slow.append(one)
    assert service.get("/v1/version").status == 200  # while they still wait: each has 30 seconds
    for one in slow:
        one.close()


def test_memory_stays_bounded(service, host):
    """Requests leave nothing behind."""
    def resident():
        with open(f"/proc/{service.process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * resource.getpagesize()

    connection = Connection(service.socket)

    def many(count):
        for i in range(count):
            service.get("/v1/workspaces", connection=connection)
            service.get(f"/v1/workspaces/none{i}", connection=connection)
            service.post("/v1/workspaces", {"spec": {"image": f"none{i}"}}, connection=connection)

    many(1000)
    before = resident()
    many(3000)
    assert resident() - before < 8 << 20


@pytest.mark.parametrize("text, part",
                         [("admns: x\n", "admins"), ("workspaces-per-user: 0\n", "workspaces-per-user"), ("- x\n", "map")])
def test_settings_are_strict(text, part):
    with pytest.raises(RuntimeError, match=part):
        Service(config=text)


def test_one_service_a_folder(service):
    import subprocess
    second = subprocess.run([CARRELD, "--state", service.folder + "/state", "--run", service.folder + "/run2"],
                            capture_output=True, text=True, check=False)
    assert second.returncode == 5 and "another carreld" in second.stderr
