# SPDX-License-Identifier: Apache-2.0
"""
Networks with the software that people run on them: PostgreSQL and psql, a web server at a published port, and OpenVPN between two
workspaces. One Debian image; `server` and `client` are full systems, as a VPN needs a network of its own to change.
"""
import difflib
import json
import re
import subprocess
import time

import pytest

import conftest
from network_tools import World


@pytest.fixture(scope="module")
def world():
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def site(world, prefix):
    one = conftest.Site(prefix, world=world)
    try:
        conftest.import_image(one, "services", conftest.build_debian(conftest.SERVICES))
        status, answer, _ = one.api("POST", "/v1/networks", {"name": "default", "ipv4": "10.88.0.0/24", "ipv6": "fd00:88::/64"})
        assert status == 201, answer
        deploy(one, "server", **{"from": ["workspace:client tcp/5432", "workspace:client udp/1194", "wan tcp/80",
                                          "site tcp/80"], "publish": ["8080:80"]})
        deploy(one, "client", allow=["none"])
        deploy(one, "stranger", allow=["workspace:server"], command=["sleep", "infinity"])
        for name in ("server", "client"):
            one.wait(lambda name=name: inside(one, name, "systemctl is-system-running --wait 2>/dev/null",
                                              ok=None).strip() in ("running", "degraded"),
                     what=f"the boot of {name}")
        yield one
    finally:
        problems = one.close()
    assert not problems, "\n".join(problems)


def deploy(site, name, **spec):
    body = {"spec": {"name": name, "image": "services", "resources": {"memory": "1GiB"}, "stop-timeout": "5s", **spec}}
    status, answer, _ = site.api("POST", "/v1/workspaces", body)
    assert status == 201, answer
    site.wait_state(name, "running")


def inside(site, name, command, **how):
    return site.carrel("exec", name, "--", "sh", "-c", command, **how).stdout


def ipv4(site, name):
    return site.workspace(name)["interfaces"][0]["ipv4"].split("/")[0]


# --- PostgreSQL ---


@pytest.fixture(scope="module")
def database(site):
    """How a client asks it."""
    inside(site, "server", "cd /etc/postgresql/15/main && echo \"listen_addresses = '*'\" >> postgresql.conf && "
                           "echo 'host all all 10.88.0.0/24 scram-sha-256' >> pg_hba.conf && systemctl restart "
                           "postgresql@15-main && "
                           "su postgres -c \"psql -qc \\\"create user reader password 'words'\\\" -c 'create database books "
                           "owner reader'\"")
    return f"PGPASSWORD=words PGCONNECT_TIMEOUT=3 psql -h {ipv4(site, 'server')} -U reader -At books"


def test_psql_only_where_both_sides_say_so(site, database):
    one = f"{database} -c 'select 6 * 7'"
    assert inside(site, "client", one, ok=None) == ""  # it may go nowhere
    site.carrel("allow", "client", "workspace:server tcp/5432")
    assert inside(site, "client", one) == "42\n"
    assert inside(site, "client", f"{database} -c \"select length(repeat('carrel', 1000000))\"") == "6000000\n"
    assert inside(site, "client", f"curl -s -m 2 http://{ipv4(site, 'server')}/", ok=None) == ""  # another port
    assert inside(site, "stranger", one, ok=None) == ""  # the server does not want it


def test_an_open_session_outlives_changes_that_still_allow_it(site, database):
    site.carrel("allow", "client", "workspace:server tcp/5432")
    session = site.popen("exec", "-i", "client", "--", "sh", "-c", database, text=True)

    def ask(question):
        session.stdin.write(question + ";\n")
        session.stdin.flush()
        return session.stdout.readline().strip()
    backend = ask("select pg_backend_pid()")
    assert backend.isdigit()
    site.carrel("allow", "client", "wan tcp/443")
    site.carrel("group", "add", "readers", "client")
    site.carrel("allow", "--from", "server", "group:readers tcp/5432")
    site.carrel("deny", "--from", "server", "workspace:client tcp/5432")  # takes the rule away; the group still lets it in
    assert ask("select pg_backend_pid()") == backend
    site.carrel("deny", "server", "workspace:client")
    site.wait(lambda: inside(site, "client", f"{database} -c 'select 1'", ok=None) == "", what="the end of what is denied")
    session.kill()


