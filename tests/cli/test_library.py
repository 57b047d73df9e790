# SPDX-License-Identifier: Apache-2.0
"""libcarrel as a stranger uses it: installed, found by pkg-config, compiled against, shared and static."""
import os
import pathlib
import re
import subprocess

import pytest

from conftest import BUILD

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """The library's files where `meson install` puts them."""
    folder = tmp_path_factory.mktemp("prefix")
    for name in ("lib/pkgconfig", "include/carrel"):
        (folder / name).mkdir(parents=True)
    for file in (BUILD / "src/client").glob("libcarrel.*"):
        if not file.is_dir():
            subprocess.run(["cp", "-a", file, folder / "lib"], check=True)
    subprocess.run(["cp", ROOT / "include/carrel/carrel.h", folder / "include/carrel"], check=True)
    text = (BUILD / "meson-private/libcarrel.pc").read_text()
    text = re.sub(r"(?m)^(prefix|includedir|libdir)=.*$", lambda m: f"{m[1]}=" + {"prefix": str(folder),
                                                                                  "includedir": f"{folder}/include",
                                                                                     "libdir": f"{folder}/lib"}[m[1]], text)
    (folder / "lib/pkgconfig/libcarrel.pc").write_text(text)
    return folder


def compile_with(prefix, source, output, *flags, compiler="cc"):
    env = {**os.environ, "PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig"}
    found = subprocess.run(["pkg-config", "--cflags", "--libs", *flags, "libcarrel"], env=env, capture_output=True, text=True,
                           check=True).stdout.split()
    if "--static" in flags:
        found = [f"{prefix}/lib/libcarrel.a" if f == "-lcarrel" else f for f in found]
    done = subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", str(source), "-o", str(output), *found],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def life(fake):
    asked = []
    name = "/v1/workspaces/hello"
    fake.answer("POST", "/v1/workspaces",
                lambda r: (asked.append("deploy"),
                           (201, {"id": "1" * 16, "name": r.json["spec"]["name"], "operation": "a" * 16}))[1])
    fake.answer("POST", name + "/start", lambda r: (asked.append("start"), (202, {"operation": "a" * 16}))[1])
    fake.answer("DELETE", name, lambda r: (asked.append("remove"), (202, {"id": "a" * 16, "kind": "remove"}))[1])
    fake.answer("GET", "/v1/operations/" + "a" * 16, {"id": "a" * 16, "kind": "x", "state": "done"})

    def program(stream):
        asked.append(stream.first["command"])
        stream.output(b"hello from a workspace\n")
        stream.exit(0)
    fake.stream(name + "/exec", program)
    return asked


