# SPDX-License-Identifier: Apache-2.0
"""
A whole site inside a machine: the kernel of Debian 12 and nothing but cgroup v2, which this host may not have; and engines that nest.

The machine's image is busybox, our installed tree, and the programs that it calls, each with the libraries that ldd names.
"""
import json

import pytest

from conftest import give_kernel
from nested_tools import add_modules, add_programs, passed, script

PROGRAMS = ("mkfs.ext4", "mke2fs", "e2fsck", "resize2fs", "tune2fs", "debugfs", "nft", "dnsmasq", "ip", "bridge")
INIT = r"""#!/bin/sh
exec >/dev/console 2>&1
export PATH=/carrel/bin:/carrel/sbin:/bin:/usr/sbin:/sbin:/usr/bin CARREL_PREFIX=/carrel
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up
modprobe loop
echo nobody:x:65534:65534::/:/bin/false >>/etc/passwd
echo nogroup:x:65534: >>/etc/group
/bin/sh -e /try.sh && echo all done || echo it failed
poweroff -f
"""
BEGIN = r"""
carreld --state /state --run /run --log-level warn &
carrel-node --state /state --run /run --service unix:/run/carreld.sock --log-level warn &
export CARREL_ADDRESS=unix:/run/carreld.sock NO_COLOR=1
i=0; until carrel doctor | grep -q connected; do i=$((i+1)); [ $i -lt 1200 ]; sleep 0.1; done
carrel --quiet image import busybox /busybox.tar >/dev/null
"""
CASES = {
    "the host is what it should be":
    "test -f /sys/fs/cgroup/cgroup.controllers && carrel doctor | grep -q 'cgroups *version 2'",
    "a program runs in namespaces":
    "test \"$(carrel run --rm --network none busybox -- sh -c 'echo $$; hostname' | wc -l)\" = 2",
    "a workspace with limits runs":
    "carrel deploy --name one --network none --memory 64M --cpu 0.5 --disk 64M busybox -- sleep 1000",
    "limits are in the v2 tree":
    "cd /sys/fs/cgroup/carrel/*/ && grep -q '^50000 100000' cpu.max && grep -q 67108864 memory.max",
    "too much memory is refused by the kernel":
    "carrel run --rm --network none --memory 32M busybox -- sh -c 'tail /dev/zero; echo $? >&2; exit 9'; test $? != 0",
    "pause stops the clock of a program":
    "carrel pause one && grep -q 'frozen 1' /sys/fs/cgroup/carrel/*/cgroup.events && carrel resume one",
    "a disk grows while it is used":
    "carrel set one --disk 128M && carrel exec one -- df -m / | awk 'END { exit !($2 > 100) }'",
    "a snapshot brings data back": "carrel exec one -- sh -c 'echo old > /file; sync' && carrel stop one && carrel snapshot "
                                   "create one s && carrel start one && "
                                   "carrel exec one -- sh -c 'echo new > /file; sync' && carrel stop one && carrel snapshot "
                                   "restore one s && carrel start one && "
                                   "test \"$(carrel exec one -- cat /file)\" = old",
    "networks carry what is allowed":
    "carrel network create default --ipv4 10.9.0.0/24 && carrel deploy --name server busybox -- nc -ll -p 80 -e echo served && "
                                      "carrel deploy --name client busybox -- sleep 1000 && carrel allow client "
                                      "workspace:server && "
                                      "carrel network test client server tcp/80",
    "packets agree":
        "i=0; until test \"$(carrel exec client -- sh -c 'nc -w 2 server.default.carrel 80 </dev/null')\" = served; do "
        "i=$((i+1)); test $i -lt 600; sleep 0.5; done",
    "what is allowed takes the short way":
        "carrel doctor | grep -q 'short-way *packets of allowed' && carrel deploy --name sink busybox -- nc -ll -p 81 -e cat "
        "&& carrel allow client workspace:sink && "
        "port=$(carrel show sink --format json | sed -n 's/.*\"port\": *\"\\([^\"]*\\)\".*/\\1/p' | head -n 1) && "
        "carrel exec client -- sh -c '{ for i in 1 2 3; do dd if=/dev/zero bs=64k count=100; sleep 1; done; dd if=/dev/zero "
        "bs=64k count=1000; } 2>/dev/null | "
        "nc -w 30 sink.default.carrel 81 | head -c 80000000 | wc -c | grep -q 80000000' && test $(cat "
        "/sys/class/net/$port/statistics/tx_bytes) -lt 40000000",
    "and not what is denied": "! carrel exec server -- sh -c 'nc -w 2 client.default.carrel 80 </dev/null'",
    "a bridge of the site is joined":
    "ip=$(ls /usr/sbin/ip /usr/bin/ip 2>/dev/null | head -n 1) && $ip netns add desk && $ip link add site0 type bridge "
    "forward_delay 0 && $ip link set site0 up && "
                                      "$ip link add desk0 type veth peer name eth0 netns desk && $ip link set desk0 master "
                                      "site0 up && "
                                      "$ip -n desk address add 192.168.80.9/24 dev eth0 && $ip -n desk link set eth0 up && "
                                      "{ $ip netns exec desk nc -ll -p 99 -e echo desk & } && carrel network create office "
                                      "--kind bridge --bridge site0 "
                                      "--ipv4 192.168.80.0/24 --reserve 192.168.80.9 && carrel deploy --name clerk --network "
                                      "office "
                                      "busybox -- nc -ll -p 80 -e echo clerk",
    "there the kernel follows connections":
    "nft list ruleset | grep -q 'ct state established,related meta mark set' && ! nft list ruleset | grep -q left_tcp4",
    "the site is not reached": "! carrel exec clerk -- sh -c 'nc -w 2 192.168.80.9 99 </dev/null | grep desk'",
    "until it is allowed": "carrel allow clerk 'site tcp/99' && i=0 && until carrel exec clerk -- sh -c 'nc -w 2 192.168.80.9 "
                           "99 </dev/null' | grep desk; do "
                           "i=$((i+1)); test $i -lt 600; sleep 0.2; done",
    "the site does not get in": "! $ip netns exec desk sh -c 'nc -w 2 192.168.80.2 80 </dev/null | grep clerk'",
    "until that is allowed": "carrel allow --from clerk '192.168.80.9 tcp/80' && i=0 && until $ip netns exec desk sh -c 'nc "
                             "-w 2 192.168.80.2 80 </dev/null' | "
                             "grep clerk; do i=$((i+1)); test $i -lt 600; sleep 0.2; done",
    "a VLAN of the site is joined":
    "$ip link set site0 type bridge vlan_filtering 1 && bridge vlan add vid 7 dev desk0 && modprobe 8021q && "
                                    "$ip -n desk link add link eth0 name eth0.7 type vlan id 7 && $ip -n desk address add "
                                    "192.168.91.9/24 dev eth0.7 && "
                                    "$ip -n desk link set eth0.7 up && carrel network create tagged --kind bridge --bridge "
                                    "site0 --vlan 7 "
                                    "--ipv4 192.168.91.0/24 --reserve 192.168.91.9 && carrel deploy --name seven --network "
                                    "tagged --allow site "
                                    "busybox -- sleep 1000 && i=0 && until carrel exec seven -- sh -c 'nc -w 2 192.168.91.9 "
                                    "99 </dev/null' | grep desk; do "
                                    "i=$((i+1)); test $i -lt 600; sleep 0.2; done",
    "a VLAN keeps others out": "! carrel exec seven -- sh -c 'nc -w 2 192.168.80.9 99 </dev/null | grep desk'",
    "doctor knows of VLAN devices": "carrel doctor | grep -q 'VLAN devices on any interface'",
    "without filtering a VLAN has a device of its own":
        "carrel rm -f seven && $ip link set site0 type bridge vlan_filtering 0 && "
        "carrel deploy --name eight --network tagged --allow site busybox -- nc -ll -p 80 -e echo eight && "
        "i=0 && until carrel exec eight -- sh -c 'nc -w 2 192.168.91.9 99 </dev/null' | grep desk; do i=$((i+1)); test $i -lt "
        "600; sleep 0.2; done && "
        "ls /sys/class/net | grep crv && ! ls /sys/class/net/site0/brif | grep crv && "
        "! $ip address show dev $(ls /sys/class/net | grep crw) | grep inet",
    "there, too, others are kept out": "! carrel exec eight -- sh -c 'nc -w 2 192.168.80.9 99 </dev/null | grep desk'",
    "and the site does not get in": "! $ip netns exec desk sh -c 'nc -w 2 192.168.91.2 80 </dev/null | grep eight'",
    "until somebody allows it": "a=$(carrel show eight --format json | tr ',{' '\\n\\n' | sed -n 's/.*\"ipv4\": "
                                "*\"\\(192[^/]*\\).*/\\1/p' | head -n 1) && "
                                "carrel allow --from eight '192.168.91.9 tcp/80' && i=0 && until $ip netns exec desk sh -c "
                                "\"nc -w 2 $a 80 </dev/null\" | "
                                "grep eight; do i=$((i+1)); test $i -lt 600; sleep 0.2; done",
    "a VLAN that somebody deleted comes back":
        "for d in $(ls /sys/class/net | grep -E '^cr[vw]'); do $ip link del $d; i=0; until carrel exec eight -- sh -c 'nc -w "
        "2 192.168.91.9 99 </dev/null' | "
        "grep desk; do i=$((i+1)); test $i -lt 600; sleep 0.2; done; done",
    "an agent that starts anew keeps it":
        "kill $(pidof carrel-node) && while pidof carrel-node; do sleep 0.2; done && { carrel-node --state /state --run /run "
        "--service unix:/run/carreld.sock --log-level warn >/dev/console 2>&1 & } && "
        "i=0; until carrel deploy --name late --network tagged --allow site busybox -- sleep 1000; do i=$((i+1)); test $i -lt "
        "600; sleep 1; done && "
        "i=0; for w in late eight; do until carrel exec $w -- sh -c 'nc -w 2 192.168.91.9 99 </dev/null' | grep desk; do "
        "i=$((i+1)); test $i -lt 600; "
        "sleep 0.2; done; done && test $(ls /sys/class/net | grep -c '^crv') = 1",
    "a VLAN is joined on what is no bridge":
        "$ip link add up0 type veth peer name eth1 netns desk && $ip link set up0 up && $ip -n desk link set eth1 up && "
        "$ip -n desk link add link eth1 name eth1.9 type vlan id 9 && $ip -n desk address add 192.168.93.9/24 dev eth1.9 && "
        "$ip -n desk link set eth1.9 up && carrel network create plain --kind bridge --bridge up0 --vlan 9 --ipv4 "
        "192.168.93.0/24 --reserve 192.168.93.9 && "
        "carrel deploy --name nine --network plain --allow site busybox -- sleep 1000 && i=0 && "
        "until carrel exec nine -- sh -c 'nc -w 2 192.168.93.9 99 </dev/null' | grep desk; do i=$((i+1)); test $i -lt 600; "
        "sleep 0.2; done",
    "a VLAN device of the site is not taken":
        "$ip link add link up0 name up0.11 type vlan id 11 && carrel network create taken --kind bridge --bridge up0 --vlan "
        "11 --ipv4 192.168.94.0/24 && "
        "{ carrel deploy --name ten --network taken busybox -- sleep 9; carrel why ten | grep 'VLAN 11 of up0 is interface "
        "up0.11 of the site already'; }",
    "VLANs that nobody uses leave nothing":
    "carrel rm -f eight late nine ten && carrel network rm tagged plain taken && i=0 && "
                                            "while ls /sys/class/net | grep -E '^cr[vw]'; do i=$((i+1)); test $i -lt 600; "
                                            "sleep 0.2; done && "
                                            "$ip link del up0.11 && $ip link del up0",
    "the site keeps its bridge": "carrel rm -f clerk && i=0 && until test \"$(ls /sys/class/net/site0/brif)\" = desk0; do "
                                 "i=$((i+1)); test $i -lt 600; "
                                 "sleep 0.2; done && $ip link del site0 && $ip netns del desk",
    "everything goes": "carrel rm -f one server client sink && ! ls -d /sys/fs/cgroup/carrel/*/ && test -z \"$(ls "
                       "/sys/class/net | grep '^cr[0-9]')\"",
}


