# SPDX-License-Identifier: Apache-2.0
"""What the tests of import and export share: layers and layouts made by hand, the programs' protocol, and registries of all kinds."""
import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import secrets
import select
import shutil
import socket
import subprocess
import tarfile
import threading
import time
import urllib.parse

BUILD = pathlib.Path(os.environ.get("CARREL_BUILD_ROOT", pathlib.Path(__file__).resolve().parents[2] / "build"))
PROGRAMS = pathlib.Path(os.environ.get("CARREL_LIBEXEC", BUILD / "src" / "store"))

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
PARTITION = "application/vnd.carrel.partition.v1.erofs"


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def tar(files, **options):
    """files: name -> bytes, or a TarInfo made by the caller."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, **options) as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mode = 0o755
            info.mtime = 1700000000
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Image:
    """An OCI image in memory: blobs by digest, a manifest, an index."""

    def __init__(self, layers, config=None, architecture="amd64", compress="gzip", docker=False):
        self.blobs = {}
        self.plain = layers
        suffix = {"gzip": "+gzip", "zstd": "+zstd", None: ""}[compress]
        self.layers = []
        for plain in layers:
            data = plain
            if compress == "gzip":
                data = gzip.compress(plain, mtime=0)
            elif compress == "zstd":
                data = subprocess.run(["zstd", "-qc"], input=plain, capture_output=True, check=True).stdout
            self.layers.append({"mediaType": OCI_LAYER + suffix, "digest": self.add(data), "size": len(data)})
        document = {"architecture": architecture, "os": "linux", "config": config or {"Cmd": ["/bin/sh"], "Env": ["A=b"]},
                    "rootfs": {"type": "layers", "diff_ids": [digest(plain) for plain in layers]}}
        text = json.dumps(document).encode()
        self.config = {"mediaType": OCI_CONFIG, "digest": self.add(text), "size": len(text)}
        self.manifest = self.write_manifest()

    def add(self, data):
        self.blobs[digest(data)] = data
        return digest(data)

    def write_manifest(self):
        return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": self.config,
                           "layers": self.layers}).encode()

    def descriptor(self, **more):
        return {"mediaType": OCI_MANIFEST, "digest": digest(self.manifest), "size": len(self.manifest), **more}

    def files(self, tags=("latest",), images=()):
        """An OCI image layout: name -> bytes."""
        manifests = []
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        for image, tag in zip((self, *images), tags):
            manifests.append(image.descriptor(annotations={"org.opencontainers.image.ref.name": tag}))
            for name, data in {**image.blobs, digest(image.manifest): image.manifest}.items():
                files["blobs/sha256/" + name[7:]] = data
        files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        return files

    def archive(self, **options):
        return tar(self.files(**options))

    def saved(self, name="web:1"):
        """What docker save writes."""
        layers = {f"{i}/layer.tar": plain for i, plain in enumerate(self.plain)}
        config = self.blobs[self.config["digest"]]
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": list(layers)}]
        return tar({**layers, "config.json": config, "manifest.json": json.dumps(manifest).encode()})


class Failure(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.kind = error["kind"]
        self.message = error["message"]
        self.hint = error.get("hint", "")


class Program:
    """carrel-import or carrel-export, spoken with as the service does (src/store/import_wire.h)."""

    def __init__(self, name, request, stdin=None, output=None, environment=None):
        self.progress = []
        self.lines = b""
        request_read, self.request = os.pipe()
        self.answers, answer_write = os.pipe()
        source = stdin if stdin is not None else os.open("/dev/null", os.O_RDONLY)
        high = [os.dup(fd) for fd in (source, answer_write, request_read)] + ([os.dup(output)] if output is not None else [])
        base = max(40, *high) + 1  # beyond all of them: a copy must not land on one that is still to be copied
        actions = [(os.POSIX_SPAWN_DUP2, fd, base + i) for i, fd in enumerate(high)]
        actions += [(os.POSIX_SPAWN_DUP2, base + i, to) for i, to in enumerate([0, 1, 3, 4][:len(high)])]
        actions += [(os.POSIX_SPAWN_CLOSE, base + i) for i in range(len(high))]
        os.write(self.request, json.dumps(request).encode() + b"\n")
        env = {**os.environ, "CARREL_LIBEXEC": str(PROGRAMS), **(environment or {})}
        self.pid = os.posix_spawn(str(PROGRAMS / name), [name], env, file_actions=actions)
        for fd in (*high, request_read, answer_write):
            os.close(fd)
        if stdin is None:
            os.close(source)
        self.status = None

    def read_line(self, timeout=60):
        while b"\n" not in self.lines:
            ready, _, _ = select.select([self.answers], [], [], timeout)
            assert ready, "the program does not answer"
            data = os.read(self.answers, 65536)
            if not data:
                return None
            self.lines += data
        line, self.lines = self.lines.split(b"\n", 1)
        return json.loads(line)

    def result(self):
        while (answer := self.read_line()) is not None:
            if "progress" in answer:
                self.progress.append(answer["progress"])
            elif "error" in answer:
                self.end()
                raise Failure(answer["error"])
            else:
                return answer.get("image", answer)
        status = self.end()
        raise AssertionError(f"ended with status {status} and no answer")

    def signal(self, number):
        os.kill(self.pid, number)

    def end(self):
        """Closes the request: the program drops its pins and ends."""
        if self.status is None:
            os.close(self.request)
            os.close(self.answers)
            _, status = os.waitpid(self.pid, 0)
            self.status = os.waitstatus_to_exitcode(status)
        return self.status


def feed(data):
    """A descriptor from which `data` can be read."""
    reader, writer = os.pipe()

    def write():
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as out:
            out.write(data)
    threading.Thread(target=write, daemon=True).start()
    return reader


def start_import(store, data=None, environment=None, **request):
    stdin = feed(data) if data is not None else None
    request.setdefault("format", "registry" if data is None else "oci")
    program = Program("carrel-import", {"store": str(store), **request}, stdin, environment=environment)
    if stdin is not None:
        os.close(stdin)
    return program


def do_import(store, data=None, **request):
    program = start_import(store, data, **request)
    image = program.result()
    assert program.end() == 0
    image["progress"] = program.progress
    return image


def leftovers(store):
    """What is in tmp/ but downloads that may be continued."""
    return [p.name for p in (pathlib.Path(store) / "tmp").iterdir() if not p.name.startswith("partial-")]


def check_store(store):
    """Each file is what its name says."""
    store = pathlib.Path(store)
    for kind in ("partitions", "blobs"):
        for path in (store / kind / "sha256").iterdir():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, path
    for path in (store / "layers").iterdir():
        assert re.fullmatch(r"sha256:[0-9a-f]{64}\n", path.read_text()), path
        assert (store / "partitions" / "sha256" / path.read_text().strip()[7:]).exists(), path


# --- registries ---

class Server:
    """An HTTP server on a free port of the loopback; subclasses answer."""

    def __init__(self):
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.requests.append((self.path, dict(self.headers)))
                try:
                    outer.answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_):
                pass

            def handle(self):
                with contextlib.suppress(ConnectionResetError):
                    super().handle()
        self.requests = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.port = self.server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        raise NotImplementedError

    @staticmethod
    def send(request, status, body=b"", **headers):
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


class PlainRegistry(Server):
    """A registry that serves one image; `lie` may answer in its place (returns True when it did)."""

    def __init__(self, image, lie=None, index=None):
        self.image, self.lie, self.index = image, lie, index
        super().__init__()

    def answer(self, request):
        if self.lie and self.lie(self, request):
            return
        kind, name = request.path.split("/")[-2:]
        if kind == "manifests":
            if self.index is not None and name == "latest":
                return self.send(request, 200, self.index, Content_Type=OCI_INDEX)
            if name in ("latest", digest(self.image.manifest)):
                return self.send(request, 200, self.image.manifest, Content_Type=OCI_MANIFEST)
        data = self.image.blobs.get(name)
        if data is None:
            return self.send(request, 404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
        ranged = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if ranged:
            start = int(ranged.group(1))
            return self.send(request, 206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        return self.send(request, 200, data, Content_Type="application/octet-stream")

    def reference(self, name="test/image", tag=":latest"):
        return f"docker://{self.address}/{name}{tag}"


class TokenServer(Server):
    """Gives bearer tokens that a docker-registry accepts (distribution's token specification, RS256)."""

    def __init__(self, folder, users=None):
        self.users = users
        self.key, self.certificate = folder / "token.key", folder / "token.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out",
                        self.certificate, "-subj", "/CN=token", "-days", "2"], check=True, capture_output=True)
        der = subprocess.run(["openssl", "x509", "-in", self.certificate, "-outform", "DER"], check=True,
                             capture_output=True).stdout
        self.chain = [base64.b64encode(der).decode()]
        super().__init__()

    def answer(self, request):
        if self.users is not None:
            expected = ["Basic " + base64.b64encode(f"{u}:{p}".encode()).decode() for u, p in self.users.items()]
            if request.headers.get("Authorization") not in expected:
                return self.send(request, 401, b"{}")
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
        _, name, _ = query["scope"][0].split(":")
        access = [{"type": "repository", "name": name, "actions": ["pull"]}]
        now = int(time.time())

        def part(value):
            return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")
        head = part({"typ": "JWT", "alg": "RS256", "x5c": self.chain})
        body = part({"iss": "tests", "sub": "", "aud": "registry", "exp": now + 300, "nbf": now - 10, "iat": now,
                     "jti": secrets.token_hex(8), "access": access})
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.key], input=head + b"." + body,
                                   capture_output=True, check=True).stdout
        token = b".".join([head, body, base64.urlsafe_b64encode(signature).rstrip(b"=")])
        return self.send(request, 200, json.dumps({"token": token.decode()}).encode(), Content_Type="application/json")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def docker_registry(folder, auth="", port=None):
    """The registry of the distribution project (Debian: docker-registry) on a free port; `auth` is a piece of its configuration."""
    for _ in range(5):
        port_here = port or free_port()
        config = folder / "registry.yml"
        config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: "
                          f"{folder}/registry}}}}\n"
                          f"http: {{addr: 127.0.0.1:{port_here}, secret: test}}\n{auth}")
        log = open(folder / "registry.log", "wb")
        process = subprocess.Popen(["docker-registry", "serve", config], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port_here), 1):
                break
            time.sleep(0.02)
        if process.poll() is None:
            break
    try:
        yield f"127.0.0.1:{port_here}"
    finally:
        process.terminate()
        process.wait()
        log.close()


def skopeo(*arguments, **options):
    return subprocess.run(["skopeo", "--insecure-policy", *map(str, arguments)], check=True, capture_output=True, text=True,
                          **options)


def need(*programs):
    import pytest
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    for program in ("carrel-import", "carrel-convert"):
        if not (PROGRAMS / program).exists():
            pytest.skip(f"{PROGRAMS / program} is not built")
