# SPDX-License-Identifier: Apache-2.0
"""Networks, addresses and groups over the API, against the real service with a host that pretends."""
import http.client
import ipaddress
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tools"))
from api import BUILD, Service, as_user, ask  # noqa: E402
from pretend_host import PretendHost  # noqa: E402

CONFIG = "everyone: true\naddress-rest: 1h\nworkspaces-per-user: 100000\n"


@pytest.fixture
def service():
    one = Service(config=CONFIG)
    yield one
    one.remove()


@pytest.fixture
def host(service):
    one = PretendHost(service.socket)
    yield one
    one.disconnect()


def network(service, name, status=201, **body):
    got = service.post("/v1/networks", {"name": name, **body})
    assert got.status == status, got.body
    return got.json if status == 201 else got.error


def address(workspace, number=0, family="ipv4"):
    return workspace["interfaces"][number][family].split("/")[0]


def patch(service, name, **body):
    got = service.ask("PATCH", f"/v1/workspaces/{name}", body)
    assert got.status == 200, got.body
    return got.json


def refused(answer, status, kind, *words):
    assert answer.status == status and answer.error["kind"] == kind, answer.body
    for word in words:
        assert word in answer.error["message"] + answer.error.get("hint", ""), answer.body


def remove(service, name):
    service.done(service.ask("DELETE", f"/v1/workspaces/{name}?force=1"))


def user(service, uid, method, target, body=None):
    def work():
        got = ask(service.socket, method, target, body)
        return [got.status, json.loads(got.body) if got.body else None]
    return as_user(uid, [uid], work)


def test_networks(service, host):
    lab = network(service, "lab")
    assert lab["kind"] == "nat" and lab["number"] == 1 and lab["zone"] == "lab.carrel" and lab["mtu"] == 1500
    assert ipaddress.ip_network(lab["ipv4"]).prefixlen == 24 and ipaddress.ip_network(lab["ipv6"]).prefixlen == 64
    assert lab["ipv6"].startswith("fd") and lab["free"] == 253
    assert network(service, "lab", 409)["kind"] == "exists"
    other = network(service, "other", ipv6="none")
    assert "ipv6" not in other and other["ipv4"] != lab["ipv4"]
    service.wait_for(lambda: set(host.networks) == {"lab", "other"})
    assert service.ask("DELETE", "/v1/networks/other").status == 204
    service.wait_for(lambda: set(host.networks) == {"lab"})
    assert network(service, "third")["number"] == 3, "numbers are not given again"
    assert [n["name"] for n in service.get("/v1/networks?limit=1").json["items"]] == ["lab"]
    assert service.get("/v1/networks?limit=1&after=1").json["items"][0]["name"] == "third"
    assert user(service, 4711, "POST", "/v1/networks", {"name": "mine"})[0] == 403


def test_pools_that_overlap_are_refused(service):
    network(service, "wide", ipv4="10.211.0.0/16", ipv6="fd99::/64")
    error = network(service, "narrow", 409, ipv4="10.211.7.0/24")
    assert "overlaps 10.211.0.0/16 of network 'wide'" in error["message"]
    assert "wide" in network(service, "narrow", 409, ipv4="10.212.0.0/24", ipv6="fd99::/80")["message"]
    host = PretendHost(service.socket)
    host.ws.send({"type": "facts", "facts": {"items": [], "routes": ["10.213.0.0/16", "default", 7, "fd77::/48"]}})
    service.wait_for(lambda: network_refused(service, "10.213.9.0/24", "route 10.213.0.0/16 of host local"))
    service.wait_for(lambda: network_refused(service, "10.214.9.0/24", "fd77::/48", ipv6="fd77:0:0:1::/64"))
    host.disconnect()
    for bad in ("10.1.2.3/24", "10.0.0.0/31", "10.0.0.0", "300.0.0.0/24", "fd00::/64", "../x", "10.0.0.0/24\n",
                "\u202e10.0.0.0/24"):
        assert network(service, "bad", 400, ipv4=bad)["kind"] == "invalid"
    assert "routed names its pools" in network(service, "r", 400, kind="routed")["message"]
    assert "bridge" in network(service, "b", 400, kind="bridge", ipv4="192.0.2.0/24")["message"]


