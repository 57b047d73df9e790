# SPDX-License-Identifier: Apache-2.0
"""Every verb against a service that answers as told: requests, output, exit codes, bad input."""
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import pytest

from conftest import BUILD, CARREL, done, operation

GOLDEN = pathlib.Path(__file__).parent / "golden"


def same_as_golden(name, text):
    """CARREL_GOLDEN=update writes the files anew; the difference is then read before it is committed."""
    path = GOLDEN / name
    if os.environ.get("CARREL_GOLDEN") == "update":
        path.write_text(text)
    assert text == path.read_text()


# --- help ---

def verbs(cli):
    return [page[:-2].replace("carrel-", "") for page in cli.text("__man").split() if page not in ("carrel.1", "carrel-spec.5")]


def test_help_of_all(cli):
    same_as_golden("help.txt", cli.text())
    assert cli.text("--help") == cli.text()


@pytest.mark.parametrize("verb", ["run", "deploy", "cp", "image import"])
def test_help_of_a_verb(cli, verb):
    same_as_golden("help-" + verb.replace(" ", "-") + ".txt", cli.text(*verb.split(), "--help"))


def test_each_verb_has_help_with_an_example_and_a_page_without_complaints(cli, tmp_path):
    pages = []
    for verb in verbs(cli):
        words = next(w for w in (verb.split("-"), [verb]) if cli.text(*w, "--help").startswith("Usage: carrel " + " ".join(w)))
        assert "Examples:" in cli.text(*words, "--help")
        pages.append((verb, cli.text("__man", verb)))
    pages += [("carrel", cli.text("__man", "carrel")), ("spec", cli.text("__man", "spec"))]
    for name, text in pages:
        (tmp_path / name).write_text(text)
        lint = subprocess.run(["mandoc", "-Tlint", "-W", "warning", str(tmp_path / name)], capture_output=True, text=True)
        assert lint.stdout + lint.stderr == ""


def test_the_manual_names_each_key_of_a_spec(cli):
    page = cli.text("__man", "spec").replace("\\-", "-")
    for key in ("remove-on-exit", "stop-timeout", "volumes[].keep", "resources.cpu", "hostname", "until"):
        assert f"\\fB{key}\\fR" in page


def test_every_page_is_built_and_installed(cli):
    listed = set(cli.text("__man").split())
    assert listed == {p.name for p in (BUILD / "src/cli").glob("carrel*.[15]")}


# --- words that are wrong ---

@pytest.mark.parametrize("words, message, hint", [
    (["runn"], "unknown verb 'runn'", "did you mean 'carrel run'?"),
    (["image", "imprt"], "unknown verb 'image imprt'", "did you mean 'carrel image import'?"),
    (["ls", "--stat", "x"], "unknown option '--stat'", "did you mean '--state'?"),
    (["ls", "--state", "runing"], "--state must be one of", "did you mean 'running'?"),
    (["ls", "--state"], "--state needs a value: STATE", "carrel ls --help"),
    (["ls", "-Z"], "unknown option '-Z'", "carrel ls --help"),
    (["show"], "NAME is missing", "carrel show --help"),
    (["show", "a", "b"], "'b' is one word too many", "carrel show --help"),
    (["rm", "--force=yes", "x"], "--force takes no value", "carrel rm --help"),
    (["exec", "web"], "COMMAND is missing", "carrel exec --help"),
    (["--format", "xml", "ls"], "--format must be one of", ""),
    (["qqqqqqqqqqqqqqq"], "unknown verb", "--help"),
    (["\x1b[31mred"], r"\x1b[31mred", ""),
    (["x" * 100000], "unknown verb", ""),
    ([""], "unknown verb ''", ""),
])
def test_wrong_words(cli, words, message, hint):
    said = cli.fails(2, *words)
    assert message in said and hint in said and "\x1b" not in said and len(said) < 4000


def test_no_service(cli):
    said = cli.fails(9, "--address", "unix:/nonexistent/s", "ls")
    assert "does not listen on /nonexistent/s" in said and "hint:" in said
    assert "plain http is for this machine only" in cli.fails(3, "--address", "http://example.org", "ls")