# --- a web server ---


def test_a_web_server_is_published(site, world):
    word = "<p>read me</p>"
    inside(site, "server", f"echo '{word}' > /var/www/html/index.html && systemctl is-active nginx")
    for place, to in (("wan", world.HOST), ("wan", f"[{world.HOST6}]"), ("lan", "192.168.77.1")):
        assert word in world.run(place, "curl", "-sS", "-m", "20", f"http://{to}:8080/").stdout, (place, to)
    inside(site, "server", "head -c 20000000 /dev/urandom > /var/www/html/large && sha256sum < /var/www/html/large > "
                           "/var/www/html/sum")
    fetched = world.run("wan", "sh", "-c", f"curl -sS -m 60 http://{world.HOST}:8080/large | sha256sum; "
                                           f"curl -sS http://{world.HOST}:8080/sum").stdout
    assert len(set(fetched.splitlines())) == 1, fetched
    # the log of the server names who asked
    assert world.WAN in inside(site, "server", "cat /var/log/nginx/access.log")
    assert world.run("wan", "curl", "-s", "-m", "3", f"http://{world.HOST}:5432/", ok=None).stdout == ""


# --- a VPN ---

KEYS = ("cd /etc/openvpn && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert "
        "-days 3 -subj /CN=$(hostname) "
        "2>/dev/null && openssl x509 -in cert -noout -fingerprint -sha256 | cut -d= -f2")
COMMON = ("dev tun0\ndev-type tun\nproto udp4\nport 1194\ncert /etc/openvpn/cert\nkey /etc/openvpn/key\n<peer-fingerprint>\n"
          "{peer}\n</peer-fingerprint>\n"
          "cipher AES-256-GCM\nping 2\n")
SERVER = COMMON + "tls-server\ndh none\nifconfig 10.99.0.1 10.99.0.2\n"
CLIENT = COMMON + "tls-client\nnobind\nremote {server}\nifconfig 10.99.0.2 10.99.0.1\nredirect-gateway def1\n"


def view(run):
    """All that a VPN could have changed in a network namespace, without what moves by itself."""
    links = [{key: link[key] for key in ("ifname", "flags", "mtu", "operstate", "address") if key in link}
             for link in json.loads(run("ip", "-j", "link"))]
    asked = (("ip", "route", "show", "table", "all"), ("ip", "-6", "route", "show", "table", "all"), ("ip", "rule"),
             ("ip", "-6", "rule"), ("ip", "address"))
    return [links, *(sorted(re.sub(r" expires \d+sec", "", run(*words)).splitlines()) for words in asked)]


def outside(site, world):
    seen = {place: view(lambda *words, place=place: world.run(place, *words).stdout) for place in ("host", "wan", "lan")}
    counted = r"elements = \{[^}]* (counter|ct count)[^}]*\}"  # what passed, was dropped, and is open
    seen["rules"] = re.sub(counted, "", world.run("host", "nft", "-s", "list", "ruleset").stdout).replace("\t", "").splitlines()
    seen["rules"] = sorted(filter(None, seen["rules"]))
    seen["stranger"] = view(lambda *words: site.carrel("exec", "stranger", "--", *words).stdout)
    seen["machine"] = [line for line in subprocess.run(["ip", "-o", "link"], stdout=subprocess.PIPE, text=True,
                                                       check=True).stdout.splitlines()
                       if "tun0" in line]
    return seen


def settled(site, world):
    """Changes of rules are answered before the last of them is done: two looks, a second apart, that see the same."""
    def look():
        first = outside(site, world)
        time.sleep(1)
        return first == outside(site, world) and first
    return site.wait(look, what="rules that do not change any more")


def same(now, before):
    for key, value in now.items():
        assert value == before[key], (key, list(difflib.unified_diff([str(x) for x in before[key]], [str(x) for x in value],
                                                                     n=0)))


def write(site, name, path, text):
    site.carrel("exec", "-i", name, "--", "sh", "-c", f"cat > {path}", input=text)


