# SPDX-License-Identifier: Apache-2.0
"""
What benches share: an instance of ours (the fixtures' own Site, from a release build's prefix when $CARREL_TEST_PREFIX names one), the
peers, and honest measuring: everything in one run, interleaved, medians.

crun, and podman with it, refuse a host with v1 and v2 trees side by side. There they are run in a mount namespace in which the v2
tree is unmounted; `unshare` costs them nothing, because it happens once, outside of the measured time (a shell inside is told what to
run and answers with the time).
"""
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
SMOKE = "--smoke" in sys.argv


def skip(reason):
    print(f"skip\t{reason}")
    sys.exit(77)


def row(what, value, unit):
    print(f"row\t{what}\t{value:.6g}\t{unit}", flush=True)


def ratio(what, value, limit="-"):
    print(f"ratio\t{what}\t{value:.4g}\t{limit}", flush=True)


def note(text):
    print(f"note\t{text}", flush=True)


@contextlib.contextmanager
def our_site(**how):
    """A private instance with the busybox image imported."""
    import conftest
    if os.geteuid() != 0:
        skip("needs root: namespaces, mounts and cgroups are made")
    with tempfile.TemporaryDirectory(prefix="carrel-bench-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o755)
        prefix = os.environ.get("CARREL_TEST_PREFIX")
        if not prefix:
            subprocess.run(["meson", "install", "-C", conftest.BUILD, "--no-rebuild", "--quiet", "--destdir", folder],
                           check=True, stdout=subprocess.DEVNULL)
            prefix = str(next(pathlib.Path(folder).glob("**/bin/carrel")).parent.parent)
        site = conftest.Site(prefix, **how)
        try:
            tar = pathlib.Path(folder) / "busybox.tar"
            with tarfile.open(tar, "w") as archive:
                conftest.add_busybox(archive)
            conftest.import_image(site, "busybox", tar)
            site.bench_tar = tar
            yield site
        finally:
            problems = site.close()
            if problems:
                note("left behind: " + "; ".join(problems)[:300])


def build_kind():
    """How the measured programs were built."""
    import conftest
    with contextlib.suppress(OSError, ValueError):
        options = json.loads(subprocess.run(["meson", "introspect", str(conftest.BUILD), "--buildoptions"], capture_output=True,
                                            text=True).stdout)
        return next(o["value"] for o in options if o["name"] == "buildtype")
    return "unknown"


class Hidden:
    """A shell in a mount namespace without the v2 tree, where crun and podman accept this host."""

    def __init__(self, hide=True):
        script = ("umount /sys/fs/cgroup/unified 2>/dev/null; " if hide
                  else "") + "while read -r line; do eval \"$line\"; echo \"status $?\"; done"
        self.shell = subprocess.Popen(["unshare", "-m", "--propagation", "private", "bash", "-c", script],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def run(self, command):
        """Runs a line; returns (status, output)."""
        self.shell.stdin.write(command + "\n")
        self.shell.stdin.flush()
        out = []
        while True:
            line = self.shell.stdout.readline()
            if not line:
                raise RuntimeError("the shell ended")
            if line.startswith("status "):
                return int(line.split()[1]), "".join(out)
            out.append(line)

    def close(self):
        self.shell.stdin.close()
        self.shell.wait(10)


def hybrid():
    return os.path.ismount("/sys/fs/cgroup/unified")


def bundle(folder, tar, runtime, command):
    """An OCI bundle of the same files."""
    folder.mkdir()
    (folder / "rootfs").mkdir()
    with tarfile.open(tar) as archive:
        archive.extractall(folder / "rootfs")
    subprocess.run([runtime, "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = command
    # Raising limits needs CAP_SYS_RESOURCE, which not every root has.
    config["process"].pop("rlimits", None)
    (folder / "config.json").write_text(json.dumps(config))


def interleaved(contestants, rounds):
    """{name: callable} -> {name: median seconds}; the order turns with each round."""
    times, names = {n: [] for n in contestants}, list(contestants)
    for name in names:
        contestants[name]()  # warm
    for turn in range(rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            begun = time.perf_counter()
            contestants[name]()
            times[name].append(time.perf_counter() - begun)
    return {n: statistics.median(t) for n, t in times.items()}


def spawn(command, env=None):
    """One program, started and awaited with as little of our own as Python has (posix_spawn)."""
    null = os.open("/dev/null", os.O_RDWR)
    try:
        pid = os.posix_spawnp(command[0], command, env or os.environ,
                              file_actions=[(os.POSIX_SPAWN_DUP2, null, f) for f in (0, 1, 2)])
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(null)
    if status:
        raise RuntimeError(f"{' '.join(command)}: {status}")


have = shutil.which