@pytest.fixture(scope="module")
def machine_image(kernel, prefix, busybox_tar, tmp_path_factory):
    files = {"/busybox.tar": busybox_tar.read_bytes(), "/sbin/init": (0o755, INIT.encode()), "/run/.keep": b"",
             "/state/.keep": b"", "/sys/.keep": b"", "/tmp/.keep": b""}
    add_programs(files, prefix, PROGRAMS)
    add_modules(files, kernel, tmp_path_factory.mktemp("modules"))
    return files


@pytest.fixture
def here(kernel, shared_site):
    give_kernel(shared_site, kernel)
    return shared_site


def test_debians_kernel_and_cgroup_v2_alone(here, machine_image, make_image):
    make_image(here, "host", {**machine_image, "/try.sh": (BEGIN + script(CASES)).encode()})
    spec = {"name": "host", "image": "host", "engine": "emulator", "mode": "system", "network": "none",
            "resources": {"memory": "1G", "cpu": 2, "disk": "2G"}}
    here.carrel("deploy", "-", input=json.dumps(spec))
    try:
        here.wait_state("host", "stopped", timeout=1800)
    finally:
        log = here.carrel("logs", "host").stdout
        print(log[-8000:], here.carrel("why", "host").stdout)
    assert "not ok" not in log and passed(log) == list(CASES)
