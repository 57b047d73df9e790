# SPDX-License-Identifier: Apache-2.0
"""
Fixtures for tests of the whole program: real processes, a real kernel, an installed tree.

  prefix        (session) folder with bin/, sbin/, libexec/ as installed: $CARREL_TEST_PREFIX, or the build folder ($CARREL_BUILD_ROOT,
                else build/) installed into a temporary one
  site          one private instance: carreld and carrel-node with state, run folder, cgroup and ids of their own. After the test it
                is taken down and the host is searched for what was left behind (mounts, loop devices, cgroups, processes)
  new_site      the same as a factory: new_site(node_args=[...], service_args=[...], env={...}, node=False, world=world), for several
  world         a small internet of network namespaces (network_tools.py); a site with world=world has its agent in there
  shared_site   one instance per test file, for tests that only look, or name what they make
  busybox       image "busybox" (Debian's busybox-static and a few links) imported into `site`; shared_busybox: into `shared_site`
  debian        image "debian" (Debian 12 with systemd, ssh, cron, ...) imported into `site`; shared_debian: into `shared_site`
  busybox_tar, debian_tar   (session) the archives these were made from
  guest_disk    (session) a disk that a machine boots, with a small Linux (disk_guest.py)
  kernel        (session) Debian's package of a cloud kernel, where machines can be booted; give_kernel(site, kernel) imports it
  criu          (session) path of a CRIU that works here
  alone_on_the_host   no other test that asks for it runs at the same time, in whatever process
  here          shared_site with the image busybox and a kernel for machines
  make_image    make_image(site, "name", {"/etc/motd": b"...", "/bin/x": (0o755, b"...")}, base="busybox"): small images of one's own

What a `site` can do:

  site.carrel("ls", "--format", "json")         runs the command line, fails the test on another exit status than `ok` (default 0);
                                                keywords: ok=(0, 2), input="text"|b"..", timeout=120, env={}, binary=False, user=UID
  site.json("show", NAME)                       the same with --format json, decoded
  site.popen("logs", "-f", NAME)                a subprocess.Popen, ended with the site
  site.api("GET", "/v1/workspaces", body=None)  one request on the socket: (status, decoded body, headers)
  site.wait(lambda: condition, timeout=30)      looks again at each event of the service; fails the test when time is over
  site.wait_state(NAME, "running")              the same for a workspace's state; returns the workspace
  site.says(NAME, "cat", "/f", until=lambda text: ...)   the output of a command in it, asked for again until it is right; a command that
                                                fails (no such file yet, no agent yet) has said nothing
  site.number(NAME, "/f", above=3)              the same for a file with a number in it that grows
  site.state, site.run, site.socket, site.address, site.cgroup, site.first_id, site.environment
  site.node, site.service                       the two processes: .pid, .stop(), .kill(), .start(), .log()

Nothing here uses fixed ports or paths, so several runs may share a machine.
"""
import contextlib
import datetime
import fcntl
import hashlib
import http.client
import io
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import urllib.parse

import pytest

import disk_guest
from guest_tools import kernel_package
from network_tools import PATIENCE, World

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("CARREL_BUILD_ROOT", ROOT / "build"))
# Generous: a loaded machine with two processors must not fail a test.
TIMEOUT = int(float(os.environ.get("CARREL_TEST_TIMEOUT", "120")) * PATIENCE)
LIMIT = 1800  # for one case, with what it needs at first
# Begun in this order, so that no long one is left for one process alone at the end.
LONGEST_FIRST = ("test_quickstart", "test_nested", "test_kvm", "test_faults", "test_move", "test_engines_alike",
                 "test_template", "test_suspend", "test_refill",
                 "test_suspend_networks", "test_suspend_packed", "test_machine_networks", "test_machine", "test_clone",
                 "test_disk_suspend",
                 "test_move_live", "test_move_live_network", "test_foreign", "test_disk_machine", "test_api_workspaces",
                 "test_network_software")