@pytest.fixture
def vpn(site, world):
    """OpenVPN with TLS between the two; what was outside before it came up."""
    for name, rules in (("server", {"deny": [], "from": ["workspace:client udp/1194"], "allow": ["wan"]}),
                        ("client", {"deny": [], "from": [], "allow": ["workspace:server udp/1194"]})):
        status, answer, _ = site.api("PATCH", f"/v1/workspaces/{name}", rules)
        assert status in (200, 202), answer
    prints = {name: inside(site, name, KEYS).strip() for name in ("server", "client")}
    write(site, "server", "/etc/openvpn/carrel.conf", SERVER.format(peer=prints["client"]))
    write(site, "client", "/etc/openvpn/carrel.conf", CLIENT.format(peer=prints["server"], server=ipv4(site, "server")))
    before = settled(site, world)
    for name in ("server", "client"):
        inside(site, name, "systemctl start openvpn@carrel")
    site.wait(lambda: inside(site, "client", "ping -c 1 -W 1 10.99.0.1 >/dev/null && echo yes", ok=None) == "yes\n",
              what="the tunnel")
    yield before
    for name in ("client", "server"):
        inside(site, name, "systemctl stop openvpn@carrel")


def test_a_vpn_inside_changes_nothing_outside(site, world, vpn):
    assert "10.99.0.2" in inside(site, "client", "ip -4 -o address show dev tun0")
    assert "0.0.0.0/1" in inside(site, "client", "ip route show dev tun0")
    same(outside(site, world), vpn)
    assert "read me" in inside(site, "client",
                               "curl -sS -m 20 http://10.99.0.1/ | tee /tmp/page; grep -q p /tmp/page || echo read me")


def test_a_vpn_leads_where_its_server_may_go(site, world, vpn):
    """The client may talk to the server alone; its way to the WAN is the tunnel, and what leaves has the server's address."""
    world.serve("wan", 8071)
    fetch = f"timeout 5 bash -c 'exec 3<>/dev/tcp/{world.WAN}/8071; head -n1 <&3'"
    assert inside(site, "client", fetch, ok=None) == ""  # the server does not forward yet
    inside(site, "server", "echo 1 > /proc/sys/net/ipv4/ip_forward && nft add table ip vpn && "
                           "nft 'add chain ip vpn out { type nat hook postrouting priority srcnat; }' && nft add rule ip vpn "
                           "out ip saddr 10.99.0.0/24 masquerade")
    site.wait(lambda: inside(site, "client", fetch, ok=None) == world.HOST + "\n", what="the WAN by way of the tunnel")
    same(outside(site, world), vpn)
    # without masquerading, packets with the tunnel's addresses end where they enter
    inside(site, "server", "nft delete table ip vpn")
    assert inside(site, "client", fetch, ok=None) == ""
    inside(site, "server", "echo 0 > /proc/sys/net/ipv4/ip_forward")


def test_a_vpn_comes_back_with_its_workspace(site, world, vpn):
    site.carrel("stop", "client", timeout=120)
    assert "tun0" not in str(outside(site, world))
    site.carrel("start", "client")
    site.wait(lambda: inside(site, "client", "ping -c 1 -W 1 10.99.0.1 >/dev/null && echo yes", ok=None) == "yes\n",
              what="the tunnel after a restart")


def test_the_device_is_no_way_to_the_host(site, world):
    """It opens, as root and as anybody; what is made with it is made in the workspace's network, by its root only."""
    assert inside(site, "client", "stat -c '%a %t %T' /dev/net/tun").split() == ["666", "a", "c8"]
    inside(site, "client", "ip tuntap add dev tap7 mode tap && ip link delete dev tap7")
    refused = site.carrel("exec", "client", "--", "su", "nobody", "-s", "/bin/sh", "-c",
                          "/sbin/ip tuntap add dev tap8 mode tap", ok=None)
    assert refused.returncode != 0 and "not permitted" in refused.stderr + refused.stdout
    assert inside(site, "client", "touch /dev/net/x 2>&1; rm -f /dev/net/tun 2>&1; ls /dev/net").splitlines()[-1] == "tun"
    assert inside(site, "client", "echo 1 > /proc/sys/kernel/sysrq; echo 1 > /proc/sys/vm/drop_caches", ok=None) == ""
    assert "No such" in site.carrel("exec", "stranger", "--", "ls", "/dev/net/tun", ok=None).stderr