@pytest.mark.parametrize("flags", [[], ["--static"]])
def test_the_example(prefix, fake, tmp_path, flags):
    asked = life(fake)
    compile_with(prefix, ROOT / "examples/hello.c", tmp_path / "hello", *flags)
    env = {**os.environ, "LD_LIBRARY_PATH": f"{prefix}/lib", "CARREL_ADDRESS": fake.address}
    done = subprocess.run([tmp_path / "hello", "debian"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "hello from a workspace" in done.stdout and asked == ["deploy", "start", ["echo", "hello from a workspace"],
                                                                 "remove"]
    needed = subprocess.run(["readelf", "-d", tmp_path / "hello"], capture_output=True, text=True).stdout
    assert ("libcarrel.so.0" in needed) == (not flags)
    env["CARREL_ADDRESS"] = "unix:/nonexistent"
    done = subprocess.run([tmp_path / "hello"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 9 and "does not listen" in done.stderr


def test_only_the_public_calls_are_visible_and_all_of_them(prefix):
    out = subprocess.run(["nm", "-D", "--defined-only", prefix / "lib/libcarrel.so"], capture_output=True, text=True).stdout
    visible = {line.split()[2] for line in out.splitlines()}
    header = (ROOT / "include/carrel/carrel.h").read_text()
    assert visible == set(re.findall(r"CARREL_API [^;]*?\b(carrel_\w+)\(", header))


def test_each_call_is_documented():
    header = (ROOT / "include/carrel/carrel.h").read_text()
    for call in re.finditer(r"(?m)^CARREL_API .*?\b(carrel_\w+)\(", header):
        before = header[:call.start()].rstrip()
        assert before.endswith("*/"), call[1]


def test_the_header_is_good_c_and_cxx(prefix, tmp_path):
    (tmp_path / "x.c").write_text("#include <carrel/carrel.h>\nint main(void) { return carrel_version()[0] == 0; }\n")
    compile_with(prefix, tmp_path / "x.c", tmp_path / "x", compiler="cc")
    (tmp_path / "x.cc").write_text("#include <carrel/carrel.h>\nint main() { return carrel_version()[0] == 0; }\n")
    if subprocess.run(["sh", "-c", "command -v c++"], capture_output=True).returncode == 0:
        compile_with(prefix, tmp_path / "x.cc", tmp_path / "y", compiler="c++")


USE = r"""
#include <carrel/carrel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
static long left = 300000;
static long give(void *data, char *buffer, size_t size)
{
	(void)data;
	size_t n = size < (size_t)left ? size : (size_t)left;
	memset(buffer, 'x', n);
	left -= n;
	return n;
}
static long refuse(void *data, char *buffer, size_t size) { (void)data; (void)buffer; (void)size; return -EIO; }
static long total;
static int take(void *data, const char *bytes, size_t n) { (void)data; (void)bytes; total += n; return 0; }
static int stop(void *data, const char *bytes, size_t n) { (void)data; (void)bytes; (void)n; return 1; }
static int event(void *data, const char *json) { (*(int *)data)++; printf("%s\n", json); return *(int *)data == 2; }
static void input(void *data, struct carrel_stream *s)
{
	static char block[60000];
	int *n = data;
	while (*n < 50 && (++*n, carrel_stream_write(s, block, sizeof block)))
		;
	if (*n == 50) carrel_stream_end_input(s);
}
#define CHECK(x) do { if (!(x)) { printf("line %d: %s: %s\n", __LINE__, #x, carrel_error_message(c)); return 1; } } while (0)
int main(void)
{
	struct carrel *c; char *json; int n = 0, status = -1, blocks = 0; struct carrel_stream *s;
	CHECK(carrel_open("gopher://x", &c) < 0 && !strcmp(carrel_error_kind(c), "invalid"));
	CHECK(carrel_list(c, &json) < 0);
	carrel_close(c); carrel_close(NULL); carrel_free(NULL); carrel_stream_close(NULL);
	CHECK(carrel_open(NULL, &c) == 0);
	CHECK(carrel_list(c, &json) == 0 && !strcmp(json, "[{\"name\":\"web\"}]")); carrel_free(json);
	CHECK(carrel_show(c, "absent/../x", &json) < 0 && carrel_error_exit_code(c) == 4 && !strcmp(carrel_error_kind(c), "not-found"));
	CHECK(carrel_deploy(c, "image: debian\nbad: 1\n", 0, NULL) < 0 && strstr(carrel_error_message(c), "spec:2:") && carrel_error_hint(c)[0]);
	CHECK(carrel_call(c, "POST", "/v1/x", "{", NULL) < 0 && !strcmp(carrel_error_kind(c), "invalid"));
	CHECK(carrel_copy_in(c, "web", "/in", give, NULL) == 0 && left == 0);
	CHECK(carrel_copy_in(c, "web", "/in", refuse, NULL) == -EIO);
	CHECK(carrel_copy_out(c, "web", "/out", take, NULL) == 0 && total == 120000);
	CHECK(carrel_copy_out(c, "web", "/out", stop, NULL) == -ECANCELED);
	CHECK(carrel_suspend(c, "web", &json) == 0 && !strcmp(json, "0b")); carrel_free(json);
	CHECK(carrel_suspend_check(c, "other", &json) == 0 && strstr(json, "memory")); carrel_free(json);
	total = 0;
	CHECK(carrel_export_disk(c, "web", "qcow2", take, NULL) == 0 && total == 70000);
	CHECK(carrel_export_disk(c, "web", "vdi", take, NULL) < 0 && !strcmp(carrel_error_kind(c), "invalid"));
	CHECK(carrel_events(c, 3, event, &n) == 0 && n == 2);
	left = 100000;
	CHECK(carrel_image_import(c, "a:b", "tar", give, NULL, &json) == 0 && !strcmp(json, "0a")); carrel_free(json);
	CHECK(carrel_image_export(c, "a:b", "oci", stop, NULL) < 0 && !strcmp(carrel_error_kind(c), "cancelled"));
	struct carrel_stream_calls calls = { NULL, input };
	CHECK(carrel_exec(c, "web", "{\"command\":[\"wc\"]}", &calls, &blocks, &s) == 0);
	CHECK(carrel_stream_run(s, &status) == 0 && status == 42 && blocks == 50);
	carrel_stream_close(s);
	carrel_close(c);
	return 0;
}
"""


def test_the_calls(prefix, fake, tmp_path):
    (tmp_path / "use.c").write_text(USE)
    compile_with(prefix, tmp_path / "use.c", tmp_path / "use")
    fake.answer("GET", "/v1/workspaces", {"items": [{"name": "web"}], "next": None})

    def copy_in(stream):
        stream.input_until_end()
        stream.exit(0)

    def copy_out(stream):
        for _ in range(2):
            stream.output(b"y" * 60000)
        stream.exit(0)

    def export(stream):
        if stream.first != {"format": "qcow2"}:
            stream.text({"error": {"kind": "invalid", "message": "no such format"}})
            return
        stream.output(b"d" * 60000)
        stream.output(b"d" * 10000)
        stream.exit(0)

    def count(stream):
        stream.exit(42 if len(stream.input_until_end()) == 50 * 60000 else 1)

    def feed(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"data: {\"n\":1}\n\n" * 3)
        connection.recv(1)
    fake.stream("/v1/workspaces/web/copy-in", copy_in)
    fake.stream("/v1/workspaces/web/copy-out", copy_out)
    fake.stream("/v1/workspaces/web/exec", count)
    fake.stream("/v1/workspaces/web/export", export)
    fake.answer("POST", "/v1/workspaces/web/suspend", {"operation": "0b"}, status=202)
    fake.answer("POST", "/v1/workspaces/other/suspend", {"level": "memory"})
    fake.answer("GET", "/v1/events", lambda r: (200, feed))
    fake.answer("POST", "/v1/images", {"operation": {"id": "0a"}}, status=202)
    fake.answer("GET", "/v1/images/a:b/export", b"z" * 1000)
    env = {**os.environ, "LD_LIBRARY_PATH": f"{prefix}/lib", "CARREL_ADDRESS": fake.address}
    done = subprocess.run([tmp_path / "use"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
