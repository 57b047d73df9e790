# SPDX-License-Identifier: Apache-2.0
"""Images as a client of the service sees them: uploads, downloads, names, and what becomes of partitions."""
import contextlib
import http.client
import io
import json
import os
import pathlib
import socket
import tarfile
import threading
import time
import urllib.parse

import pytest

from image_tools import Image, PlainRegistry, check_store, docker_registry, leftovers, skopeo, tar, need
from test_import import push

FILES = {"bin/sh": b"#!" * 1000, "etc/hostname": b"box\n"}


class Connection(http.client.HTTPConnection):
    def __init__(self, site):
        super().__init__("localhost", timeout=300)
        self.path = str(site.socket)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(300)
        self.sock.connect(self.path)


@pytest.fixture
def here(new_site):
    need()
    return new_site(node=False)


@pytest.fixture
def image():
    return Image([tar(FILES), tar({"data": os.urandom(300000)})])


def quote(name):
    return urllib.parse.quote(name, safe="")


def send(site, name, body, format="oci", **query):
    connection = Connection(site)
    more = "".join(f"&{k}={quote(v)}" for k, v in query.items())
    with contextlib.suppress(BrokenPipeError):  # what is refused is answered before it was read to its end
        connection.request("POST", f"/v1/images?name={quote(name)}&format={format}{more}", body)
    answer = connection.getresponse()
    text = json.loads(answer.read())
    connection.close()
    return answer.status, text


def finished(site, operation, seconds=300):
    return site.api("GET", f"/v1/operations/{operation['id']}?wait={seconds}", timeout=seconds + 30)[1]


def add(site, name, body, **how):
    status, operation = send(site, name, body, **how)
    assert status == 202, operation
    operation = finished(site, operation)
    assert operation["state"] == "done", operation
    return site.api("GET", f"/v1/images/{quote(name)}")[1]


def export(site, name, format):
    connection = Connection(site)
    connection.request("GET", f"/v1/images/{quote(name)}/export?format={format}")
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    return answer.read()


def store(site):
    return pathlib.Path(site.state) / "store"


def partitions(site):
    return sorted(p.name for p in (store(site) / "partitions" / "sha256").iterdir())