def network_refused(service, pool, why, **more):
    got = service.post("/v1/networks", {"name": "probe", "ipv4": pool, **more})
    if got.status == 201:
        service.ask("DELETE", "/v1/networks/probe")
        return False
    assert why in got.error["message"], got.body
    return True


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "-a", "a" * 64, "none", "host", "auto", "a b", "a;nft flush ruleset",
                                  "a\n", "\u00e4", "$(id)", "' OR 1=1 --"])
def test_hostile_names(service, name):
    assert network(service, name, 400)["kind"] == "invalid"
    if name in ("none", "host", "auto"):
        return
    got = service.post("/v1/workspaces", {"spec": {"image": "busybox", "groups": [name]}})
    refused(got, 400, "invalid")


def test_default_network_and_what_was_before(service, host):
    before = service.deploy("before")
    assert before["interfaces"] == []
    network(service, "default", ipv4="10.215.0.0/24")
    made = service.deploy("after")
    assert address(made) == "10.215.0.2" and made["interfaces"][0]["device"] == "eth0"
    assert made["spec"]["networks"] == [{"network": "default"}]
    assert service.deploy("alone", network="none")["interfaces"] == []
    service.wait(made["operation"])
    got = host.assigned[made["id"]]["attachments"][0]
    assert got["mac"].startswith("02:") and got["port"].startswith("cr") and len(got["port"]) <= 15
    service.wait_for(lambda: host.members.get(made["id"], {}).get("addresses"))
    assert host.members[made["id"]]["addresses"][0]["ipv4"] == "10.215.0.2"
    assert before["id"] not in host.members
    service.stop()
    host.disconnect()
    service.start()
    host.connect()
    assert service.get("/v1/workspaces/before").json["interfaces"] == []
    assert service.get("/v1/workspaces/after").json["interfaces"] == made["interfaces"]
    service.done(service.post("/v1/workspaces/after/stop"))
    service.done(service.post("/v1/workspaces/after/start"))
    assert service.get("/v1/workspaces/after").json["interfaces"] == made["interfaces"]


def test_addresses_fixed_reserved_and_resting(service, host):
    network(service, "lab", ipv4="10.215.1.0/28", ipv6="fd15::/64",
            reserved=["10.215.1.2-10.215.1.4", "10.215.1.8/30", "fd15::2"])
    lab = [{"network": "lab"}]

    def ask_for(name, **fixed):
        return service.post("/v1/workspaces",
                            {"spec": {"image": "busybox", "name": name, "networks": [{"network": "lab", **fixed}]}})

    first = service.deploy("first", networks=lab)
    assert address(first) == "10.215.1.5" and address(first, family="ipv6") == "fd15::3"
    fixed = ask_for("fixed", ipv4="10.215.1.13", ipv6="fd15:0:0:0::abcd", mac="02:AA:00:00:00:01")
    assert fixed.status == 201 and address(fixed.json) == "10.215.1.13" and address(fixed.json, family="ipv6") == "fd15::abcd"
    assert fixed.json["interfaces"][0]["mac"] == "02:aa:00:00:00:01"
    refused(ask_for("x", ipv4="10.215.1.13"), 409, "conflict", "taken by workspace 'fixed'")
    refused(ask_for("x", mac="02:aa:00:00:00:01"), 409, "conflict", "taken by workspace 'fixed'")
    for reserved in ("10.215.1.0", "10.215.1.1", "10.215.1.15", "10.215.1.3", "10.215.1.9"):
        refused(ask_for("x", ipv4=reserved), 409, "conflict", "reserved")
    refused(ask_for("x", ipv4="10.215.2.9"), 400, "invalid", "not in the pool 10.215.1.0/28")
    refused(service.post("/v1/workspaces", {"spec": {"image": "busybox", "networks": [{"network": "no"}]}}), 404, "not-found",
            "no network 'no'")
    refused(service.post("/v1/workspaces", {"spec": {"image": "busybox", "networks": lab * 2}}), 400, "invalid", "listed twice")
    remove(service, "first")
    refused(ask_for("x", ipv4="10.215.1.5"), 409, "conflict", "rests", "'first'")
    second = service.deploy("second", networks=lab)
    assert address(second) == "10.215.1.6"
    again = service.deploy("first", networks=lab)
    assert address(again) == "10.215.1.5" and again["interfaces"][0]["mac"] == first["interfaces"][0]["mac"]
    assert again["interfaces"][0]["number"] > second["interfaces"][0]["number"], "numbers are not given again"