@pytest.mark.parametrize("kind, status, code", [("not-found", 404, 4), ("denied", 403, 3), ("conflict", 409, 5),
                                                ("no-capacity", 507, 6),
                                                ("unsupported", 501, 7), ("corrupt", 422, 8), ("timeout", 504, 9),
                                                ("internal", 500, 1)])
def test_refusals_have_exit_codes(cli, fake, kind, status, code):
    fake.refuse("GET", "/v1/workspaces/x", status, kind, "because \x1b]0;evil\x07", "try that")
    said = cli.fails(code, "show", "x")
    assert "because \\x1b]0;evil\\x07" in said and "hint: try that" in said


@pytest.mark.parametrize("answer", [b"", b"[", b"{}", b'{"items": 7}', b"\xff\xfe", b'{"items":[' + b"[" * 3000 + b"]}",
                                    b"null"])
def test_answers_that_are_no_lists(cli, fake, answer):
    fake.answer("GET", "/v1/workspaces", answer)
    cli.fails(8, "ls")


# --- lists and objects ---

def test_ls(cli, fake, web):
    lines = cli.text("ls").splitlines()
    assert lines[0].split() == ["NAME", "ID", "STATE", "IMAGE", "CREATED", "LABELS"]
    assert re.match(r"web +0123456789ab +running +debian +\d+ days ago +team=blue,x=1$", lines[1])
    assert json.loads(cli.text("ls", "--format", "json")) == [web]
    assert cli.text("-q", "ls") == "web\n"
    assert cli.text("ls", "-q", "--label", "team=red") == ""
    assert cli.text("ls", "-q", "--label", "team", "-l", "x=1", "--state", "running") == "web\n"
    assert cli.text("ls", "-q", "eb") == "web\n" and cli.text("ls", "-q", "xx") == ""


def test_ls_follows_pages(cli, fake):
    pages = {None: {"items": [{"name": "a"}], "next": "c/1"}, "c/1": {"items": [{"name": "b"}], "next": None}}
    fake.answer("GET", "/v1/workspaces", lambda r: (200, pages[r.query.get("after")]))
    assert cli.text("ls", "-q") == "a\nb\n"


def test_names_of_others_do_not_reach_the_terminal_raw(cli, fake):
    fake.answer("GET", "/v1/workspaces", {"items": [{"name": "a\x1b[2J\nb\u202e\x9b", "state": "\r"}], "next": None})
    for words in (["ls"], ["ls", "-q"]):
        text = cli.text(*words)
        assert "\x1b" not in text and "\r" not in text and "\u202e" not in text and "\\x1b[2J\\x0ab" in text


def test_ls_of_many(cli, fake):
    fake.answer("GET", "/v1/workspaces", {"items": [{"name": f"w{i}", "state": "running"} for i in range(20000)], "next": None})
    started = time.monotonic()
    assert len(cli.text("ls").splitlines()) == 20001
    assert time.monotonic() - started < 60  # a table that is quadratic in its rows would take minutes


def test_yaml_is_read_back_the_same(cli, fake):
    yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed")
    value = {"a": "no", "b": "1e3", "c": [], "d": {}, "e": [[1, 2], [{"x": [3], "y": None}]], "f": "multi\nline: x", "g": 1.5,
             "h": "", "k: 1": "- x",
             "l": [{"m": {"n": [True, False]}, "o": "~"}], "p": "ümläut", "q": "0123", "r": "2020-01-02T03:04:05Z", "s": "#x"}
    fake.answer("GET", "/v1/workspaces/x", value)
    assert yaml.safe_load(cli.text("show", "x", "--format", "yaml")) == value
    assert json.loads(cli.text("show", "x", env={"CARREL_FORMAT": "json"})) == value


def test_show_quotes_the_name(cli, fake):
    fake.answer("GET", "/v1/workspaces/../x y", {"name": "odd"})
    assert "odd" in cli.text("show", "../x y")
    cli.fails(2, "show", "x", "--format", "nonsense")