APART = ("test_faults", "test_filter", "test_images", "test_volumes")
DEBIAN_PACKAGES = "systemd-sysv,dbus,openssh-server,cron,iproute2,procps,less,nano"
# One larger system for all tests of real services.
SERVICES = ("systemd-sysv,dbus,openssh-server,openssh-client,cron,iproute2,procps,less,nano,postgresql,nginx-light,openvpn,"
            "openssl,curl,iputils-ping,"
            "nftables")
BUSYBOX_LINKS = ("sh ls cat echo true false sleep id ps mount umount touch rm mkdir rmdir ln cp mv chmod chown head tail wc "
                 "grep sed awk "
                 "wget nslookup tr cut sort uniq env printf test [ dd df du hostname uname kill killall nproc seq stat sync "
                 "tar vi top free tee "
                 "readlink date find xargs sha256sum md5sum stty tty who whoami yes nc ping ip ifconfig mknod expr basename "
                 "dirname "
                 "usleep timeout setsid watch od hexdump diff cmp su login adduser truncate mkfifo dmesg insmod reboot "
                 "poweroff halt").split()


def pytest_collection_modifyitems(items):
    first = {name: at for at, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: first.get(item.path.stem, len(first)))
    if os.geteuid() != 0:
        skip = pytest.mark.skip(reason="needs root: namespaces, mounts and cgroups of whole workspaces are made")
        for item in items:
            item.add_marker(skip)


def _too_long(*_):
    raise AssertionError(f"it has not ended after {LIMIT} s")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol():
    """A case that hangs fails, and says where."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Files are what several processes share out: whole, as their cases share a site, but for those whose cases have sites of their own."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return nodeid if pathlib.PurePath(file).stem in APART else file
    return Files(config, log)


# --- processes ---


class Daemon:
    """A program of ours in the foreground; ready when it says so (sd_notify)."""

    def __init__(self, site, name, arguments, env):
        self.site, self.name, self.arguments, self.env = site, name, [str(a) for a in arguments], env
        self.log_path = site.folder / (name + ".log")
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def start(self, timeout=TIMEOUT):
        path = self.site.folder / (self.name + ".notify")
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify, open(self.log_path, "ab") as log:
            notify.bind(str(path))
            notify.settimeout(0.2)
            self.process = subprocess.Popen(self.arguments, env={**self.env, "NOTIFY_SOCKET": str(path)},
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            deadline = time.monotonic() + timeout
            while True:
                try:
                    if b"READY=1" in notify.recv(4096):
                        break
                except TimeoutError:
                    pass
                if self.process.poll() is not None:
                    raise AssertionError(f"{self.name} ended with {self.process.returncode} before it was ready:\n{self.log()}")
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.name} was not ready after {timeout} s:\n{self.log()}")
        path.unlink(missing_ok=True)
        return self

    def running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, timeout=TIMEOUT):
        """SIGTERM; returns the exit status."""
        if self.running():
            self.process.terminate()
        return self.process.wait(timeout) if self.process else None

    def kill(self):
        if self.running():
            self.process.kill()
        return self.process.wait(30) if self.process else None

    def log(self):
        with contextlib.suppress(FileNotFoundError):
            return self.log_path.read_text(errors="replace")[-20000:]
        return ""


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


# --- what a host holds, for finding what was left behind ---


def host_mounts(text):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
        return [line.rstrip() for line in f if text in line]


def host_loops(text):
    found = []
    for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if text in path.read_text():
                found.append(f"{path.parts[3]}: {path.read_text().strip()}")
    return found


def host_cgroups(name):
    found = []
    for mount in cgroup_mounts():
        for folder, folders, _ in os.walk(mount):
            found += [os.path.join(folder, f) for f in folders if f == name]
            if folder.count("/") - mount.count("/") > 3:
                folders.clear()
    return found


def cgroup_mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        lines = [line.split() for line in f]
    return [words[4] for words in lines if words[words.index("-") + 1] in ("cgroup", "cgroup2")]


def host_processes(text, first_id=None, count=0, cgroup=""):
    """Processes that name `text` on their command line, or whose user is in the range (and who are in a cgroup of that name)."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError, ValueError):
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            uid = entry.stat().st_uid
            ours = first_id is not None and first_id <= uid < first_id + count and cgroup in (entry / "cgroup").read_text()
            if text in line or ours:
                state = [s for s in (entry / "status").read_text().splitlines() if s.startswith("State")]
                if "Z" not in state[0]:
                    found.append(f"{entry.name} (uid {uid}): {line}")
    return found