def test_rest_ends(service, host):
    service.stop()
    with open(service.config, "w", encoding="ascii") as f:
        f.write("everyone: true\naddress-rest: 0s\n")
    service.start()
    host.disconnect()
    host.connect()
    network(service, "lab", ipv4="10.215.3.0/24")
    service.deploy("one", networks=[{"network": "lab"}])
    remove(service, "one")
    assert address(service.deploy("two", networks=[{"network": "lab"}])) == "10.215.3.2"


def test_exhausted_pool(service, host):
    network(service, "tiny", ipv4="10.215.4.0/29")
    made = [service.deploy(f"w{i}", networks=[{"network": "tiny"}]) for i in range(5)]
    assert [address(w) for w in made] == [f"10.215.4.{i}" for i in range(2, 7)]
    got = service.post("/v1/workspaces", {"spec": {"image": "busybox", "networks": [{"network": "tiny"}]}})
    refused(got, 507, "no-capacity", "10.215.4.0/29", "room for 5", "w0, w1, w2, w3, w4", "larger network")
    assert len(service.get("/v1/workspaces").json["items"]) == 5
    got = service.ask("DELETE", "/v1/networks/tiny")
    refused(got, 409, "conflict", "in use by w0", "disconnect")
    remove(service, "w0")
    got = service.post("/v1/workspaces", {"spec": {"image": "busybox", "networks": [{"network": "tiny"}]}})
    refused(got, 507, "no-capacity", "1 rest")


def test_changes_of_a_running_workspace(service, host):
    network(service, "a", ipv4="10.215.5.0/24")
    network(service, "b", ipv4="10.215.6.0/24")
    made = service.deploy("w", networks=[{"network": "a"}])
    service.wait(made["operation"])
    run = service.get("/v1/workspaces/w").json["run"]
    both = patch(service, "w", networks=[{"network": "a"},
                                         {"network": "b", "ipv4": "10.215.6.77", "rates": {"in-most": "10Mbit"}}])
    assert both["interfaces"][0] == made["interfaces"][0]
    assert address(both, 1) == "10.215.6.77" and both["interfaces"][1]["device"] == "eth1"
    assert both["interfaces"][1]["rates"]["in-most"] == 10_000_000 and both["generation"] == made["generation"] + 1
    service.wait_for(lambda: len(host.members[made["id"]]["addresses"]) == 2)
    service.wait_for(lambda: len(host.assigned[made["id"]]["attachments"]) == 2)
    only = patch(service, "w", networks=[{"network": "b"}])
    assert only["interfaces"][0]["device"] == "eth1" and address(only) == "10.215.6.77", "what stays keeps its name and address"
    back = patch(service, "w", networks=[{"network": "b"}, {"network": "a"}])
    assert address(back) == address(made) and back["interfaces"][0]["mac"] == made["interfaces"][0]["mac"]
    ruled = patch(service, "w", allow=["wan", "group:ops tcp/22"], deny=["192.0.2.0/24"], **{"from": ["any tcp/80"]},
                  groups=["ops"], publish=["8080:80"], isolated=False)
    assert ruled["spec"]["allow"] == ["wan", "group:ops tcp/22"] and ruled["spec"]["publish"] == ["8080:80"]
    service.wait_for(lambda: host.members[made["id"]]["groups"] == ["ops"])
    service.wait_for(lambda: host.assigned[made["id"]]["generation"] == ruled["generation"])
    assert host.assigned[made["id"]]["spec"]["from"] == ["any tcp/80"]
    assert service.get("/v1/workspaces/w").json["run"] == run, "nothing was started anew"
    refused(service.ask("PATCH", "/v1/workspaces/nobody", {"allow": ["wan"]}), 404, "not-found")
    got = service.ask("PATCH", "/v1/workspaces/w", {"allow": ["wann"]})
    refused(got, 400, "invalid")
    assert "allow" not in patch(service, "w", allow=None)["spec"]
    got = service.ask("PATCH", "/v1/workspaces/w", {"networks": [{"network": "b"}, {"network": "none-such"}]})
    refused(got, 404, "not-found")
    assert len(service.get("/v1/workspaces/w").json["interfaces"]) == 2
    remove(service, "w")
    service.wait_for(lambda: made["id"] not in host.members)