@pytest.mark.parametrize("words, path", [(["why", "web"], "/v1/workspaces/web/why"),
                                         (["image", "show", "a/b:c"], "/v1/images/a/b:c"),
                                         (["operation", "show", "7"], "/v1/operations/7")])
def test_objects(cli, fake, words, path):
    fake.answer("GET", path, {"answer": "here"})
    assert cli.text(*words) == "answer: here\n"


def test_doctor(cli, fake):
    def fact(name, ok, need, hint=""):
        return {"name": name, "ok": ok, "need": need, "detail": "", "hint": hint}
    facts = {"kernel": "6.1", "machine": "x86_64",
             "items": [fact("erofs", True, "required"), fact("kvm", False, "optional", "buy one")]}
    fake.answer("GET", "/v1/doctor", {"version": "9.9", "hosts": [{"name": "a", "connected": True, "facts": facts}]})
    text = cli.text("doctor")
    assert "host a: connected, Linux 6.1" in text and "yes   erofs" in text and "no    kvm    buy one" in text
    assert json.loads(cli.text("doctor", "--format", "json"))["hosts"][0]["facts"] == facts
    facts["items"].append(fact("ext4", False, "required"))
    assert "MISSING  ext4" in cli("doctor", ok=5).stdout.decode()
    fake.answer("GET", "/v1/doctor", {"version": "9.9", "hosts": []})
    assert "carrel-node" in cli.fails(9, "doctor")


@pytest.mark.parametrize("words, path", [(["image", "ls"], "/v1/images"), (["volume", "ls"], "/v1/volumes"),
                                         (["operation", "ls", "-a"], "/v1/operations"),
                                         (["snapshot", "ls", "web"], "/v1/workspaces/web/snapshots")])
def test_lists(cli, fake, words, path):
    fake.answer("GET", path, {"items": [{"name": "n1", "id": "n1", "kind": "k", "state": "done", "size": 5 << 30,
                                         "created": "2020-01-02T03:04:05Z"}],
                              "next": None})
    assert "n1" in cli.text(*words) and "days ago" in cli.text(*words)
    assert json.loads(cli.text(*words, "--format", "json"))[0]["id"] == "n1"


def test_version(cli, fake):
    assert cli.text("--version").startswith("carrel 0.")
    fake.answer("GET", "/v1/version", {"version": "9.9"})
    assert json.loads(cli.text("version", "--format", "json"))["service"] == {"version": "9.9"}


def test_events(cli, fake):
    event = {"seq": 1, "at": "2020-01-02T03:04:05Z", "kind": "state", "subject": "web", "body": {"state": "running\x1b"}}
    pages = {"0": {"items": [event], "next": "1"}, "1": {"items": [{**event, "seq": 2}]}}
    fake.answer("GET", "/v1/events", lambda r: (200, pages[r.query["after"]]))
    line = "2020-01-02T03:04:05Z state seq=%d subject=web state=running\\x1b\n"
    assert cli.text("events") == line % 1 + line % 2

    def feed(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hello\n\nid: 1\ndata: "
                           b"{\"kind\":\"a\"}\n\ndata: {\"ki")
        time.sleep(0.05)
        connection.sendall(b"nd\":\"b\"}\n\n")
        connection.shutdown(2)
    fake.answer("GET", "/v1/events", lambda r: (200, feed))
    assert cli.text("events", "-f", "--format", "json", "--after", "5") == '{"kind":"a"}\n{"kind":"b"}\n'
    assert fake.requests[-1].query == {"follow": "1", "after": "5"}


# --- changes ---