# --- an instance ---


def reserve_ids(count):
    """A range of ids that no other instance of these tests has now: a name in the abstract socket namespace is the lock."""
    for slot in random.sample(range(8, 100), 92):
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0carrel-test-ids-{slot}")
        except OSError:
            lock.close()
            continue
        return slot * count, lock
    raise AssertionError("all id ranges of tests are taken")


class Site:
    IDS = 65536 * 256  # ids that one instance may hand out in a test

    def __init__(self, prefix, node_args=(), service_args=(), env=None, node=True, world=None):
        self.prefix = pathlib.Path(prefix)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="carrel-test-", dir=os.environ.get("CARREL_TEST_DIR", "/var/tmp")))
        self.folder.chmod(0o755)
        self.state, self.run = self.folder / "state", self.folder / "run"
        self.socket = self.run / "carreld.sock"
        self.address = f"unix:{self.socket}"
        self.cgroup = self.folder.name.replace("_", "0")
        self.first_id, self.id_lock = reserve_ids(self.IDS)
        self.environment = {**os.environ, "CARREL_PREFIX": str(prefix), "CARREL_ADDRESS": self.address, "LC_ALL": "C.UTF-8",
                            **(env or {})}
        self.children = []
        common = ["--state", self.state, "--run", self.run, "--config", self.folder / "none.yaml"]
        (self.folder / "none.yaml").write_text("{}\n")
        self.service = Daemon(self, "carreld", [self.program("carreld"), *common, *service_args], self.environment)
        self.enter = world.enter("host") if world else []
        self.node = Daemon(self, "carrel-node", [*self.enter, self.program("carrel-node"), *common, "--cgroup", self.cgroup,
                                                 "--first-id", self.first_id, "--id-ranges", self.IDS // 65536, *node_args],
                           self.environment)
        try:
            self.service.start()
            if node:
                self.node.start()
                # ready is not connected yet: it looks at its host first
                self.wait(lambda: any(h["connected"] for h in self.api("GET", "/v1/hosts")[1]["items"]),
                          what="the host's connection")
        except BaseException:
            self.abandon()
            raise

    def program(self, name):
        for folder in ("bin", "sbin", "libexec/carrel"):
            if (self.prefix / folder / name).exists():
                return str(self.prefix / folder / name)
        raise AssertionError(f"{name} is not installed below {self.prefix}")

    # the command line

    def carrel(self, *arguments, ok=(0,), input=None, timeout=TIMEOUT, env=None, binary=False, user=None):
        given, begun = {} if input is not None else {"stdin": subprocess.DEVNULL}, time.monotonic()
        done = subprocess.run([self.program("carrel"), *map(str, arguments)], env={**self.environment, **(env or {})},
                              input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout, user=user,
                              text=not binary, errors=None if binary else "replace", **given)
        # seen when the case fails
        print(f"{time.strftime('%H:%M:%S')} {done.returncode} after {time.monotonic() - begun:.2f} s: carrel "
              f"{' '.join(map(str, arguments))}"[:300])
        if ok is not None and done.returncode not in (ok if isinstance(ok, (tuple, list, set, range)) else (ok,)):
            raise AssertionError(f"carrel {' '.join(map(str, arguments))}: exit status {done.returncode}\n--- stdout\n"
                                 f"{done.stdout}\n"
                                 f"--- stderr\n{done.stderr}\n--- carreld\n{self.service.log()[-3000:]}\n--- carrel-node\n"
                                 f"{self.node.log()[-3000:]}")
        return done

    def json(self, *arguments, **how):
        words = [str(a) for a in arguments]
        at = words.index("--") if "--" in words else len(words)
        return json.loads(self.carrel(*words[:at], "--format", "json", *words[at:], **how).stdout)

    def popen(self, *arguments, **how):
        how.setdefault("env", self.environment)
        for stream in ("stdin", "stdout", "stderr"):
            how.setdefault(stream, subprocess.PIPE)
        child = subprocess.Popen([self.program("carrel"), *map(str, arguments)], **how)
        self.children.append(child)
        return child

    # the API

    def api(self, method, path, body=None, headers=None, timeout=TIMEOUT):
        connection = UnixConnection(self.socket, timeout)
        with contextlib.closing(connection):
            data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
            sent = dict(headers or {})
            if data is not None and "Content-Type" not in sent:
                sent["Content-Type"] = "application/json"
            connection.request(method, path, body=data, headers=sent)
            answer = connection.getresponse()
            content = answer.read()
            with contextlib.suppress(ValueError):
                content = json.loads(content)
            return answer.status, content, dict(answer.getheaders())

    def workspace(self, reference):
        status, body, _ = self.api("GET", "/v1/workspaces/" + urllib.parse.quote(str(reference), safe=""))
        return body if status == 200 else None

    def wait(self, condition, timeout=TIMEOUT, what="the condition"):
        deadline = time.monotonic() + timeout
        with contextlib.closing(self._events()) as events:
            while True:
                value = condition()
                if value:
                    return value
                if time.monotonic() > deadline:
                    raise AssertionError(f"{what} did not come true within {timeout} s\n--- carreld\n"
                                         f"{self.service.log()[-3000:]}\n"
                                         f"--- carrel-node\n{self.node.log()[-3000:]}")
                next(events)

    def _events(self):
        """Yields at each event of the service, soon after the first time, and at least five times a second."""
        connection, patience = None, 0.02
        try:
            while True:
                try:
                    if connection is None:
                        connection = UnixConnection(self.socket, patience)
                        connection.request("GET", "/v1/events?follow=1")
                        stream = connection.getresponse()
                    if not (stream.fp and stream.fp.readline()):  # the service ended, or refused
                        connection.close()
                        connection = None
                        time.sleep(0.05)
                except TimeoutError:
                    # a buffered reader that timed out reads no further: take a new one
                    patience = min(patience * 1.5, 0.2)
                    connection.close()
                    connection = None
                except (OSError, http.client.HTTPException):
                    if connection:
                        connection.close()
                    connection = None
                    time.sleep(0.05)  # the service is away: nothing can tell us
                yield
        finally:
            if connection:
                connection.close()

    def wait_state(self, reference, *states, timeout=TIMEOUT):
        seen = {}

        def reached():
            seen["now"] = self.workspace(reference)
            return seen["now"] and seen["now"]["state"] in states and seen["now"]
        try:
            return self.wait(reached, timeout, f"state {' or '.join(states)} of {reference}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- last seen: {seen.get('now')}") from None

    def says(self, name, *command, until=bool, timeout=TIMEOUT):
        heard = {}

        def right():
            done = self.carrel("exec", name, "--", *command, ok=None)
            heard["last"] = done.stdout + done.stderr
            with contextlib.suppress(ValueError, IndexError):  # not written to the end
                return done.returncode == 0 and until(done.stdout) and (done.stdout,)
            return None
        try:
            return self.wait(right, timeout, f"what {' '.join(map(str, command))} says in {name}")[0]
        except AssertionError as error:
            raise AssertionError(f"{error}\n--- last heard: {heard.get('last')!r}\n"
                                 f"--- last seen: {self.workspace(name)}") from None

    def number(self, name, path, above=-1, timeout=TIMEOUT):
        return int(self.says(name, "cat", path, until=lambda text: int(text) > above, timeout=timeout))

    # the end

    def ids(self):
        return (self.first_id, self.IDS)

    def close(self):
        """Removes everything through the front door, ends both daemons, and returns what is left on the host."""
        problems = []
        for child in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream:
                    stream.close()
        try:
            for daemon in (self.service, self.node):
                if not daemon.running():
                    daemon.start()
            _, listing, _ = self.api("GET", "/v1/workspaces?limit=1000")
            for item in listing["items"]:
                self.api("DELETE", f"/v1/workspaces/{item['id']}?force=1")
            self.wait(lambda: not self.api("GET", "/v1/workspaces?limit=1000")[1]["items"], what="removal of all workspaces")
        except Exception as error:  # told below, after the host was cleaned
            problems.append(f"taking down: {error}")
        for daemon in (self.node, self.service):
            try:
                status = daemon.stop()
                if status not in (0, None):
                    problems.append(f"{daemon.name} ended with {status}:\n{daemon.log()[-3000:]}")
            except subprocess.TimeoutExpired:
                problems.append(f"{daemon.name} did not end after SIGTERM")
                daemon.kill()
        clean = subprocess.run([*self.node.arguments, "--clean"], env=self.environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               timeout=TIMEOUT)
        if clean.returncode:
            problems.append(f"carrel-node --clean: {clean.returncode}: {clean.stdout[-2000:]}")
        problems += self.leftovers()
        self.abandon()
        return problems

    def leftovers(self):
        own = str(self.folder)
        return ([f"mount: {m}" for m in host_mounts(own)] + [f"loop device: {d}" for d in host_loops(own)]
                + [f"cgroup: {c}" for c in host_cgroups(self.cgroup)]
                + [f"process: {p}" for p in host_processes(own, *self.ids(), self.cgroup)])

    def abandon(self):
        """By force, whatever state things are in; only what carries this instance's name."""
        for daemon in (self.node, self.service):
            if daemon.process:
                daemon.kill()
        for entry in host_processes(str(self.folder), *self.ids(), self.cgroup):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.split()[0]), signal.SIGKILL)
        for line in reversed(host_mounts(str(self.folder))):
            subprocess.run(["umount", "-l", line.split()[4]], check=False, stderr=subprocess.DEVNULL)
        for folder in host_cgroups(self.cgroup):
            for path, _, _ in sorted(os.walk(folder), reverse=True):
                with contextlib.suppress(OSError):
                    os.rmdir(path)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.id_lock.close()


