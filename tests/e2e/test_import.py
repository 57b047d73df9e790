# SPDX-License-Identifier: Apache-2.0
"""carrel-import against archives, a real registry, and registries that lie."""
import gzip
import json
import os
import signal
import subprocess
import time

import pytest

from image_tools import (OCI_INDEX, OCI_MANIFEST, Failure, Image, PlainRegistry, Server, TokenServer, check_store,
                         digest, do_import, docker_registry, leftovers, need, skopeo, start_import, tar)

FILES = {"bin/sh": b"#!" * 1000, "etc/hostname": b"box\n"}
MORE = {"usr/lib/data": os.urandom(300000), "etc/hostname": b"other\n"}


@pytest.fixture
def store(tmp_path):
    need()
    yield tmp_path / "store"
    if (tmp_path / "store").exists():
        check_store(tmp_path / "store")
        assert leftovers(tmp_path / "store") == []


@pytest.fixture
def image():
    return Image([tar(FILES), tar(MORE)])


def partitions(image):
    return [p["digest"] for p in image["partitions"]]


# --- archives ---

def test_tar(store):
    plain = tar(FILES)
    first = do_import(store, plain, format="tar", run={"Cmd": ["/bin/sh"]})
    assert first["run"] == {"Cmd": ["/bin/sh"]}
    assert not first.get("init")
    packed = [gzip.compress(plain)] + [subprocess.run(c, input=plain, capture_output=True, check=True).stdout
                                       for c in (["xz", "-c"], ["zstd", "-c"])]
    for data in packed:
        assert do_import(store, data, format="tar", run={"Cmd": ["/bin/sh"]})["digest"] == first["digest"]
    assert len(list((store / "partitions" / "sha256").iterdir())) == 1


def test_layout(store, image):
    first = do_import(store, image.archive())
    assert len(first["partitions"]) == 2
    assert first["architecture"] == "amd64"
    assert first["run"] == {"Cmd": ["/bin/sh"], "Env": ["A=b"]}
    again = do_import(store, gzip.compress(image.archive()))
    assert again["digest"] == first["digest"]
    assert again["progress"][-1]["reused"] == sum(layer["size"] for layer in image.layers)


def test_compressions_give_one_image(store):
    layers = [tar(FILES), tar(MORE)]
    digests = {do_import(store, Image(layers, compress=c).archive())["digest"] for c in ("gzip", "zstd", None)}
    assert len(digests) == 1


def test_docker_save(store, image):
    assert do_import(store, image.saved())["digest"] == do_import(store, image.archive())["digest"]


def test_layout_with_two_images(store, image):
    other = Image([tar(FILES)])
    data = image.archive(tags=("a", "b"), images=(other,))
    with pytest.raises(Failure, match="2 images") as failure:
        do_import(store, data)
    assert failure.value.hint == "there are: a, b"
    assert len(do_import(store, data, reference="b")["partitions"]) == 1
    with pytest.raises(Failure, match="no image 'c'"):
        do_import(store, data, reference="c")


def test_bad_layouts(store, image):
    files = image.files()
    layer = "blobs/sha256/" + image.layers[0]["digest"][7:]
    config = "blobs/sha256/" + image.config["digest"][7:]

    def refused(files, pattern, kind="corrupt"):
        with pytest.raises(Failure, match=pattern) as failure:
            do_import(store, tar(files))
        assert failure.value.kind == kind, failure.value
    refused({**files, layer: b"other bytes"}, "has the digest")
    refused({k: v for k, v in files.items() if k != layer}, "has no blobs/sha256")
    refused({**files, config: b"{}"}, "has the digest")
    refused({**files, "index.json": b"{"}, "not JSON")
    refused({**files, "index.json": b"[" * 100000}, "not JSON")
    refused({k: v for k, v in files.items() if k != "index.json"}, "neither index.json nor manifest.json", "invalid")
    refused({**files, "index.json": b" " * (5 << 20)}, "more than 4194304 bytes", "too-large")
    with pytest.raises(Failure, match="archive"):
        do_import(store, image.archive()[:5000])
    with pytest.raises(Failure, match="archive"):
        do_import(store, b"no archive at all" * 1000)
    with pytest.raises(Failure, match="archive"):
        do_import(store, b"")
    assert list((store / "blobs" / "sha256").iterdir()) == []


def test_names_in_an_archive_are_only_names(store, image, tmp_path):
    files = image.files()
    for name in ("../../escaped", "/escaped", "a/../../escaped", "x" * 300, "new\nline"):
        files[name] = b"x"
    do_import(store, tar(files))
    assert not list(tmp_path.rglob("escaped"))