@pytest.mark.parametrize("words, method, path, body", [
    (["start", "web"], "POST", "/v1/workspaces/web/start", None),
    (["stop", "-t", "3s", "web"], "POST", "/v1/workspaces/web/stop", {"timeout": "3s"}),
    (["restart", "web"], "POST", "/v1/workspaces/web/restart", None),
    (["pause", "web"], "POST", "/v1/workspaces/web/pause", None),
    (["suspend", "web"], "POST", "/v1/workspaces/web/suspend", None),
    (["stop", "--discard-memory", "web"], "POST", "/v1/workspaces/web/stop", {"discard-memory": True}),
    (["resume", "web"], "POST", "/v1/workspaces/web/resume", None),
    (["rm", "-f", "web"], "DELETE", "/v1/workspaces/web", None),
    (["rename", "web", "new"], "PATCH", "/v1/workspaces/web", {"name": "new"}),
    (["set", "web", "--disk", "4GiB"], "PATCH", "/v1/workspaces/web", {"resources": {"disk": "4GiB"}}),
    (["set", "web", "-l", "team=red", "-l", "x="], "PATCH", "/v1/workspaces/web", {"labels": {"team": "red"}}),
    (["set", "web", "-v", "data:2GiB"], "PATCH", "/v1/workspaces/web", {"volumes": [{"name": "data", "size": "2GiB"}]}),
    (["snapshot", "create", "web", "s1"], "POST", "/v1/workspaces/web/snapshots", {"name": "s1"}),
    (["snapshot", "restore", "web", "s1"], "POST", "/v1/workspaces/web/snapshots/s1/restore", None),
    (["snapshot", "rm", "web", "s1"], "DELETE", "/v1/workspaces/web/snapshots/s1", None),
    (["image", "rm", "debian"], "DELETE", "/v1/images/debian", None),
    (["volume", "rm", "data"], "DELETE", "/v1/volumes/data", None),
])
def test_changes_wait_for_their_operation(cli, fake, web, words, method, path, body):
    fake.answer(method, path, operation(fake, done(state="running"), done()), status=202)
    cli(*words)
    request = fake.asked(method)[0]
    assert request.path == path and request.json == body
    assert fake.requests[-1].path == "/v1/operations/feedfacefeedface" and len(fake.asked("GET")) >= 2
    operation(fake, done(state="failed", error={"kind": "no-capacity", "message": "disk is full", "hint": "make room"}))
    said = cli.fails(6, *words)
    assert "disk is full" in said and "make room" in said


@pytest.mark.parametrize("words", [["start", "web"], ["snapshot", "create", "web"], ["set", "web", "-l", "a=b"]])
def test_changes_as_json_are_their_operation(cli, fake, web, words):
    fake.answer("POST", "/v1/workspaces/web/start", operation(fake, done(state="running"), done()), status=202)
    fake.answer("POST", "/v1/workspaces/web/snapshots", done(state="running"), status=202)
    fake.answer("PATCH", "/v1/workspaces/web", web)
    shown = json.loads(cli.text("--format", "json", *words))
    assert shown.get("state") == "done" if words[0] != "set" else shown["name"] == "web"
    if words[0] == "start":
        assert json.loads(cli.text("--format", "json", "start", "-d", "web"))["operation"] == "feedfacefeedface"
        assert json.loads(cli.text("--format", "json", "operation", "wait", "feedfacefeedface"))["state"] == "done"


def test_a_name_that_was_made_up_is_printed(cli, fake):
    ended = done(result={"name": "snapshot-1\x1b", "snapshot": "0123456789abcdef"})
    fake.answer("POST", "/v1/workspaces/web/snapshots", operation(fake, done(state="running"), ended), status=202)
    assert cli.text("snapshot", "create", "web") == "snapshot-1\\x1b\n"
    assert cli.text("snapshot", "create", "web", "mine") == ""


def test_detach_prints_the_operation(cli, fake):
    fake.answer("POST", "/v1/workspaces/web/start", done(state="running"))
    assert cli.text("start", "-d", "web") == "feedfacefeedface\n"
    operation(fake, done(state="running"), done())
    cli("operation", "wait", "feedfacefeedface")
    fake.answer("POST", "/v1/operations/feedfacefeedface/cancel", {})
    cli("operation", "cancel", "feedfacefeedface")


