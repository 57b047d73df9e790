# SPDX-License-Identifier: Apache-2.0
"""Several instances on one machine, and instances whose daemons come and go."""
import conftest


def connected(site):
    site.wait(lambda: any(h["connected"] for h in site.api("GET", "/v1/hosts")[1]["items"]), what="the connection of the agent")


def test_two_instances_know_nothing_of_each_other(new_site, busybox_tar):
    one, two = new_site(), new_site()
    for site in (one, two):
        conftest.import_image(site, "busybox", busybox_tar)
        site.carrel("deploy", "busybox", "--name", "same", "--", "sleep", "1000")
    assert [w["name"] for w in one.json("ls")] == ["same"]
    one.carrel("rm", "-f", "same")
    assert two.workspace("same")["state"] == "running"
    assert one.json("ls") == []
    assert two.carrel("exec", "same", "--", "echo", "here").stdout == "here\n"


def test_workspaces_outlive_both_daemons(site, busybox):
    site.carrel("deploy", busybox, "--name", "long", "--", "sleep", "1000")
    pid = site.workspace("long")["pid"]
    assert site.node.stop() == 0
    assert site.service.stop() == 0
    assert conftest.pathlib.Path(f"/proc/{pid}").exists()
    site.service.start()
    site.node.start()
    connected(site)
    assert site.wait_state("long", "running")["pid"] == pid
    assert site.carrel("exec", "long", "--", "echo", "still").stdout == "still\n"


def test_workspaces_survive_kill_of_both_daemons(site, busybox):
    site.carrel("deploy", busybox, "--name", "long", "--", "sleep", "1000")
    pid = site.workspace("long")["pid"]
    site.node.kill()
    site.service.kill()
    site.service.start()
    site.node.start()
    connected(site)
    assert site.wait_state("long", "running")["pid"] == pid
    assert site.carrel("exec", "long", "--", "echo", "still").stdout == "still\n"


def test_wish_waits_for_an_agent_that_is_away(site, busybox):
    site.node.stop()
    site.carrel("deploy", "-d", busybox, "--name", "patient", "--", "sleep", "1000")
    assert site.workspace("patient")["state"] != "running"
    why = site.carrel("why", "patient").stdout
    assert "host" in why or "agent" in why
    site.node.start()
    site.wait_state("patient", "running")


def test_clean_takes_everything_of_one_instance_only(new_site, busybox_tar):
    one, two = new_site(), new_site()
    for site in (one, two):
        conftest.import_image(site, "busybox", busybox_tar)
        site.carrel("deploy", "busybox", "--name", "here", "--", "sleep", "1000")
    one.node.stop()
    done = conftest.subprocess.run([one.program("carrel-node"), *one.node.arguments[1:], "--clean"], env=one.environment,
                                   stdin=conftest.subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done
    one.service.stop()
    assert one.leftovers() == []
    assert two.carrel("exec", "here", "--", "echo", "mine").stdout == "mine\n"