# --- fixtures ---


@pytest.fixture
def alone_on_the_host():
    """For tests that change or compare what all share, as the host's users: one at a time."""
    with locked("host.lock"):
        yield


@pytest.fixture
def world():
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="session")
def prefix():
    given = os.environ.get("CARREL_TEST_PREFIX")
    if given:
        yield pathlib.Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="carrel-test-prefix-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        done = subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", folder],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, (f"meson install of {BUILD} (build it first, or name another by CARREL_BUILD_ROOT): "
                                      f"{done.stdout}")
        found = [p.parent.parent for p in pathlib.Path(folder).glob("**/bin/carrel")]
        assert found, f"{BUILD} installs no bin/carrel"
        yield found[0]


def _factory(prefix, request):
    made = []

    def make(**how):
        made.append(Site(prefix, **how))
        return made[-1]
    yield make
    problems = []
    for one in made:
        logs = f"--- carreld\n{one.service.log()[-2000:]}\n--- carrel-node\n{one.node.log()[-2000:]}"
        found = one.close()
        if found:
            problems += [*found, logs]
    assert not problems, "left behind:\n" + "\n".join(problems)


@pytest.fixture
def new_site(prefix, request):
    yield from _factory(prefix, request)


@pytest.fixture(scope="module")
def new_module_site(prefix, request):
    yield from _factory(prefix, request)


