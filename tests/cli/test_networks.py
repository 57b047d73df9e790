# SPDX-License-Identifier: Apache-2.0
"""Verbs of networks, rules, ports and groups: what is asked of the service for which words."""
import json

import pytest


def workspace(fake, **spec):
    fake.answer("GET", "/v1/workspaces/web", {"name": "web", "spec": {"image": "i", **spec}})
    fake.answer("PATCH", "/v1/workspaces/web", {"name": "web"})


def patched(fake):
    return [r.json for r in fake.requests if r.method == "PATCH"][-1]


@pytest.mark.parametrize("words, spec, body", [
    (["allow", "web", "workspace:db", "tcp/5432"], {}, {"allow": ["wan", "workspace:db tcp/5432"]}),
    (["allow", "web", "group:a", "group:b", "udp/53"], {"allow": ["none"]}, {"allow": ["group:a", "group:b udp/53"]}),
    (["allow", "web", "wan"], {"deny": ["wan"], "allow": ["group:a"]}, {"allow": ["group:a", "wan"], "deny": []}),
    (["allow", "--from", "web", "any", "tcp/80"], {}, {"from": ["any tcp/80"]}),
    (["deny", "web", "group:a", "tcp/22"], {"allow": ["wan", "group:a  tcp/22"]}, {"allow": ["wan"]}),
    (["deny", "web", "wan"], {"allow": ["wan"]}, {"allow": ["none"]}),
    (["deny", "web", "192.0.2.0/24"], {"allow": ["wan"]}, {"deny": ["192.0.2.0/24"]}),
    (["deny", "--from", "web", "any"], {"from": ["any", "group:a"]}, {"from": ["group:a"]}),
    (["publish", "web", "8080:80"], {"publish": ["53:53/udp"]}, {"publish": ["53:53/udp", "8080:80"]}),
    (["unpublish", "web", "8080"], {"publish": ["8080:80", "8080:80/udp"]}, {"publish": ["8080:80/udp"]}),
    (["connect", "web", "lab", "--ipv4", "10.0.0.9", "--in-most", "10M"], {"networks": [{"network": "x"}]},
     {"network": "auto", "networks": [{"network": "x"}, {"network": "lab", "ipv4": "10.0.0.9", "rates": {"in-most": "10M"}}]}),
    (["connect", "web", "lab", "--out-most", "1M"], {"networks": [{"network": "lab", "mac": "02:00:00:00:00:01"}]},
     {"network": "auto", "networks": [{"network": "lab", "mac": "02:00:00:00:00:01", "rates": {"out-most": "1M"}}]}),
    (["disconnect", "web", "lab"], {"networks": [{"network": "x"}, {"network": "lab"}]}, {"networks": [{"network": "x"}]}),
    (["group", "add", "ops", "web"], {"groups": ["a"]}, {"groups": ["a", "ops"]}),
    (["group", "remove", "ops", "web"], {"groups": ["a", "ops"]}, {"groups": ["a"]}),
])
def test_changes(cli, fake, words, spec, body):
    workspace(fake, **spec)
    cli.text(*words)
    assert patched(fake) == body


def test_listing_and_refusals(cli, fake):
    workspace(fake, allow=["wan", "bad\x1b"], publish=["8080:80"])
    assert cli.text("allow", "web") == "wan\nbad\\x1b\n"
    assert cli.text("deny", "web") == ""
    assert json.loads(cli.text("--format", "json", "publish", "web")) == ["8080:80"]
    assert not [r for r in fake.requests if r.method == "PATCH"]
    assert "wann" in cli.fails(2, "allow", "web", "wann")
    assert "published port" in cli.fails(2, "publish", "web", "80")
    assert "does not publish 81" in cli.fails(4, "unpublish", "web", "81")
    assert "not on network" in cli.fails(4, "disconnect", "web", "lab")
    assert "not in group" in cli.fails(4, "group", "remove", "ops", "web")