def test_one_failure_of_many_does_not_stop_the_others(cli, fake):
    for name in "ac":
        fake.answer("DELETE", f"/v1/workspaces/{name}", {})
    result = cli("rm", "a", "b", "c", ok=4)
    assert result.stdout == b"a\nc\n" and b"no /v1/workspaces/b" in result.stderr


def test_an_interrupt_cancels_the_operation(cli, fake):
    fake.answer("POST", "/v1/workspaces/web/start", operation(fake, done(state="running")))
    fake.answer("POST", "/v1/operations/feedfacefeedface/cancel", {})
    process = subprocess.Popen([CARREL, "start", "web"], env=cli.env, stderr=subprocess.PIPE)
    while not any("operations" in r.path for r in fake.requests):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 10
    assert any(r.path.endswith("/cancel") for r in fake.requests)
    process.stderr.close()


# --- deploy ---

def test_deploy_options(cli, fake):
    fake.answer("POST", "/v1/workspaces",
                lambda r: (201, {"id": "1" * 16, "name": r.json["spec"].get("name", "made-up"), **operation(fake)}))
    text = cli.text("deploy", "debian", "--name", "web", "--cpu", "1.5", "-m", "2GiB", "--disk", "20GiB", "--processes", "99",
                    "-e", "A=1=2", "-e", "FROM_HERE",
                    "--env=UNSET", "-u", "app:app", "--workdir", "/srv", "-v", "d1:1GiB:/a:ro", "-v", "d2:512M:/b,keep", "-l",
                    "team=blue",
                    "--hostname", "h", "--restart", "on-failure", "--until", "paused", "--network", "none", "--engine",
                    "workspace", "--mode", "program",
                    "--stop-timeout", "3s", "--", "sleep", "-1", "--", "x", env={"FROM_HERE": "y"})
    assert text == "web\n"
    assert fake.asked("POST")[0].json == {"spec": {
        "image": "debian", "name": "web", "resources": {"cpu": "1.5", "memory": "2GiB", "disk": "20GiB", "processes": "99"},
        "environment": {"A": "1=2", "FROM_HERE": "y"}, "user": "app:app", "directory": "/srv",
        "volumes": [{"name": "d1", "size": "1GiB", "mount": "/a", "read-only": True},
                    {"name": "d2", "size": "512M", "mount": "/b", "keep": True}],
        "labels": {"team": "blue"}, "hostname": "h", "restart": "on-failure", "until": "paused", "network": "none",
        "engine": "workspace", "mode": "program", "stop-timeout": "3s", "command": ["sleep", "-1", "--", "x"]}}


def test_deploy_of_a_file_and_options_over_it(cli, fake, tmp_path):
    fake.answer("POST", "/v1/workspaces", lambda r: (201, {"id": "1" * 16, "name": "made-up"}))
    spec = tmp_path / "web.yaml"
    spec.write_text("image: debian\nresources:\n  memory: 1GiB\n  cpu: 2\nenvironment: {A: b}\n")
    cli("deploy", "-d", spec, "--memory", "3GiB", "-e", "C=d")
    cli("deploy", "-d", "-", input=b'{"image": "debian"}')
    first, second = [r.json["spec"] for r in fake.asked("POST")]
    assert (first["resources"]["memory"] == "3GiB" and first["resources"]["cpu"] == 2
            and first["environment"] == {"A": "b", "C": "d"})
    assert second == {"image": "debian"}


@pytest.mark.parametrize("text, message, hint", [
    ("image: debian\nmemry: 1\n", "web.yaml:2:", "known keys"),
    ("imag: debian\n", "unknown key 'imag'", "did you mean 'image'?"),
    ("", "empty", ""), ("image: [1]\n", "must be a text", ""), ("image: debian\nresources: {disk: 1}\n", "too small", ""),
    ("image: &a debian\n", "anchors", ""), ("[" * 100, "nested too deeply", ""), ("image: \x00", "web.yaml:1", "")])