def test_wrong_diff_id(store):
    image = Image([tar(FILES)])
    text = json.dumps({"architecture": "amd64", "os": "linux",
                       "rootfs": {"type": "layers", "diff_ids": [digest(b"x")]}}).encode()
    image.config = {**image.config, "digest": image.add(text), "size": len(text)}
    image.manifest = image.write_manifest()
    with pytest.raises(Failure, match="plain digest") as failure:
        do_import(store, image.archive())
    assert failure.value.kind == "corrupt"
    assert not list((store / "layers").iterdir())


def test_other_architecture(store):
    image = Image([tar(FILES)], architecture="riscv64")
    with pytest.raises(Failure, match="for riscv64, not for"):
        do_import(store, image.archive())
    assert do_import(store, image.archive(), architecture="riscv64")["architecture"] == "riscv64"


# --- a real registry ---

def push(image, folder, address, name, *options, tag="latest"):
    layout = folder / ("layout-" + name.replace("/", "-") + tag)
    for path, data in image.files().items():
        (layout / path).parent.mkdir(parents=True, exist_ok=True)
        (layout / path).write_bytes(data)
    skopeo("copy", "--dest-tls-verify=false", *options, f"oci:{layout}:latest", f"docker://{address}/{name}:{tag}")


def test_registry(store, image, tmp_path):
    need("docker-registry", "skopeo")
    with docker_registry(tmp_path) as address:
        push(image, tmp_path, address, "team/app")
        first = do_import(store, reference=f"docker://{address}/team/app")
        assert first["digest"] == do_import(tmp_path / "store2", image.archive())["digest"]
        again = do_import(store, reference=f"docker://{address}/team/app:latest")
        assert again["digest"] == first["digest"]
        assert again["progress"][-1]["reused"] == again["progress"][-1]["total"]
        by_digest = do_import(store, reference=f"docker://{address}/team/app@{digest(image.manifest)}")
        assert by_digest["digest"] == first["digest"]
        push(image, tmp_path, address, "team/docker", "--format", "v2s2")
        assert do_import(store, reference=f"docker://{address}/team/docker")["digest"] == first["digest"]
        with pytest.raises(Failure, match="does not have it: MANIFEST_UNKNOWN") as failure:
            do_import(store, reference=f"docker://{address}/team/app:none")
        assert failure.value.kind == "not-found"


def test_registry_with_password(store, image, tmp_path):
    need("docker-registry", "skopeo", "perl")
    hashed = subprocess.run(["perl", "-e", "print crypt('se:cret', '$2b$05$' . 'a' x 21 . 'e')"], capture_output=True,
                            check=True, text=True).stdout
    (tmp_path / "users").write_text(f"alice:{hashed}\n")
    with docker_registry(tmp_path, f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/users}}}}\n") as address:
        push(image, tmp_path, address, "app", "--dest-creds", "alice:se:cret")
        reference = f"docker://{address}/app"
        with pytest.raises(Failure, match="user name and password") as failure:
            do_import(store, reference=reference)
        assert failure.value.kind == "denied"
        with pytest.raises(Failure, match="refuses access"):
            do_import(store, reference=reference, user="alice", password="wrong")
        do_import(store, reference=reference, user="alice", password="se:cret")
        auths = tmp_path / "config.json"
        auths.write_text(json.dumps({"auths": {address: {"auth": "YWxpY2U6c2U6Y3JldA=="}}}))
        do_import(tmp_path / "store2", reference=reference, **{"auth-file": str(auths)})


def test_registry_with_tokens(store, image, tmp_path):
    need("docker-registry", "skopeo", "openssl")
    with docker_registry(tmp_path) as address:
        push(image, tmp_path, address, "team/app")
    for users in (None, {"bob": "pw"}):
        with TokenServer(tmp_path, users) as tokens:
            auth = (f"auth: {{token: {{realm: 'http://{tokens.address}/token', service: registry, issuer: tests, "
                    f"rootcertbundle: {tokens.certificate}}}}}\n")
            with docker_registry(tmp_path, auth) as address:
                login = {"user": "bob", "password": "pw"} if users else {}
                assert len(do_import(store, reference=f"docker://{address}/team/app", **login)["partitions"]) == 2
                if users:
                    with pytest.raises(Failure, match="token server refuses"):
                        do_import(store, reference=f"docker://{address}/team/app")


def test_index(store, image):
    other = Image([tar(FILES)], architecture="arm64")

    def entry(image, architecture, **more):
        return image.descriptor(platform={"os": "linux", "architecture": architecture, **more})
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        entry(image, "amd64"), entry(other, "arm64", variant="v8")]}).encode()
    blobs = {**other.blobs, digest(other.manifest): other.manifest}

    def lie(registry, request):
        name = request.path.rsplit("/", 1)[1]
        if name in blobs:
            registry.send(request, 200, blobs[name], Content_Type=OCI_MANIFEST)
        return name in blobs
    with PlainRegistry(image, lie, index) as registry:
        assert len(do_import(store, reference=registry.reference(), architecture="amd64")["partitions"]) == 2
        assert do_import(store, reference=registry.reference(), architecture="arm64")["architecture"] == "arm64"
        assert do_import(store, reference=registry.reference(), architecture="arm64/v8")["architecture"] == "arm64/v8"
        with pytest.raises(Failure, match="linux/s390x") as failure:
            do_import(store, reference=registry.reference(), architecture="s390x")
        assert "linux/amd64, linux/arm64/v8" in failure.value.hint