def test_published_ports(service, host):
    network(service, "lab", ipv4="10.215.7.0/24")
    lab = {"networks": [{"network": "lab"}]}
    service.deploy("web", publish=["8080:80", "127.0.0.1:9000:9000/udp"], **lab)

    def refuse(publish, *words, kind="conflict", status=409):
        refused(service.post("/v1/workspaces", {"spec": {"image": "busybox", "publish": publish, **lab}}), status, kind, *words)

    refuse(["192.0.2.1:8080:1"], "8080/tcp is published by workspace 'web'")
    refuse(["9000:1/udp"], "'web'")
    refuse(["7000:1", "7000:2"], "same port", kind="invalid", status=400)
    service.deploy("beside", publish=["8080:80/udp", "127.0.0.2:9000:9000/udp"], **lab)
    patch(service, "web", publish=["8081:80"])
    patch(service, "beside", publish=["8080:80"])
    spec = {"image": "busybox", "publish": ["80:80"], **lab}
    status, body = user(service, 4711, "POST", "/v1/workspaces", {"spec": spec})
    assert status == 403 and "administrators" in body["error"]["message"]
    service.deploy("low", publish=["81:80"], **lab)


def test_groups(service, host):
    status, made = user(service, 4711, "POST", "/v1/workspaces",
                        {"spec": {"image": "busybox", "name": "mine", "groups": ["team"]}})
    assert status == 201, made
    group = service.get("/v1/groups/team").json
    assert group["owner"] == 4711 and group["workspaces"] == ["mine"] and group["hidden"] == 0
    spec = {"image": "busybox", "name": "theirs", "groups": ["team"]}
    status, body = user(service, 4712, "POST", "/v1/workspaces", {"spec": spec})
    assert status == 403 and "share team 4712" in body["error"]["hint"], body
    assert user(service, 4712, "PATCH", "/v1/groups/team", {"shared": [4712]})[0] == 403
    assert user(service, 4711, "PATCH", "/v1/groups/team", {"shared": [4712]})[1]["shared"] == [4712]
    assert user(service, 4712, "POST", "/v1/workspaces", {"spec": spec})[0] == 201
    status, body = user(service, 4711, "GET", "/v1/groups/team")
    assert body["workspaces"] == ["mine"] and body["hidden"] == 1
    service.deploy("roots", groups=["team"])
    status, body = user(service, 4711, "DELETE", "/v1/groups/team")
    assert status == 409
    for name in ("mine", "theirs", "roots"):
        patch(service, name, groups=[])
    assert [g["name"] for g in service.get("/v1/groups").json["items"]] == ["team"]
    service.stop(signal.SIGKILL)
    service.start()
    assert service.get("/v1/groups/team").json["shared"] == [4712]
    assert user(service, 4711, "DELETE", "/v1/groups/team")[0] == 204
    assert service.get("/v1/groups/team").status == 404


def test_etags_of_networks_and_groups(service, host):
    network(service, "lab")
    service.deploy("one", groups=["team"], networks=[{"network": "lab"}])
    for target, change in (("/v1/groups/team", ("PATCH", {"shared": [1, 2]})), ("/v1/networks/lab", None)):
        seen = service.get(target)
        tag = seen.headers["ETag"]
        assert service.get(target, headers={"If-None-Match": tag}).status == 304
        if change:
            assert service.ask(change[0], target, change[1],
                               headers={"If-Match": tag}).headers["ETag"] == service.get(target).headers["ETag"]
            assert service.ask(change[0], target, {"shared": []}, headers={"If-Match": tag}).status == 412
            assert service.get(target).json["shared"] == [1, 2]
        else:
            service.deploy("two", networks=[{"network": "lab"}])
        refused(service.ask("DELETE", target, headers={"If-Match": tag}), 412, "precondition-failed", "has changed since")
        assert service.get(target, headers={"If-None-Match": tag}).status == 200
    remove(service, "one")
    remove(service, "two")
    tag = service.get("/v1/networks/lab").headers["ETag"]
    assert service.ask("DELETE", "/v1/networks/lab", headers={"If-Match": tag}).status == 204