@pytest.fixture
def site(new_site):
    return new_site()


@pytest.fixture(scope="module")
def shared_site(new_module_site):
    return new_module_site()


def tar_entry(archive, name, content=b"", mode=0o644, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name.lstrip("/"))
    info.mode, info.type, info.linkname, info.size, info.mtime = mode, kind, link, len(content), 1700000000
    archive.addfile(info, io.BytesIO(content))


def add_busybox(archive):
    for folder in ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin", "var", "var/tmp",
                   "home"):
        tar_entry(archive, folder, mode=0o1777 if folder.endswith("tmp") else 0o755, kind=tarfile.DIRTYPE)
    program = shutil.which("busybox")
    if not program:
        pytest.skip("no busybox (Debian package busybox-static)")
    with open(program, "rb") as f:
        tar_entry(archive, "bin/busybox", f.read(), 0o755)
    for name in BUSYBOX_LINKS:
        tar_entry(archive, "bin/" + name, kind=tarfile.SYMTYPE, link="busybox", mode=0o777)
    tar_entry(archive, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nreader:x:1000:1000:Reader:/home:/bin/sh\n")
    tar_entry(archive, "etc/group", b"root:x:0:\nreader:x:1000:\n")


@pytest.fixture(scope="session")
def busybox_tar(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "busybox.tar"
    with tarfile.open(path, "w") as archive:
        add_busybox(archive)
    return path


def cache_folder():
    folder = pathlib.Path(os.environ.get("CARREL_TEST_CACHE", "/var/tmp/carrel-test-cache"))
    folder.mkdir(mode=0o700, exist_ok=True)
    assert folder.stat().st_uid == os.geteuid(), f"{folder} belongs to somebody else"
    return folder


def build_debian(packages, mode="root", hooks=()):
    """A Debian 12 with these packages as a tar; made once a day on one machine, kept in the cache folder."""
    key = hashlib.sha256(repr((packages, tuple(hooks), datetime.date.today())).encode()).hexdigest()[:16]
    path = cache_folder() / f"debian-{key}.tar"
    lock = open(cache_folder() / f"{key}.lock", "w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path
        if not shutil.which("mmdebstrap"):
            pytest.skip("no mmdebstrap")
        part = path.with_suffix(".part")
        done = subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--mode=" + mode, "--format=tar",
                               "--include=" + packages,
                               *hooks, "bookworm", part], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=900)
        if done.returncode:
            part.unlink(missing_ok=True)
            pytest.skip("no Debian could be built (is a mirror reachable?): " + done.stdout.strip().splitlines()[-1])
        part.rename(path)
        for old in cache_folder().glob("debian-*.tar"):
            if time.time() - old.stat().st_mtime > 2 * 86400:
                old.unlink(missing_ok=True)
    return path


@pytest.fixture(scope="session")
def debian_tar():
    return build_debian(DEBIAN_PACKAGES)


def import_image(site, name, path):
    site.carrel("image", "import", name, path, timeout=300)
    return name


@pytest.fixture
def busybox(site, busybox_tar):
    return import_image(site, "busybox", busybox_tar)


@pytest.fixture(scope="module")
def shared_busybox(shared_site, busybox_tar):
    return import_image(shared_site, "busybox", busybox_tar)


@pytest.fixture
def debian(site, debian_tar):
    return import_image(site, "debian", debian_tar)


@pytest.fixture(scope="module")
def shared_debian(shared_site, debian_tar):
    return import_image(shared_site, "debian", debian_tar)


@pytest.fixture(scope="session")
def guest_disk(tmp_path_factory):
    """A small Linux on a disk of its own (disk_guest.py)."""
    reason = disk_guest.missing()
    if reason:
        pytest.skip(reason)
    return disk_guest.make(tmp_path_factory.mktemp("guest"))


@pytest.fixture(scope="session")
def kernel_deb():
    """Debian's cloud kernel, for tests that boot no machine."""
    found = kernel_package()
    if not found:
        pytest.skip("apt-get download of a cloud kernel does not work here")
    return found


@pytest.fixture(scope="session")
def kernel(kernel_deb):
    """The same for tests that boot machines."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu-system-x86 is not installed")
    return kernel_deb


@contextlib.contextmanager
def locked(name):
    with open(cache_folder() / name, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def prepared_kernel(prefix, package):
    """The partition that this build makes of the package, which is imported in a third of the time; made once for all tests."""
    programs = [prefix / "libexec/carrel" / name for name in ("carrel-import", "carrel-convert")]
    key = hashlib.sha256(b"".join([package.name.encode(), *(p.read_bytes() for p in programs)])).hexdigest()[:16]
    path = cache_folder() / f"kernel-{key}.oci"
    with locked("kernel.lock"):
        if not path.exists():
            for old in cache_folder().glob("kernel-*.oci"):
                if time.time() - old.stat().st_mtime > 86400:
                    old.unlink()
            site = Site(prefix, node=False)
            try:
                site.carrel("kernel", "import", "linux", package, timeout=600)
                site.carrel("image", "export", "--format-image", "partitions", "linux", path, timeout=600)
                site.service.stop()
            finally:
                site.abandon()
    return path


def give_kernel(site, package):
    if site.api("GET", "/v1/kernels/linux")[0] == 404:
        site.carrel("image", "import", "linux", prepared_kernel(site.prefix, package), timeout=300)
    return site


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """The file that tells `machine_site` where to fail: CARREL_FAULTS."""
    return tmp_path_factory.mktemp("faults") / "plan"


@pytest.fixture(scope="module")
def machine_site(kernel, new_module_site, busybox_tar, faults):
    """A site with a kernel and the busybox image, whose programs fail where `faults` says."""
    site = new_module_site(env={"CARREL_FAULTS": str(faults)})
    import_image(site, "busybox", busybox_tar)
    return give_kernel(site, kernel)


def find_criu():
    given = os.environ.get("CARREL_CRIU")
    if given:
        return given
    folder = cache_folder() / "criu"
    if not (folder / "criu").exists():
        done = subprocess.run([ROOT / "tools/get-criu", folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=300)
        if done.returncode:
            pytest.skip(f"no CRIU: {done.stdout[-300:]}")
    return str(folder / "criu")


@pytest.fixture(scope="session")
def criu(prefix):
    path = find_criu()
    done = subprocess.run([prefix / "libexec/carrel/carrel-checkpoint", "probe", "/tmp"],
                          env={**os.environ, "CARREL_CRIU": path},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    if done.returncode:
        pytest.skip(f"CRIU does not work on this kernel: {done.stdout}")
    return path


@pytest.fixture
def here(kernel, shared_site, shared_busybox):
    return give_kernel(shared_site, kernel)


@pytest.fixture
def make_image(tmp_path):
    def make(site, name, files, base="busybox"):
        path = tmp_path / f"{name}.tar"
        with tarfile.open(path, "w") as archive:
            if base == "busybox":
                add_busybox(archive)
            folders = {str(p).lstrip("/") for f in files for p in pathlib.PurePosixPath(f).parents} - {"", "."}
            known = set(archive.getnames())
            for folder in sorted(folders - known):
                tar_entry(archive, folder, mode=0o755, kind=tarfile.DIRTYPE)
            for target, content in files.items():
                mode, content = content if isinstance(content, tuple) else (0o644, content)
                if isinstance(content, str):
                    tar_entry(archive, target, kind=tarfile.SYMTYPE, link=content, mode=0o777)
                else:
                    tar_entry(archive, target, content, mode)
        return import_image(site, name, path)
    return make