def test_specs_that_are_wrong(cli, fake, tmp_path, text, message, hint):
    (tmp_path / "web.yaml").write_text(text)
    said = cli.fails(2, "deploy", tmp_path / "web.yaml")
    assert message in said and hint in said and not fake.requests


@pytest.mark.parametrize("words, message", [
    (["--memory", "lots"], "memory must be a size"), (["--volume", "x:1GiB"], "NAME:SIZE:/PATH"),
    (["--volume", "x:1GiB:relative"], "must begin with '/'"),
    (["-e", "=x"], "KEY=VALUE"), (["--name", "a/b"], "a name may contain only"), (["--name", "x" * 300], "name"),
    (["--label", "x"], "KEY=VALUE"), (["--cpu", "-1"], "cpu must be"), (["--until", "never"], "--until must be one of")])
def test_options_that_are_wrong(cli, fake, words, message):
    said = cli.fails(2, "deploy", "debian", *words)
    assert message in said and not fake.requests and "options:1" not in said


def test_a_spec_of_100_megabytes(cli, tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a" * 100_000_000)
    cli.fails(2, "deploy", tmp_path / "x.yaml")
    cli.fails(4, "deploy", tmp_path / "absent.yaml")


def test_dry_run(cli, fake):
    plan = {"steps": [{"step": "stage", "partitions": ["sha256:ab"]},
                      {"step": "launch", "mounts": [{"on": "/", "type": "overlay"}]}]}
    fake.answer("POST", "/v1/workspaces", lambda r: (200, {"plan": plan}) if r.query == {"dry-run": "1"} else (500, {}))
    same_as_golden("dry-run.txt", cli.text("deploy", "debian", "--dry-run"))
    assert json.loads(cli.text("deploy", "debian", "--dry-run", "--format", "json")) == plan


def test_deploy_that_fails_says_where_to_look(cli, fake):
    failed = done(state="failed", error={"kind": "corrupt", "message": "partition sha256:ab is damaged"})
    fake.answer("POST", "/v1/workspaces", lambda r: (201, {"id": "1" * 16, "name": "web", **operation(fake, failed)}))
    said = cli.fails(8, "deploy", "debian")
    assert "partition sha256:ab is damaged" in said and "carrel why web" in said


# --- run, exec, logs ---

def deploys(fake, handler, removed=True):
    fake.answer("POST", "/v1/workspaces", lambda r: (201, {"id": "1" * 16, "name": "brave-otter"}))
    fake.stream("/v1/workspaces/" + "1" * 16 + "/attach", handler)


@pytest.mark.parametrize("status", [0, 3, 137, 255])
def test_run_passes_output_and_status(cli, fake, status):
    def program(stream):
        assert stream.first == {"stdin": False}
        stream.output(b"out\x00\xff")
        stream.output(b"err", channel=2)
        stream.exit(status)
    deploys(fake, program)
    result = cli("run", "debian", "--", "x", "-y", ok=status)
    assert result.stdout == b"out\x00\xff" and result.stderr == b"err"
    assert fake.asked("POST")[0].json == {"spec": {"image": "debian", "command": ["x", "-y"]}, "held": True}
    # it returns when the workspace is over, not only its program
    assert len(fake.requests) == 3 and fake.requests[2].query == {"wait": "30", "state": "stopped,failed,removed"}


def test_run_rm_waits_for_the_removal(cli, fake):
    deploys(fake, lambda stream: stream.exit(0))
    looks = []

    def look(request):
        looks.append(request)
        return (200, {"state": "removing"}) if len(looks) < 4 else (404, {"error": {"kind": "not-found", "message": "gone"}})
    fake.answer("GET", "/v1/workspaces/" + "1" * 16, look)
    cli("run", "--rm", "debian")
    assert len(looks) == 4 and fake.asked("POST")[0].json["spec"]["remove-on-exit"] is True


def test_run_with_input(cli, fake, tmp_path):
    def program(stream):
        assert stream.first == {"stdin": True}
        data = stream.input_until_end()
        stream.output(str(len(data)).encode())
        stream.exit(0)
    deploys(fake, program)
    assert cli("run", "-i", "debian", input=b"x" * 3_000_000).stdout == b"3000000"
    (tmp_path / "file").write_bytes(b"y" * 1_000_000)
    with open(tmp_path / "file", "rb") as file:
        process = subprocess.run([CARREL, "run", "-i", "debian"], env=cli.env, stdin=file, capture_output=True, timeout=120)
    assert process.stdout == b"1000000" and process.returncode == 0
    assert subprocess.run([CARREL, "run", "-i", "debian"], env=cli.env, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=120).stdout == b"0"


def test_a_program_that_ends_while_input_comes(cli, fake):
    deploys(fake, lambda stream: stream.exit(4))
    process = subprocess.Popen([CARREL, "run", "-i", "debian"], env=cli.env, stdin=subprocess.PIPE)
    assert process.wait(120) == 4
    process.stdin.close()


@pytest.mark.parametrize("kind, status", [("not-found", 127), ("denied", 126), ("internal", 125)])
def test_run_of_what_cannot_run(cli, fake, kind, status):
    deploys(fake, lambda stream: stream.text({"error": {"kind": kind, "message": "cannot start x"}}))
    assert "cannot start x" in cli.fails(status, "run", "debian", "--", "x")


def test_own_failures_of_run_and_exec_are_125(cli, fake):
    fake.refuse("POST", "/v1/workspaces", 404, "not-found", "no image debian")
    assert "no image debian" in cli.fails(125, "run", "debian")
    fake.refuse("GET", "/v1/workspaces/x/exec", 404, "not-found", "no workspace x")
    assert "no workspace x" in cli.fails(125, "exec", "x", "true")
    cli.fails(125, "run", "--memory", "lots", "debian")
    deploys(fake, lambda stream: None)
    assert "ended the connection" in cli.fails(125, "run", "debian")


def test_signals_go_to_the_program(cli, fake):
    heard = []

    def program(stream):
        stream.output(b"ready\n")
        while len(heard) < 3:
            kind, value = stream.receive()
            if kind == "gone":
                return
            heard.append(value["signal"])
            stream.output(b"heard\n")
        stream.exit(143)
    deploys(fake, program)
    process = subprocess.Popen([CARREL, "run", "debian"], env=cli.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        process.stdout.readline()
        process.send_signal(number)
    assert process.wait(120) == 143 and heard == ["TERM", "INT", "KILL"]
    process.stdout.close()


def test_exec_request(cli, fake):
    seen = []

    def program(stream):
        seen.append(stream.first)
        stream.exit(9)
    fake.stream("/v1/workspaces/web/exec", program)
    cli("exec", "-i", "-u", "app", "--workdir", "/srv", "-e", "A=b", "web", "sh", "-c", "exit 9", ok=9)
    assert seen == [{"command": ["sh", "-c", "exit 9"], "terminal": False, "stdin": True, "user": "app", "directory": "/srv",
                     "environment": {"A": "b"}}]


def test_logs(cli, fake):
    seen = []

    def program(stream):
        seen.append(stream.first)
        stream.output(b"a\nb\n")
        stream.exit(0)
    fake.stream("/v1/workspaces/web/logs", program)
    assert cli.text("logs", "-f", "-n", "5", "--since", "1970-01-02T00:00:00Z", "web") == "a\nb\n"
    assert seen == [{"follow": True, "tail": 5, "since_ms": 86400000}]
    for since in ("soon", "10x", "-5m", "m", "nan"):
        cli.fails(2, "logs", "--since", since, "web")
    cli.fails(2, "logs", "-n", "-1", "web")


def test_a_slow_reader_slows_the_program(cli, fake):
    sent, over = [], threading.Event()

    def program(stream):
        stream.connection.settimeout(2)
        try:
            for _ in range(2000):
                stream.connection.sendall(b"\x82\x7e\xff\xff\x01" + b"z" * 65534)
                sent.append(1)
        except OSError:
            pass  # nothing was taken for two seconds
        over.set()
    deploys(fake, program)
    process = subprocess.Popen([CARREL, "run", "debian"], env=cli.env, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert over.wait(120)
    assert len(sent) < 50
    peak = int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{process.pid}/status").read_text())[1])
    assert peak < 16384
    process.kill()
    process.wait()
    process.stdout.close()


# --- output that nobody takes ---

def test_closed_and_full_output(cli, fake, web):
    with open("/dev/full", "wb") as full:
        assert "write to standard output" in cli.fails(6, "ls", stdout=full)
    closed = subprocess.run(["sh", "-c", f"{CARREL} ls >&-"], env=cli.env, capture_output=True, text=True)
    assert closed.returncode == 1 and "write to standard output" in closed.stderr
    piped = subprocess.run(["bash", "-c", f"{CARREL} --help | true; exit ${{PIPESTATUS[0]}}"], env=cli.env, capture_output=True,
                           text=True)
    assert piped.returncode in (0, 141) and piped.stderr == ""
    no_input = subprocess.run(["sh", "-c", f"{CARREL} ls <&- 2>&-"], env=cli.env, capture_output=True, text=True)
    assert no_input.returncode == 0 and "web" in no_input.stdout


def test_reader_of_run_goes_away(cli, fake):
    def program(stream):
        for _ in range(200):
            stream.output(b"x" * 60000)
            time.sleep(0.01)
    deploys(fake, program)
    result = subprocess.run(["bash", "-c", f"{CARREL} run debian | head -c 1; exit ${{PIPESTATUS[0]}}"], env=cli.env,
                            capture_output=True, timeout=120)
    assert result.stdout == b"x" and result.returncode == 125


# --- the guide ---

def test_each_command_of_the_guide_is_one(cli):
    """Verb and options of each line are known: --help behind the verb's options says so without a service."""
    pages = list((pathlib.Path(__file__).resolve().parents[2] / "docs/guide").glob("*.md"))
    lines = {line for page in pages for block in re.findall(r"```(?:console|sh)\n(.*?)```", page.read_text(), re.S)
             for line in block.splitlines()
             if re.match(r"(\$ )?carrel ", line)}
    assert len(lines) > 10
    for line in sorted(lines):
        words = line.removeprefix("$ ").split()[1:]
        known = words
        verb = next((v for v in (words[:2], words[:1]) if " ".join(v) in {p.replace("-", " ") for p in verbs(cli)}), None)
        if words[0].startswith("-"):
            continue
        assert verb, line
        text = cli.text(*verb, "--help")
        for option in re.findall(r"(?<= )--[a-z][a-z-]+", " ".join(known).split(" -- ")[0].split("$(")[0]):
            assert option in text, line


def test_the_exit_codes_of_the_guide_are_those_of_the_program(cli):
    guide = (pathlib.Path(__file__).resolve().parents[2] / "docs/guide/command-line.md").read_text()
    page = cli.text("__man", "carrel").replace("\\-", "-")
    for code, names in re.findall(r"\.TP\n\\fB(\d+)\\fR\n([a-z, -]+)\n", page):
        if code != "0":
            row = re.search(rf"(?m)^\| {code} \|(.*)\|$", guide)[1]
            assert all(name in row for name in names.split(", ")), (code, names)


@pytest.mark.parametrize("words, status", [(("exec", "web", "--", "true"), 125), (("run", "debian", "--", "true"), 125),
                                           (("logs", "web"), 7),
                                           (("console", "web"), 7), (("cp", "web:/a", "b"), 7), (("cp", "a", "web:/b"), 7)])
def test_streams_over_https_are_refused_first(cli, fake, words, status):
    """Nobody listens there: a refusal that names the way shows that nothing was asked before, let alone deployed."""
    said = cli.fails(status, "--address", "https://127.0.0.1:1", *words)
    assert "do not go over https" in said and "ssh -N -L" in said
    assert "connect" not in cli.fails(125, "--address", "https://127.0.0.1:1", "run", "debian", "--", "true").lower()
    assert fake.requests == []