def carrel(service, *words, ok=0):
    child = subprocess.Popen([os.path.join(BUILD, "src/cli/carrel"), *words],
                             env={**os.environ, "CARREL_ADDRESS": f"unix:{service.socket}"},
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end():
        out, said = child.communicate(timeout=120)
        assert child.returncode == ok, (words, said)
        return out
    return end


def test_changes_at_the_same_time_are_all_kept(service, host):
    """The command line reads, edits and replaces lists; who was too late does it again."""
    network(service, "lab")
    service.deploy("one", networks=[{"network": "lab"}])
    makers = {"allow": lambda i: ("allow", "one", f"10.1.{i}.0/24"),
              "from": lambda i: ("allow", "--from", "one", f"group:g{i}"),
              "groups": lambda i: ("group", "add", f"g{i}", "one"), "publish": lambda i: ("publish", "one", f"{8000 + i}:80"),
              "labels": lambda i: ("set", "one", "--label", f"l{i}=x")}
    for end in [carrel(service, *maker(i)) for i in range(6) for maker in makers.values()]:
        end()
    spec = service.get("/v1/workspaces/one").json["spec"]
    assert sorted(spec["groups"]) == [f"g{i}" for i in range(6)]
    assert {f"10.1.{i}.0/24" for i in range(6)} <= set(spec["allow"]) and len(spec["from"]) == 6 and len(spec["publish"]) == 6
    assert len(spec["labels"]) == 6
    for end in [carrel(service, "group", "share", "g1", str(2000 + i)) for i in range(8)]:
        end()
    assert sorted(service.get("/v1/groups/g1").json["shared"]) == list(range(2000, 2008))
    for end in [carrel(service, "deny", "one", f"10.1.{i}.0/24")
                for i in range(6)] + [carrel(service, "unpublish", "one", f"{8000 + i}") for i in range(6)]:
        end()
    spec = service.get("/v1/workspaces/one").json["spec"]
    assert spec["allow"] == ["wan"] and not spec.get("publish")


def test_bridges_are_for_administrators(service, host):
    network(service, "site", kind="bridge", bridge="br0", vlan=7, ipv4="192.0.2.0/24")
    spec = {"image": "busybox", "networks": [{"network": "site"}]}
    assert user(service, 4711, "POST", "/v1/workspaces", {"spec": spec})[0] == 403
    service.deploy("bridged", networks=[{"network": "site"}])


def test_judge_and_traffic(service, host):
    network(service, "lab", ipv4="10.215.8.0/24")
    a, b = (service.deploy(n, networks=[{"network": "lab"}]) for n in ("a", "b"))
    asked = []
    host.judge = lambda m: asked.append(m) or {"allowed": False, "rule": "deny workspace:a", "side": "b"}
    got = service.post("/v1/workspaces/a/judge", {"to": "b", "service": "tcp/22"})
    assert got.status == 200 and got.json == {"allowed": False, "rule": "deny workspace:a", "side": "b"}
    assert (asked[0]["from"], asked[0]["to"], asked[0]["service"]) == (a["id"], b["id"], "tcp/22")
    assert service.post("/v1/workspaces/192.0.2.1/judge", {"to": "b", "service": "tcp/22"}).status == 200
    refused(service.post("/v1/workspaces/a/judge", {"to": "b", "service": "tcp/x"}), 400, "invalid")
    host.judge = lambda m: {"error": {"kind": "unavailable", "message": "no rules yet"}}
    refused(service.post("/v1/workspaces/a/judge", {"to": "b", "service": "icmp"}), 503, "unavailable", "no rules yet")
    host.traffic({"workspace": a["id"],
                  "interfaces": [{"device": "eth0", "in-bytes": 5, "out-bytes": 6, "in-packets": 1, "out-packets": 2}],
                  "dropped": [{"rule": "deny workspace:a", "packets": 3, "last": "2026-01-01T00:00:00Z"}]})
    got = service.wait_for(lambda: service.get("/v1/workspaces/a/traffic").json["dropped"]
                           and service.get("/v1/workspaces/a/traffic").json)
    assert got["interfaces"][0]["in-bytes"] == 5 and got["interfaces"][0]["ipv4"] == "10.215.8.2/24"
    assert service.get("/v1/workspaces/a/why").json["dropped"][0]["rule"] == "deny workspace:a"
    metrics = service.get("/metrics").body.decode()
    assert 'carrel_interface_in_bytes_total{workspace="a",network="lab"} 5' in metrics
    assert 'carrel_dropped_packets_total{workspace="a"} 3' in metrics
    assert 'carrel_network_addresses{network="lab",state="used"} 2' in metrics


def test_a_dry_run_takes_no_address(service, host):
    network(service, "lab", ipv4="10.215.9.0/24")
    for _ in range(3):
        got = service.post("/v1/workspaces?dry-run=1", {"spec": {"image": "busybox", "networks": [{"network": "lab"}]}})
        assert got.status == 200, got.body
    assert service.get("/v1/networks/lab").json["used"] == 0
    assert address(service.deploy("w", networks=[{"network": "lab"}])) == "10.215.9.2"


def rows(service):
    with sqlite3.connect(f"file:{service.database}?mode=ro", uri=True) as db:
        return {r[0]: r[1:] for r in db.execute("SELECT workspace, ipv4, ipv6, mac, number FROM attachments WHERE released=0")}


def consistent(service):
    """Each live workspace has its addresses, nothing else has, and nobody has another's."""
    has = rows(service)
    shown = {w["id"]: w["interfaces"] for w in service.get("/v1/workspaces?limit=1000").json["items"]}
    assert {i for i, interfaces in shown.items() if interfaces} == set(has)
    for i, (ipv4, ipv6, mac, number) in has.items():
        one = shown[i][0]
        assert (one["ipv4"], one["ipv6"], one["mac"], one["number"]) == (ipv4, ipv6, mac, number)
    for column in range(4):
        values = [row[column] for row in has.values()]
        assert len(set(values)) == len(values)
    return shown


def test_kill_during_parallel_creates(service):
    network(service, "lab", ipv4="10.215.10.0/24", ipv6="fd16::/64")
    answered = {}

    def create(number):
        try:
            got = service.post("/v1/workspaces",
                               {"spec": {"image": "busybox", "name": f"w{number}", "networks": [{"network": "lab"}]}})
            if got.status == 201:
                answered[got.json["id"]] = got.json["interfaces"]
        except (OSError, http.client.HTTPException):  # the service is gone in the middle
            pass

    for round_number in range(4):
        threads = [threading.Thread(target=create, args=(round_number * 50 + i,)) for i in range(50)]
        for thread in threads:
            thread.start()
        service.wait_for(lambda enough=len(answered) + 5 + round_number * 5: len(answered) >= enough or
                         not any(t.is_alive() for t in threads))
        service.stop(signal.SIGKILL)
        for thread in threads:
            thread.join()
        service.start()
        shown = consistent(service)
        for workspace, interfaces in answered.items():
            assert shown[workspace] == interfaces, "what was answered is kept: addresses, MAC, number"


@pytest.mark.parametrize("point", ["db:batch", "db:before-commit"])
def test_a_change_that_is_not_stored_changes_nothing(tmp_path, point):
    plan = tmp_path / "faults"
    plan.write_text("")
    service = Service(config=CONFIG, env={"CARREL_FAULTS": str(plan)})
    host = PretendHost(service.socket)
    network(service, "lab", ipv4="10.215.11.0/24")
    lab = [{"network": "lab"}]

    def failing(method, target, body):
        plan.write_text(f"{point} ENOSPC\n")
        got = service.ask(method, target, body)
        plan.write_text("")
        if got.status == 507 and "disk" in got.error["message"]:
            return True
        # Another batch met the fault: one of the host's, whose connection is closed by that. It comes again, as a host does.
        host.disconnect()
        host.connect()
        return False
    try:
        service.wait(service.deploy("one", networks=lab)["operation"])
        remove(service, "one")
        if failing("POST", "/v1/workspaces",
                   {"spec": {"image": "busybox", "name": "one", "networks": lab, "groups": ["fresh"]}}):
            assert service.get("/v1/networks/lab").json["used"] == 0 and service.get("/v1/networks/lab").json["resting"] == 1
        if failing("POST", "/v1/networks", {"name": "never"}):
            assert service.get("/v1/networks/never").status == 404
        two = service.deploy("two", networks=lab)
        assert address(two) == "10.215.11.3", "the first still rests"
        service.wait(two["operation"])
        if failing("PATCH", "/v1/workspaces/two", {"networks": []}):
            assert service.get("/v1/workspaces/two").json["interfaces"] == two["interfaces"]
            assert service.get("/v1/networks/lab").json["used"] == 1
        plan.write_text("")
        consistent(service)
    finally:
        host.disconnect()
        service.remove()


@pytest.mark.parametrize("point", ["service:before-commit", "db:batch", "db:before-commit", "db:after-commit",
                                   "service:committed", "service:assigned"])
def test_killed_at_each_step(tmp_path, point):
    """Deploy, connect, disconnect and take back: whatever dies where, rows, memory and answers agree after the next start."""
    plan = tmp_path / "faults"
    plan.write_text("")
    service = Service(config=CONFIG, env={"CARREL_FAULTS": str(plan)})
    try:
        network(service, "a", ipv4="10.215.12.0/24")
        network(service, "b", ipv4="10.215.13.0/24")
        spec = {"image": "busybox", "name": "w", "networks": [{"network": "a"}]}
        steps = [("POST", "/v1/workspaces", {"spec": spec}),
                 ("PATCH", "/v1/workspaces/w", {"networks": [{"network": "a"}, {"network": "b"}]}),
                 ("PATCH", "/v1/workspaces/w", {"networks": [{"network": "b"}]}),
                 ("PATCH", "/v1/workspaces/w", {"networks": [{"network": "b"}, {"network": "a"}], "groups": ["team"]})]
        for method, target, body in steps:
            plan.write_text(f"{point} kill\n")
            with pytest.raises((OSError, http.client.HTTPException)):
                service.ask(method, target, body)
            service.process.wait(60)
            plan.write_text("")
            service.start()
            consistent_addresses(service)
            if service.get("/v1/workspaces/w").status == 200 or method == "PATCH":
                patch(service, "w", **(body if method == "PATCH" else {"networks": spec["networks"]}))
            else:
                service.deploy(**spec)
            consistent_addresses(service)
        shown = service.get("/v1/workspaces/w").json["interfaces"]
        assert {i["network"]: i["ipv4"] for i in shown} == {"a": "10.215.12.2/24", "b": "10.215.13.2/24"}
    finally:
        service.remove()


def consistent_addresses(service):
    with sqlite3.connect(f"file:{service.database}?mode=ro", uri=True) as db:
        has = set(db.execute("SELECT workspace, number, ipv4, ipv6, mac FROM attachments WHERE released=0"))
    shown = {(w["id"], i["number"], i["ipv4"], i["ipv6"], i["mac"]) for w in service.get("/v1/workspaces").json["items"]
             for i in w["interfaces"]}
    assert has == shown


def test_4096_networks(service):
    for i in range(4096):
        got = service.post("/v1/networks", {"name": f"n{i}"})
        assert got.status == 201, got.body
    got = service.post("/v1/networks", {"name": "more"})
    refused(got, 507, "no-capacity", "4096")
    pools, after = [], ""
    while after is not None:
        page = service.get(f"/v1/networks?limit=1000{after}").json
        pools += [ipaddress.ip_network(n["ipv4"]) for n in page["items"]]
        after = f"&after={page['next']}" if "next" in page else None
    pools.sort()
    assert len(pools) == 4096 and not any(a.overlaps(b) for a, b in zip(pools, pools[1:]))
    assert address(service.deploy("w", networks=[{"network": "n4095"}]))
    service.stop(signal.SIGKILL)
    service.start()
    assert service.get("/v1/networks/n4095").json["used"] == 1
