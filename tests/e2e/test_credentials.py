# SPDX-License-Identifier: Apache-2.0
"""Passwords of registries on the command line, against the real docker-registry: who gets them, and where they are never seen."""
import contextlib
import json
import os
import pathlib
import subprocess

import pytest

from image_tools import Image, docker_registry, need, tar
from test_import import push

USER, PASSWORD = "alice", "se:cret-hunter2"
AUTH = "YWxpY2U6c2U6Y3JldC1odW50ZXIy"


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    need("docker-registry", "skopeo", "perl")
    folder = tmp_path_factory.mktemp("registry")
    hashed = subprocess.run(["perl", "-e", f"print crypt('{PASSWORD}', '$2b$05$' . 'a' x 21 . 'e')"], capture_output=True,
                            check=True, text=True).stdout
    (folder / "users").write_text(f"{USER}:{hashed}\n")
    with docker_registry(folder, f"auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}\n") as address:
        image = Image([tar({"bin/sh": b"#!" * 1000, "data": os.urandom(100000)})])
        push(image, folder, address, "app", "--dest-creds", f"{USER}:{PASSWORD}")
        yield address


@pytest.fixture
def here(new_site, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return new_site(node=False, env={"HOME": str(home), "XDG_RUNTIME_DIR": "", "REGISTRY_AUTH_FILE": "", "DOCKER_CONFIG": ""})


def auths(path, *hosts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": {host: {"auth": AUTH} for host in hosts}
                                | {"other.example.org": {"auth": "b3RoZXI6b3RoZXItc2VjcmV0"}}}))
    return path


def seen_nowhere(site, *texts):
    for path in pathlib.Path(site.folder).rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a session of the store's has ended meanwhile
            data = path.read_bytes() if path.is_file() else b""
            assert not any(t.encode() in data for t in (PASSWORD, AUTH, "other-secret")), path
    assert not any(t in text for text in texts for t in (PASSWORD, AUTH, "other-secret"))


def test_password_on_standard_input(here, registry):
    source = f"docker://{registry}/app"
    refused = here.carrel("image", "import", "app", source, ok=3).stderr
    assert "user name and password" in refused
    wrong = here.carrel("image", "import", "app", source, "--username", USER, "--password-stdin", input=PASSWORD + "x\n",
                        ok=3).stderr
    assert "refuses access" in wrong
    here.carrel("image", "import", "app", source, "--username", USER, "--password-stdin", input=PASSWORD + "\n")
    assert here.json("image", "show", "app")["name"] == "app"
    seen_nowhere(here, refused, wrong, here.carrel("operation", "ls", "--all", "--format", "json").stdout,
                 json.dumps(here.api("GET", "/v1/events?after=0")[1]))


def test_password_files(here, registry, tmp_path):
    run, source = here.carrel, f"docker://{registry}/app"
    run("image", "import", "a", source, "--authfile", auths(tmp_path / "one.json", registry))
    run("image", "import", "b", source, env={"REGISTRY_AUTH_FILE": str(tmp_path / "one.json")})
    auths(pathlib.Path(here.environment["HOME"]) / ".docker/config.json", registry)
    run("image", "import", "c", source)
    # a file without an entry for this registry gives nothing of it away
    assert "user name and password" in run("image", "import", "d", source, "--authfile", auths(tmp_path / "none.json"),
                                           ok=3).stderr
    # the first place that knows the registry counts
    auths(tmp_path / "run/containers/auth.json")
    run("image", "import", "e", source, env={"XDG_RUNTIME_DIR": str(tmp_path / "run")})
    broken = tmp_path / "broken.json"
    broken.write_text(f'{{"auths": {{"{registry}": {{"auth": "{PASSWORD}"}}}}}}')
    said = run("image", "import", "f", source, "--authfile", broken, ok=2).stderr
    assert str(broken) in said and registry in said
    assert "No such file" in run("image", "import", "f", source, "--authfile", tmp_path / "missing", ok=4).stderr
    seen_nowhere(here, said)


def test_refusals(here, registry, tmp_path):
    run, source = here.carrel, f"docker://{registry}/app"
    assert "--password-stdin" in run("image", "import", "a", source, "--username", USER, ok=2).stderr
    assert "--username" in run("image", "import", "a", source, "--password-stdin", input="x", ok=2).stderr
    assert "no password" in run("image", "import", "a", source, "--username", USER, "--password-stdin", input="\n", ok=2).stderr
    assert "docker://" in run("image", "import", "a", tmp_path, "--authfile", "x", ok=2).stderr
    too_long = run("image", "import", "a", source, "--username", USER, "--password-stdin", input=PASSWORD * 10000, ok=2).stderr
    status, body, _ = here.api("POST", "/v1/images",
                               {"name": "a", "source": source, "user": USER, "password": PASSWORD * 10000})
    assert status == 400
    wrong_type = here.api("POST", "/v1/images", {"name": "a", "source": source, "user": USER, "password": [PASSWORD]})
    assert wrong_type[0] == 400
    seen_nowhere(here, too_long, json.dumps(body), json.dumps(wrong_type[1]))


def test_the_password_is_no_argument_of_any_process(here, registry):
    """Looked at while the import is under way: the arguments and environments of all processes."""
    child = here.popen("image", "import", "app", f"docker://{registry}/app", "--username", USER, "--password-stdin")
    child.stdin.write(PASSWORD.encode() + b"\n")
    child.stdin.close()
    looks = 0
    while child.poll() is None:
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                text = (entry / "cmdline").read_bytes()
                if b"carrel" in text:
                    text += (entry / "environ").read_bytes()
            except OSError:
                continue
            assert PASSWORD.encode() not in text, text
        looks += 1
    assert child.returncode == 0 and looks, child.stderr.read()