def test_networks(cli, fake):
    made = {"name": "lab", "kind": "nat", "ipv4": "10.120.0.0/24", "number": 1}
    fake.answer("POST", "/v1/networks", made, 201)
    fake.answer("GET", "/v1/networks", {"items": [{**made, "used": 2, "free": 251}]})
    fake.answer("DELETE", "/v1/networks/lab", None, 204)
    cli.text("network", "create", "lab", "--kind", "bridge", "--bridge", "br0", "--vlan", "7", "--ipv4", "192.0.2.0/24",
             "--reserve", "192.0.2.2", "--reserve", "192.0.2.4-192.0.2.9", "--dns", "192.0.2.1", "--mtu", "9000")
    assert fake.requests[-1].json == {"name": "lab", "kind": "bridge", "bridge": "br0", "vlan": 7, "ipv4": "192.0.2.0/24",
                                      "mtu": 9000, "reserved": ["192.0.2.2", "192.0.2.4-192.0.2.9"], "dns": ["192.0.2.1"]}
    lines = cli.text("network", "ls").splitlines()
    assert lines[0].split() == ["NAME", "KIND", "IPV4", "IPV6", "USED", "FREE"] and "10.120.0.0/24" in lines[1]
    assert cli.text("network", "rm", "lab") == "lab\n"
    assert "--vlan x" in cli.fails(2, "network", "create", "lab", "--vlan", "x")


def test_network_test(cli, fake):
    fake.answer("POST", "/v1/workspaces/web/judge", {"allowed": False, "rule": "deny\x07 group:a", "side": "db"})
    assert cli.text("network", "test", "web", "db", "tcp/22", ok=1) == "denied: deny\\x07 group:a (db)\n"
    assert fake.requests[-1].json == {"to": "db", "service": "tcp/22"}
    fake.answer("POST", "/v1/workspaces/web/judge", {"allowed": True})
    assert cli.text("network", "test", "web", "db", "icmp") == "allowed\n"


def test_sharing_a_group(cli, fake):
    fake.answer("GET", "/v1/groups/ops", {"name": "ops", "shared": [1, 2]})
    fake.answer("PATCH", "/v1/groups/ops", {"name": "ops"})
    cli.text("group", "share", "ops", "3")
    assert patched(fake) == {"shared": [1, 2, 3]}
    cli.text("group", "share", "ops", "--stop", "1")
    assert patched(fake) == {"shared": [2]}
    assert "user id" in cli.fails(2, "group", "share", "ops", "eve")


def deployed(cli, fake, *words):
    fake.answer("POST", "/v1/workspaces", {"name": "web", "id": "i"}, 201)
    cli.text("deploy", *words)
    return [r.json for r in fake.requests if r.method == "POST"][-1]["spec"]


def test_options_of_a_deployment(cli, fake, tmp_path):
    (tmp_path / "user-data").write_text("#cloud-config\n")
    (tmp_path / "keys").write_text("# mine\nssh-ed25519 AAAA a\n\nssh-rsa BBBB b\n")
    spec = deployed(cli, fake, "debian", "--network", "lab,ipv4=10.0.0.9,mac=02:00:00:00:00:01", "--network", "dmz", "-p",
                    "8080:80", "--allow", "wan",
                    "--allow", "group:a tcp/22", "--deny", "192.0.2.1", "--from", "any", "--group", "ops", "--isolated",
                    "--user-data", tmp_path / "user-data", "--ssh-key", tmp_path / "keys", "--ssh-key", "ssh-ed25519 CCCC c")
    assert spec["networks"] == [{"network": "lab", "ipv4": "10.0.0.9", "mac": "02:00:00:00:00:01"}, {"network": "dmz"}]
    assert spec["publish"] == ["8080:80"] and spec["allow"] == ["wan", "group:a tcp/22"] and spec["deny"] == ["192.0.2.1"]
    assert spec["from"] == ["any"] and spec["groups"] == ["ops"] and spec["isolated"] is True
    assert spec["user-data"] == "#cloud-config\n" and spec["ssh-keys"] == ["ssh-ed25519 AAAA a", "ssh-rsa BBBB b",
                                                                           "ssh-ed25519 CCCC c"]
    assert deployed(cli, fake, "debian", "--network", "none")["network"] == "none"
    assert "do not go with other networks" in cli.fails(2, "deploy", "debian", "--network", "lab", "--network", "none")
    for bad in ("lab,ipv4", "lab,port=1", "lab,ipv4=x", "LAB"):
        cli.fails(2, "deploy", "debian", "--network", bad)
