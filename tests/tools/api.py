# SPDX-License-Identifier: Apache-2.0
"""A carreld of one's own for tests, and HTTP to it over its socket, as any user."""
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

BUILD = os.environ.get("CARREL_BUILD_ROOT") or os.path.join(os.path.dirname(__file__), "../../build")
CARRELD = os.path.join(BUILD, "src/service/carreld")
DIGEST = "sha256:" + "0" * 64


class Connection(http.client.HTTPConnection):
    def __init__(self, path, timeout=180):
        super().__init__("carrel", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]


def ask(path, method, target, body=None, headers=None, connection=None):
    own = connection is None
    connection = connection or Connection(path)
    if body is not None and not isinstance(body, (bytes, str)):
        body = json.dumps(body)
    with contextlib.suppress(BrokenPipeError):  # refused by its head, before the body was sent: the answer is there
        connection.request(method, target, body=body, headers=headers or {})
    answer = connection.getresponse()
    got = Answer(answer.status, dict(answer.getheaders()), answer.read())
    if own:
        connection.close()
    return got


def as_user(uid, groups, work):
    """work() in a child with other credentials; its JSON-able result."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(groups)
            os.setgid(groups[0] if groups else 65534)
            os.setuid(uid)
            with os.fdopen(writing, "w") as out:
                json.dump(work(), out)
            os._exit(0)
        except BaseException as e:  # the parent sees an empty answer
            print(e, flush=True)
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as result:
        text = result.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, text
    return json.loads(text)


class Service:
    """One carreld with folders of its own. `images` are in its database from the start."""

    def __init__(self, images=("busybox",), config="", env=None):
        self.folder = tempfile.mkdtemp(prefix="carrel-api-")
        os.chmod(self.folder, 0o755)
        self.socket = self.folder + "/run/carreld.sock"
        self.database = self.folder + "/state/service/carrel.db"
        self.config, self.env, self.process = self.folder + "/carreld.yaml", env or {}, None
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(config or "{}\n")
        try:
            self.start()
            self.stop()
            self.add_images(images)
            self.start()
        except BaseException:
            self.remove()
            raise

    def add_images(self, names):
        with sqlite3.connect(self.database) as db:
            for name in names:
                image = {"name": name, "digest": DIGEST, "architecture": "amd64", "size": 1}
                db.execute("INSERT INTO images (name, digest, owner_uid, created, image) VALUES (?,?,?,?,?)",
                           (name, DIGEST, 0, 1, json.dumps({k: v for k, v in image.items() if k != "size"})))

    def start(self, wait=True):
        self.log = open(self.folder + "/log", "a", encoding="utf-8")
        self.process = subprocess.Popen(
            [CARRELD, "--state", self.folder + "/state", "--run", self.folder + "/run", "--config", self.config],
            stdout=self.log, stderr=self.log, env={**os.environ, **self.env})
        if wait:
            self.wait_ready()

    def wait_ready(self):
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(self.read_log())
            try:
                probe = socket.socket(socket.AF_UNIX)
                probe.connect(self.socket)
                probe.close()
                return
            except OSError:
                time.sleep(0.005)
        raise TimeoutError("carreld did not start")

    def read_log(self):
        with open(self.folder + "/log", encoding="utf-8") as f:
            return f.read()

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(60)

    def remove(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def ask(self, method, target, body=None, headers=None, connection=None):
        return ask(self.socket, method, target, body, headers, connection)

    def get(self, target, **more):
        return self.ask("GET", target, **more)

    def post(self, target, body=None, **more):
        return self.ask("POST", target, body, **more)

    def deploy(self, name=None, **spec):
        spec = {"image": "busybox", **spec}
        if name:
            spec["name"] = name
        got = self.post("/v1/workspaces", {"spec": spec})
        assert got.status == 201, got.body
        return got.json

    def wait(self, operation, seconds=120):
        got = self.get(f"/v1/operations/{operation}?wait={seconds}").json
        assert got["state"] != "running", got
        return got

    def done(self, answer):
        """Waits for the operation of an answer, which must become done."""
        assert answer.status == 202, answer.body
        got = self.wait(answer.json["id"])
        assert got["state"] == "done", got
        return got

    def wait_for(self, what, seconds=120):
        until = time.monotonic() + seconds
        while not (value := what()):
            assert time.monotonic() < until, "waited in vain"
            time.sleep(0.01)
        return value
