# SPDX-License-Identifier: Apache-2.0
"""
Full systems: a real Debian with systemd, sshd, cron and PostgreSQL; sysvinit; runit. Each boots as the image's own init, runs its
services, and shuts down cleanly.
"""
import uuid

import pytest

import conftest


def inside(site, name, command, **how):
    return site.carrel("exec", name, "--", "sh", "-c", command, **how).stdout


def booted(site, name):
    """Waits for the end of the boot and says how it ended."""
    site.carrel("wait", name, timeout=300)
    return inside(site, name, "systemctl is-system-running", ok=None).strip()


@pytest.fixture(scope="module")
def services_image(shared_site):
    return conftest.import_image(shared_site, "services", conftest.build_debian(conftest.SERVICES))


@pytest.fixture(scope="module")
def system(shared_site, services_image):
    """One booted Debian for the tests that use its services."""
    shared_site.carrel("deploy", services_image, "--name", "system", "--memory", "1GiB", timeout=120)
    state = booted(shared_site, "system")
    # looked for by the last of them
    inside(shared_site, "system", "echo '* * * * * root touch /root/cron-was-here' > /etc/cron.d/mark")
    yield shared_site, "system", f"{state} {inside(shared_site, 'system', 'systemctl --failed --no-legend')}"
    shared_site.carrel("rm", "-f", "system")


def test_systemd_boots_without_failed_units(system):
    _, _, state = system
    assert state.split()[:1] == ["running"], state


def test_first_process_is_the_image_s_init(system):
    site, name, _ = system
    assert inside(site, name, "cat /proc/1/comm").strip() == "systemd"
    assert inside(site, name, ". /etc/os-release; echo $ID $VERSION_ID").strip() == "debian 12"
    assert inside(site, name, "hostname").strip() == name


def test_sshd_lets_a_key_in(system):
    site, name, _ = system
    word = uuid.uuid4().hex
    inside(site, name, "systemctl start ssh && mkdir -p -m 700 /root/.ssh && rm -f /root/.ssh/k* && ssh-keygen -q -t ed25519 "
                       "-N '' -f /root/.ssh/k "
                       "&& cp /root/.ssh/k.pub /root/.ssh/authorized_keys")
    got = inside(site, name, f"ssh -i /root/.ssh/k -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@127.0.0.1 "
                             f"echo {word}")
    assert got.strip() == word


def test_postgresql_keeps_data_over_a_restart_of_the_workspace(system):
    site, name, _ = system
    inside(site, name, "systemctl start postgresql@15-main && su postgres -c \"psql -qc 'create table books (title text)' -c "
                       "\\\"insert into books values ('carrel')\\\"\"")
    site.carrel("stop", name, "-t", "60s")
    site.carrel("start", name)
    booted(site, name)
    inside(site, name, "systemctl start postgresql@15-main")
    assert inside(site, name, "su postgres -c \"psql -Atc 'select title from books'\"").strip() == "carrel"


def test_clean_shutdown_ends_services_in_order(system):
    site, name, _ = system
    inside(site, name, "printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\nExecStop=/bin/sh -c "
                       "\"echo stopped > /root/stop-mark\"\\n"
                       "[Install]\\nWantedBy=multi-user.target\\n' > /etc/systemd/system/mark.service && systemctl enable "
                       "--now mark 2>/dev/null")
    site.carrel("stop", name, "-t", "60s")
    found = site.workspace(name)
    assert found["state"] == "stopped"
    site.carrel("start", name)
    assert inside(site, name, "cat /root/stop-mark") == "stopped\n"


def test_poweroff_inside_stops_the_workspace(system):
    site, name, _ = system
    booted(site, name)
    inside(site, name, "systemctl poweroff", ok=None)
    site.wait_state(name, "stopped")
    site.carrel("start", name)


def test_console_shows_the_boot(system):
    site, name, _ = system
    text = site.carrel("logs", name).stdout
    assert "Welcome to" in text or "login:" in text or "Reached target" in text, text[-2000:]


def test_cron_ran_a_job(system):
    site, name, _ = system
    site.says(name, "systemctl", "is-active", "cron")  # it has just been started again
    site.says(name, "ls", "/root/cron-was-here", timeout=300)


def test_sysvinit(shared_site):
    tar = conftest.build_debian("sysvinit-core,initscripts,cron,procps,iproute2")
    conftest.import_image(shared_site, "sysv", tar)
    shared_site.carrel("deploy", "sysv", "--name", "sysv")
    assert inside(shared_site, "sysv", "cat /proc/1/comm").strip() == "init"
    shared_site.wait(lambda: "cron" in inside(shared_site, "sysv", "ps -e -o comm"), what="cron under sysvinit")
    shared_site.carrel("stop", "sysv", "-t", "60s")
    assert shared_site.workspace("sysv")["state"] == "stopped"
    shared_site.carrel("rm", "sysv")


def test_runit(shared_site):
    tar = conftest.build_debian("runit-init,procps,busybox-static")
    conftest.import_image(shared_site, "runit", tar)
    shared_site.carrel("deploy", "runit", "--name", "runit")
    inside(shared_site, "runit", "mkdir -p /etc/sv/mark /etc/service && printf '#!/bin/sh\\nexec sleep 1001\\n' > "
                                 "/etc/sv/mark/run && chmod 755 /etc/sv/mark/run"
                                 " && ln -s /etc/sv/mark /etc/service/mark")
    shared_site.wait(lambda: "sleep 1001" in inside(shared_site, "runit", "ps -e -o args"), what="a service under runit")
    assert "runit" in inside(shared_site, "runit", "cat /proc/1/comm")
    shared_site.carrel("stop", "runit", "-t", "60s")
    assert shared_site.workspace("runit")["state"] == "stopped"
    shared_site.carrel("rm", "runit")


def test_run_of_a_command_in_a_system_image_is_a_program(shared_site, services_image):
    done = shared_site.carrel("run", "--rm", services_image, "--", "cat", "/proc/1/comm")
    assert "systemd" not in done.stdout