# --- registries that lie ---

def lying(pattern, **answer):
    """Answers requests whose path contains `pattern` with this status, body and headers."""
    def lie(registry, request):
        if pattern not in request.path:
            return False
        body = answer.get("body", b"")
        registry.send(request, answer.get("status", 200), body, **answer.get("headers", {}))
        return True
    return lie


def endless(pattern, content_type="application/octet-stream"):
    def lie(registry, request):
        if pattern not in request.path:
            return False
        request.send_response(200)
        request.send_header("Content-Type", content_type)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        block = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(100000):
            request.wfile.write(block)
        return True
    return lie


HTML = {"headers": {"Content_Type": "text/html"}, "body": b"<html>hello</html>"}
LIES = {
    "wrong bytes of a layer": (lambda i: lying(i.layers[0]["digest"], body=b"x" * i.layers[0]["size"]), "corrupt",
                               "with the digest"),
    "short layer": (lambda i: lying(i.layers[0]["digest"], body=b"x"), "corrupt", "announces 1 bytes"),
    "long layer": (lambda i: lying(i.layers[0]["digest"], body=b"x" * 2000000), "corrupt", "announces 2000000 bytes"),
    "endless layer": (lambda i: endless(i.layers[0]["digest"]), "corrupt", "more than"),
    "wrong bytes of the configuration": (lambda i: lying(i.config["digest"], body=b"x" * i.config["size"]), "corrupt",
                                         "configuration"),
    "configuration missing": (lambda i: lying(i.config["digest"], status=404), "not-found", "does not have it"),
    "endless manifest": (lambda i: endless("manifests", OCI_MANIFEST), "too-large", "more than 4194304"),
    "manifest of 100 MB": (lambda i: lying("manifests", body=b" " * 100000000, headers={"Content_Type": OCI_MANIFEST}),
                           "too-large", "announces 100000000 bytes"),
    "a web page": (lambda i: lying("manifests", **HTML), "unsupported", "text/html"),
    "not JSON": (lambda i: lying("manifests", body=b"}{", headers={"Content_Type": OCI_MANIFEST}), "corrupt", "not JSON"),
    "deep JSON": (lambda i: lying("manifests", body=b'{"a":' * 100000, headers={"Content_Type": OCI_MANIFEST}), "corrupt",
                  "not JSON"),
    "schema 1": (lambda i: lying("manifests", body=b'{"schemaVersion":1}', headers={
        "Content_Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}), "unsupported", "schema 1"),
    "redirect loop": (lambda i: lying("manifests", status=302, headers={"Location": "/v2/test/image/manifests/latest"}),
                      "corrupt", "redirects more than"),
    "redirect to another scheme": (lambda i: lying("manifests", status=302, headers={"Location": "file:///etc/passwd"}),
                                   "denied", "not https"),
    "redirect to plain http elsewhere": (lambda i: lying("manifests", status=307, headers={
        "Location": "http://registry.example.org/x"}), "denied", "not https"),
    "redirect without address": (lambda i: lying("manifests", status=302), "corrupt", "nowhere"),
    "endless refusal": (lambda i: lying("manifests", status=404, body=b"x" * 1000000), "too-large", "64 KiB"),
    "token server elsewhere": (lambda i: lying("manifests", status=401, headers={
        "WWW_Authenticate": 'Bearer realm="http://tokens.example.org/t"'}), "denied", "token server that is not https"),
    "challenge that is none": (lambda i: lying("manifests", status=401, headers={"WWW_Authenticate": 'Bearer realm="x'}),
                               "invalid", "list of challenges"),
    "challenge for ever": (lambda i: lying("manifests", status=401, headers={"WWW_Authenticate": "Basic"}), "denied",
                           "user name"),
    "out of order": (lambda i: lying("manifests", status=503), "unavailable", "status 503"),
    "too many requests": (lambda i: lying(i.layers[1]["digest"], status=429), "unavailable", "status 429"),
}


@pytest.mark.parametrize("name", LIES)
def test_lying_registry(store, image, name):
    lie, kind, pattern = LIES[name]
    with PlainRegistry(image, lie(image)) as registry:
        with pytest.raises(Failure, match=pattern) as failure:
            do_import(store, reference=registry.reference())
        assert failure.value.kind == kind
    assert list((store / "blobs" / "sha256").iterdir()) == []


def test_wrong_digest_of_a_manifest(store, image):
    with PlainRegistry(image, lying("manifests", body=Image([tar(FILES)]).manifest,
                                    headers={"Content_Type": OCI_MANIFEST})) as registry:
        with pytest.raises(Failure, match="sent a manifest with the digest"):
            do_import(store, reference=registry.reference(tag="@" + digest(image.manifest)))


def test_password_stays_with_its_registry(store, image):
    class Elsewhere(Server):
        def answer(self, request):
            self.send(request, 200, image.blobs[request.path[1:]])
    with Elsewhere() as elsewhere:
        def lie(registry, request):
            if "Authorization" not in request.headers:
                registry.send(request, 401, b"", WWW_Authenticate='Basic realm="x"')
                return True
            if "/blobs/" in request.path:
                registry.send(request, 307, b"", Location=f"http://{elsewhere.address}/{request.path.rsplit('/', 1)[1]}")
                return True
            return False
        with PlainRegistry(image, lie) as registry:
            do_import(store, reference=registry.reference(), user="u", password="p")
        assert len(elsewhere.requests) == 3
        assert all("Authorization" not in headers for _, headers in elsewhere.requests)


def test_broken_connections_are_continued(store):
    image = Image([tar({"data": os.urandom(3000000)})], compress=None)
    ranges = []

    def lie(registry, request):
        if image.layers[0]["digest"] not in request.path:
            return False
        start = int(request.headers.get("Range", "bytes=0-")[6:-1])
        ranges.append(start)
        data = image.blobs[image.layers[0]["digest"]]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(data) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        request.end_headers()
        request.wfile.write(data[start:start + 1000000])
        request.close_connection = True
        return True
    with PlainRegistry(image, lie) as registry:
        do_import(store, reference=registry.reference())
    assert ranges == [0, 1000000, 2000000, 3000000]


def test_download_goes_on_in_the_next_import(store):
    image = Image([tar({"data": os.urandom(3000000)})], compress=None)
    layer = image.layers[0]

    def lie(registry, request):
        if layer["digest"] not in request.path:
            return False
        if "Range" in request.headers:
            registry.send(request, 500)
            return True
        request.send_response(200)
        request.send_header("Content-Length", str(layer["size"]))
        request.end_headers()
        request.wfile.write(image.blobs[layer["digest"]][:1234567])
        request.close_connection = True
        return True
    with PlainRegistry(image, lie) as registry:
        with pytest.raises(Failure) as failure:
            do_import(store, reference=registry.reference())
        assert failure.value.kind == "unavailable"
    with PlainRegistry(image) as registry:
        imported = do_import(store, reference=registry.reference())
        ranges = [h.get("Range") for path, h in registry.requests if layer["digest"] in path]
        assert ranges == ["bytes=1234567-"]
        assert imported["progress"][-1]["reused"] == 1234567
    assert list((store / "tmp").iterdir()) == []


def test_damaged_download_is_fetched_anew(store):
    image = Image([tar({"data": os.urandom(300000)})], compress=None)
    layer = image.layers[0]
    (store / "tmp").mkdir(parents=True)
    (store / "tmp" / ("partial-" + layer["digest"][7:])).write_bytes(b"x" * 1000)
    with PlainRegistry(image) as registry:
        do_import(store, reference=registry.reference())


def test_cancel(store, image):
    with PlainRegistry(image) as registry:
        def slow(registry, request):
            if image.layers[1]["digest"] not in request.path:
                return False
            request.send_response(200)
            request.send_header("Content-Length", str(image.layers[1]["size"]))
            request.end_headers()
            for byte in image.blobs[image.layers[1]["digest"]]:
                request.wfile.write(bytes([byte]))
                time.sleep(0.02)
            return True
        registry.lie = slow
        program = start_import(store, reference=registry.reference())
        while (answer := program.read_line()) and answer["progress"].get("done", 0) <= image.layers[0]["size"]:
            pass
        program.signal(signal.SIGTERM)
        with pytest.raises(Failure) as failure:
            program.result()
        assert failure.value.kind == "cancelled"
    assert list((store / "tmp").iterdir()) == []
    assert list((store / "blobs" / "sha256").iterdir()) == []


def test_ends_with_its_service(store, image):
    with PlainRegistry(image, lambda r, q: time.sleep(20)) as registry:
        program = start_import(store, reference=registry.reference())
        program.read_line()
        assert program.end() != 0
    assert list((store / "tmp").iterdir()) == []


def test_same_image_twice_at_once(store, image):
    with PlainRegistry(image) as registry:
        programs = [start_import(store, reference=registry.reference()) for _ in range(4)]
        digests = {program.result()["digest"] for program in programs}
        for program in programs:
            assert program.end() == 0
        assert len(digests) == 1
        for layer in image.layers:
            assert sum(layer["digest"] in path for path, _ in registry.requests) == 1