def wait_until_tidy(site):
    """The programs remove what they had under construction a moment after the operation's end."""
    deadline = time.monotonic() + 60
    while leftovers(store(site)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leftovers(store(site)) == []


def test_add_list_show_remove(here, image):
    assert here.api("GET", "/v1/images")[1] == {"items": []}
    added = add(here, "team/app:1", image.archive())
    assert added["name"] == "team/app:1"
    assert added["run"]["Cmd"] == ["/bin/sh"]
    assert here.api("GET", "/v1/images/" + quote(added["digest"]))[1]["digest"] == added["digest"]
    for name in ("b", "a", "c"):
        add(here, name, image.archive())
    assert here.api("GET", "/v1/images?limit=0")[0] == 400
    first = here.api("GET", "/v1/images?limit=2")[1]
    assert [i["name"] for i in first["items"]] == ["a", "b"]
    rest = here.api("GET", f"/v1/images?limit=2&after={first['next']}")[1]
    assert [i["name"] for i in rest["items"]] == ["c", "team/app:1"] and "next" not in rest
    for name in ("a", "b", "c"):
        assert here.api("DELETE", f"/v1/images/{name}")[0] == 204
    assert here.api("DELETE", "/v1/images/a")[0] == 404
    time.sleep(2.5)  # the collector comes two seconds after a removal; it must find the partitions used
    assert len(partitions(here)) == 2
    assert here.api("DELETE", "/v1/images/" + quote("team/app:1"))[0] == 204
    kinds = ("partitions/sha256", "blobs/sha256", "layers")
    deadline = time.monotonic() + 60
    while any(os.listdir(store(here) / kind) for kind in kinds) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [os.listdir(store(here) / kind) for kind in kinds] == [[], [], []]


def test_refusals(here, image):
    assert send(here, "Bad Name", b"")[0] == 400
    assert send(here, "a", b"", format="zip")[0] == 400
    assert here.api("POST", "/v1/images", {"name": "a"})[0] == 400
    assert here.api("POST", "/v1/images", {"name": "a", "source": "docker://x", "sauce": "y"})[0] == 400
    assert here.api("GET", "/v1/images/none/export")[0] == 404
    add(here, "a", image.archive())
    assert here.api("GET", "/v1/images/a/export?format=zip")[0] == 400
    status, answer = send(here, "b", b"not an archive" * 100)
    assert (finished(here, answer)["error"] if status == 202 else answer["error"])["kind"] == "corrupt"
    assert here.api("GET", "/v1/images/b")[0] == 404
    operation = here.api("POST", "/v1/images", {"name": "c", "source": "docker://UPPER/case"})[1]
    assert finished(here, operation)["error"]["kind"] == "invalid"
    wait_until_tidy(here)


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_init_is_found(here):
    base = tar({"usr/lib/systemd/systemd": b"x", "lib": link("lib", "usr/lib"), "sbin": link("sbin", "usr/sbin"),
                "usr/sbin/init": link("usr/sbin/init", "../../lib/systemd/systemd")})
    hidden = tar({"usr/lib/systemd/.wh.systemd": b""})
    opaque = tar({"usr/.wh..wh..opq": b"", "usr/bin/x": b"x"})
    busybox = tar({"bin/busybox": b"x", "sbin/init": link("sbin/init", "/bin/busybox")})
    loop = tar({"sbin/init": link("sbin/init", "init")})
    outside = tar({"sbin/init": link("sbin/init", "../../../../../../bin/sh")})
    for layers, init in (([base], True), ([tar(FILES), base, tar(FILES)], True), ([base, hidden], False),
                         ([base, opaque], False),
                         ([base, hidden, base], True), ([busybox], False), ([loop], False), ([outside], False)):
        assert add(here, "a", Image(layers).archive())["init"] is init, layers
    assert add(here, "a", busybox, format="tar", init="yes")["init"] is True
    assert add(here, "a", base, format="tar", init="no")["init"] is False


def test_name_moves_to_a_new_image(here, image):
    first = add(here, "a", image.archive())
    second = add(here, "a", Image([tar(FILES)]).archive())
    assert first["digest"] != second["digest"]
    assert here.api("GET", "/v1/images")[1]["items"][0]["digest"] == second["digest"]


def test_upload_takes_no_memory(here):
    """The store is slower than the connection: the connection waits."""
    size = 300 << 20
    block = os.urandom(1 << 20)

    def body():
        info = tarfile.TarInfo("data")
        info.size = size
        yield info.tobuf(tarfile.PAX_FORMAT)
        for _ in range(size >> 20):
            yield block
        yield bytes(1024)
    connection = Connection(here)
    connection.request("POST", "/v1/images?name=large&format=tar", body(), {"Content-Length": str(512 + size + 1024)})
    answer = json.loads(connection.getresponse().read())
    assert finished(here, answer)["state"] == "done"
    peak = [line for line in pathlib.Path(f"/proc/{here.service.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")]
    assert int(peak[0].split()[1]) < 40 << 10, peak


def test_upload_that_breaks_off(here, image):
    archive = tar({"data": os.urandom(3000000)})
    connection = Connection(here)
    connection.putrequest("POST", "/v1/images?name=half&format=tar")
    connection.putheader("Content-Length", str(len(archive)))
    connection.endheaders(archive[:1000000])
    here.wait(lambda: here.api("GET", "/v1/operations")[1]["items"])
    operation = here.api("GET", "/v1/operations")[1]["items"][0]
    assert operation["state"] == "running"
    connection.close()
    operation = finished(here, operation)
    assert operation["state"] == "cancelled", operation
    assert here.api("GET", "/v1/images/half")[0] == 404
    wait_until_tidy(here)
    assert partitions(here) == []


def begin_upload(site, name):
    """An upload whose end is not known yet: its socket takes chunks."""
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(60)
    one.connect(str(site.socket))
    one.sendall(f"POST /v1/images?name={name}&format=tar HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    return one


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def read_all(one):
    got = b""
    while True:
        try:
            more = one.recv(65536)
        except ConnectionResetError:
            more = b""
        if not more:
            return got
        got += more


def test_a_bad_upload_is_answered_at_once(here):
    """The reason comes while there is more to send: the rest of the upload is neither awaited nor read."""
    one = begin_upload(here, "bad")
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(40):  # more than is read at once, and no end
            one.sendall(chunk(b"not an archive" * 5000))
    head, body = read_all(one).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 422 ") and b"Connection: close" in head, head
    assert json.loads(body)["error"]["kind"] == "corrupt"
    operations = here.api("GET", "/v1/operations")[1]["items"]
    assert operations[-1]["state"] == "failed" and operations[-1]["error"]["kind"] == "corrupt"
    # one who goes on sending without looking gets the same answer in the end
    one = begin_upload(here, "worse")
    sent = 0
    with pytest.raises(OSError):
        while sent < 1 << 30:
            one.sendall(chunk(b"not an archive" * 5000))
            sent += 70000
    assert sent < 64 << 20 and b"422" in read_all(one)[:20]
    wait_until_tidy(here)


def test_a_cancelled_upload_is_answered_at_once(here):
    one = begin_upload(here, "slow")
    archive = tar({"big": b"x" * 5000000})
    one.sendall(chunk(archive[:1000000]))
    operation = here.wait(lambda: here.api("GET", "/v1/operations")[1]["items"])[0]
    assert here.api("POST", f"/v1/operations/{operation['id']}/cancel")[0] == 202
    head, body = read_all(one).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 409 ") and json.loads(body)["error"]["kind"] == "cancelled"
    wait_until_tidy(here)


def test_an_upload_may_pause_and_a_sender_of_half_a_request_may_not(here):
    """What makes the bytes (mmdebstrap, docker save) may think for longer than the service waits for the head of a request."""
    half = socket.socket(socket.AF_UNIX)
    half.settimeout(300)
    half.connect(str(here.socket))
    half.sendall(b"GET /v1/version HTTP/1.1\r\nHo")
    one = begin_upload(here, "pausing")
    archive = tar({"big": b"x" * 3000000})
    one.sendall(chunk(archive[:1000000]))
    assert half.recv(1) == b""  # closed: all its time went by without a byte, and the upload's silence was as long
    time.sleep(2)
    one.sendall(chunk(archive[1000000:]) + b"0\r\n\r\n")
    assert one.recv(12) == b"HTTP/1.1 202"
    here.wait(lambda: here.api("GET", "/v1/images/pausing")[0] == 200)


@pytest.mark.parametrize("limit, small, large, kind, part", [
    ("import-layer-size=1MiB", {"a": b"x" * 900000}, {"a": b"x" * 1200000}, "too-large", "1048576 bytes"),
    ("import-entries=100", {f"f{i}": b"" for i in range(90)}, {f"f{i}": b"" for i in range(120)}, "too-large", "100 entries"),
    ("import-depth=8", {"/".join("abcdefgh"): b""}, {"/".join("abcdefghi"): b""}, "corrupt", "8 deep"),
])
def test_limits_of_the_site(new_site, limit, small, large, kind, part):
    """An administrator may lower what one layer may hold: archives, layouts, and what comes back as partitions."""
    need()
    here = new_site(node=False, service_args=["--" + limit])
    free = new_site(node=False)
    add(here, "fits", tar(small), format="tar")
    add(free, "large", tar(large), format="tar")
    for body, format in ((tar(large), "tar"), (Image([tar(large)]).archive(), "oci"),
                         (export(free, "large", "partitions"), "oci")):
        status, answer = send(here, "large", body, format=format)
        error = finished(here, answer)["error"] if status == 202 else answer["error"]
        assert error["kind"] == kind and part in error["message"], error
    wait_until_tidy(here)


def test_fetch_and_cancel(here, image):
    with PlainRegistry(image) as registry:
        operation = here.api("POST", "/v1/images", {"name": "a", "source": registry.reference()})[1]
        assert finished(here, operation)["state"] == "done"
        other = Image([tar({"data": os.urandom(300000)})])
        registry.image = other
        going_on = threading.Event()

        def stuck(registry, request):
            if other.layers[0]["digest"] in request.path:
                going_on.wait(300)
            return False
        registry.lie = stuck
        operation = here.api("POST", "/v1/images", {"name": "b", "source": registry.reference()})[1]
        assert operation["state"] == "running"
        here.wait(lambda: any(other.layers[0]["digest"] in path for path, _ in registry.requests))
        assert here.api("POST", f"/v1/operations/{operation['id']}/cancel")[0] == 202
        assert finished(here, operation)["state"] == "cancelled"
        going_on.set()
    assert [i["name"] for i in here.api("GET", "/v1/images")[1]["items"]] == ["a"]


def test_password_is_kept_nowhere(here, image):
    with PlainRegistry(image) as registry:
        operation = here.api("POST", "/v1/images",
                             {"name": "a", "source": registry.reference(), "user": "u", "password": "hunter2-secret"})[1]
        assert finished(here, operation)["state"] == "done"
    for path in pathlib.Path(here.state).rglob("*"):
        if path.is_file():
            assert b"hunter2-secret" not in path.read_bytes(), path
    assert "hunter2-secret" not in here.service.log()


def test_passwords_of_the_service(new_site, image, tmp_path):
    need()

    def ask(registry, request):
        if request.headers.get("Authorization") == "Basic YWxpY2U6c2VjcmV0":
            return False
        registry.send(request, 401, b"", WWW_Authenticate='Basic realm="x"')
        return True
    with PlainRegistry(image, ask) as registry:
        (tmp_path / "passwords.json").write_text(json.dumps({"auths": {registry.address: {"auth": "YWxpY2U6c2VjcmV0"}}}))
        (tmp_path / "carreld.yaml").write_text(f"registry-passwords: {tmp_path}/passwords.json\n")
        here = new_site(node=False, service_args=["--config", tmp_path / "carreld.yaml"])
        operation = here.api("POST", "/v1/images", {"name": "a", "source": registry.reference()})[1]
        assert finished(here, operation)["state"] == "done"


def test_service_dies_during_an_import(here, image):
    going_on = threading.Event()

    def stuck(registry, request):
        if "blobs" in request.path:
            going_on.wait(300)
        return False
    with PlainRegistry(image, stuck) as registry:
        operation = here.api("POST", "/v1/images", {"name": "a", "source": registry.reference()})[1]
        here.wait(lambda: len(registry.requests) > 1)
        here.service.kill()
        going_on.set()
        here.service.start()
        assert finished(here, operation)["state"] == "failed"
        wait_until_tidy(here)
        operation = here.api("POST", "/v1/images", {"name": "a", "source": registry.reference()})[1]
        assert finished(here, operation)["state"] == "done"
    check_store(store(here))


# --- there and back ---

def listing(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {m.name.strip("./"): (m.type, m.mode, m.uid, m.gid, m.linkname, int(m.mtime),
                                     archive.extractfile(m).read() if m.isreg() else b"")
                for m in archive}


@pytest.mark.parametrize("format", ["oci", "oci-zstd", "partitions"])
def test_there_and_back(here, image, format):
    first = add(here, "a", image.archive())
    archive = export(here, "a", format)
    assert export(here, "a", format) == archive
    assert here.api("DELETE", "/v1/images/a")[0] == 204
    again = add(here, "b", archive)
    assert again["digest"] == first["digest"]
    assert again["run"] == first["run"]


def exports(site):
    return [o for o in site.api("GET", "/v1/operations?limit=1000")[1]["items"] if o["kind"] == "image-export"]


def begin_export(site, name, format):
    connection = Connection(site)
    connection.request("GET", f"/v1/images/{quote(name)}/export?format={format}")
    answer = connection.getresponse()
    assert answer.status == 200
    return connection, answer


def test_an_export_is_an_operation(here, image):
    add(here, "team/box:1", image.archive())
    size = here.api("GET", "/v1/images/" + quote("team/box:1"))[1]["size"]
    for format in ("oci", "oci-zstd", "partitions", "tar"):
        connection, answer = begin_export(here, "team/box:1", format)
        operation = answer.getheader("Carrel-Operation")
        answer.read()
        ended = finished(here, {"id": operation})
        assert ended["state"] == "done" and ended["kind"] == "image-export" and ended["image"] == "team/box:1", ended
        assert ended["progress"]["done"] == ended["progress"]["total"] == size or ended["progress"]["total"] == 0
        connection.close()
    before = len(exports(here))
    connection = Connection(here)
    connection.request("HEAD", "/v1/images/" + quote("team/box:1") + "/export")
    answer = connection.getresponse()
    assert answer.status == 200 and answer.getheader("Content-Type") == "application/x-tar" and answer.read() == b""
    assert len(exports(here)) == before


def test_exports_are_cancelled_and_left(here):
    """By a cancel the connection breaks; by a broken connection the operation is cancelled."""
    add(here, "big", Image([tar({"data": os.urandom(30 << 20)})]).archive())
    connection, answer = begin_export(here, "big", "partitions")
    answer.read(100000)
    running = exports(here)[-1]
    assert running["state"] == "running"
    assert here.api("POST", f"/v1/operations/{running['id']}/cancel")[0] == 202
    assert finished(here, running)["state"] == "cancelled"
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        answer.read()
    connection.close()
    connection, answer = begin_export(here, "big", "oci")
    answer.read(10000)
    connection.close()
    answer.close()
    left = finished(here, exports(here)[-1])
    assert left["state"] == "cancelled" and "reader" in left["error"]["message"]
    wait_until_tidy(here)
    connection, answer = begin_export(here, "big", "partitions")
    answer.read(100000)
    running = exports(here)[-1]
    here.service.kill()
    here.service.start()
    assert finished(here, running)["state"] == "failed"
    connection.close()


def test_export_flattened(here):
    lower = tar({"etc/a": b"lower", "etc/b": b"lower", "usr/c": b"lower"})
    upper = tar({"etc/.wh.a": b"", "etc/b": b"upper", "usr/.wh..wh..opq": b"", "usr/d": b"upper"})
    add(here, "a", Image([lower, upper]).archive())
    files = listing(export(here, "a", "tar"))
    assert {name for name, entry in files.items() if entry[0] == tarfile.REGTYPE} == {"etc/b", "usr/d"}
    assert files["etc/b"][-1] == b"upper"


@pytest.mark.parametrize("upper", [{".wh.d": b"", "d/new": b"n"}, {"d/new": b"n", ".wh.d": b""}])
def test_a_hidden_directory_that_comes_back_without_an_entry(here, upper):
    """A whiteout and files below it in one layer, as some tools write it: the old content is hidden, the new is there."""
    add(here, "box", Image([tar({"d/old": b"o", "e": b"e"}), tar(upper)]).archive())
    files = listing(export(here, "box", "tar"))
    assert sorted(name for name in files if name) == ["d", "d/new", "e"]
    assert files["d"][1] == 0o755
    # the partition is the one that its own export gives
    add(here, "again", export(here, "box", "oci"))
    assert here.api("GET", "/v1/images/again")[1]["partitions"] == here.api("GET", "/v1/images/box")[1]["partitions"]


def test_skopeo_reads_an_export(here, image, tmp_path):
    need("skopeo")
    add(here, "team/app:7", image.archive())
    for format in ("oci", "oci-zstd"):
        archive = tmp_path / format
        archive.write_bytes(export(here, "team/app:7", format))
        skopeo("copy", f"oci-archive:{archive}:7", f"dir:{tmp_path}/dir-{format}")
        config = json.loads(skopeo("inspect", "--config", f"oci-archive:{archive}:7").stdout)
        assert config["config"]["Cmd"] == ["/bin/sh"]


def test_through_a_real_registry(here, image, tmp_path):
    need("docker-registry", "skopeo")
    with docker_registry(tmp_path) as address:
        push(image, tmp_path, address, "team/app")
        here.carrel("image", "import", "app", f"docker://{address}/team/app")
        first = here.json("image", "show", "app")
        archive = tmp_path / "app.tar"
        here.carrel("image", "export", "app", archive)
        skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{archive}", f"docker://{address}/team/back:1")
        here.carrel("image", "import", "back", f"docker://{address}/team/back:1")
        assert here.json("image", "show", "back")["digest"] == first["digest"]


def test_partition_of_another_writer_is_refused(here, image):
    add(here, "a", image.archive())
    with tarfile.open(fileobj=io.BytesIO(export(here, "a", "partitions"))) as archive:
        files = {m.name: archive.extractfile(m).read() for m in archive}
    manifest = json.loads(files["blobs/sha256/" + json.loads(files["index.json"])["manifests"][0]["digest"][7:]])
    genuine = files["blobs/sha256/" + manifest["layers"][0]["digest"][7:]]
    forged = Image([tar(FILES)])
    for change in (b"", bytes(4096)):
        data = bytearray(genuine + change)
        if not change:
            data[len(data) // 2] ^= 1
        forged.layers = [{**manifest["layers"][0], "digest": forged.add(bytes(data)), "size": len(data)}]
        forged.manifest = forged.write_manifest()
        status, operation = send(here, "forged", forged.archive())
        assert status == 202
        assert finished(here, operation)["error"]["kind"] == "corrupt"
    forged.layers = [{**manifest["layers"][0], "digest": forged.add(genuine), "size": len(genuine)}]
    forged.manifest = forged.write_manifest()
    add(here, "genuine", forged.archive())
