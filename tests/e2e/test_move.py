# SPDX-License-Identifier: Apache-2.0
"""A workspace changes its engine and keeps everything: files of every kind, identity, snapshots; volumes that guests wrote are not trusted."""
import json
import os
import random
import shutil
import signal
import subprocess
import uuid

import pytest

from conftest import give_kernel, import_image

TREE = r"""
use strict;
my %number = (mknod => 133, setxattr => 188);
sub put { my ($path, $text) = @_; open(my $f, '>', $path) or die "$path: $!"; print $f $text; close $f; }
sub attribute { my ($path, $name, $value) = @_; syscall($number{setxattr}, $path, $name, $value, length $value, 0) == 0 or print "no $name: $!\n"; }
my $side = shift;
mkdir "/tree"; my $t = "/tree/$side"; mkdir $t;
put("$t/plain", "plain of $side\n");
put("$t/large", join('', map { chr(($_ * 7) % 251) } 0 .. 99999) x 10);
open(my $sparse, '>', "$t/sparse"); seek $sparse, 5 << 20, 0; print $sparse "end"; close $sparse;
put("$t/empty", "");
link "$t/plain", "$t/hard1"; mkdir "$t/deep"; link "$t/plain", "$t/deep/hard2";
symlink "../nowhere \x{e9}", "$t/dangling"; symlink "plain", "$t/link"; symlink "x" x 200, "$t/long-link";
for my $mode (0000, 0400, 0644, 0755, 04755, 02755, 06711, 0666) { my $n = sprintf "$t/mode-%04o", $mode; put($n, $n); chmod $mode, $n; }
mkdir "$t/sticky"; chmod 01777, "$t/sticky"; mkdir "$t/setgid"; chmod 02775, "$t/setgid";
for my $owner ([0, 0], [1, 2], [1000, 1000], [65534, 65534], [12345, 54321]) { my $n = "$t/owner-$$owner[0]"; put($n, "x"); chown @$owner, $n; }
put("$t/attributes", "x"); attribute("$t/attributes", "user.note", "of $side"); attribute("$t/attributes", "user.empty", "");
attribute("$t/attributes", "user.long", "v" x 3000); mkdir "$t/dir-attributes"; attribute("$t/dir-attributes", "user.on-folder", "yes");
put("$t/capable", "x"); chmod 0755, "$t/capable";
attribute("$t/capable", "security.capability", pack("V5", 0x02000001, 1 << 10, 1 << 10, 0, 0));
syscall($number{mknod}, "$t/fifo", 0010644, 0) == 0 or print "no fifo: $!\n";
syscall($number{mknod}, "$t/socket", 0140755, 0) == 0 or print "no socket: $!\n";
put("$t/name with \n newline and \x{ff}", "odd"); put("$t/" . "n" x 255, "long");
for (1 .. 500) { mkdir "$t/many" if $_ == 1; put("$t/many/$_", $_); }
utime 1234567890, 1234567890, "$t/plain", "$t/many";
# changes to what the image brought: removed, replaced, emptied and filled again, renamed, another mode
if ($side eq 'a') {
	unlink "/etc/debian_version"; put("/etc/issue", "changed by $side\n"); chmod 0600, "/etc/profile";
	system("rm -rf /usr/share/perl5; mkdir /usr/share/perl5; echo new > /usr/share/perl5/only");
	system("rm -rf /etc/apt"); system("mv /etc/skel /etc/skeleton"); rename "/etc/shells", "/etc/shells.old"; chown 5, 6, "/etc/bash.bashrc";
} else {
	put("/etc/debian_version", "back again\n"); unlink "/etc/issue"; system("rm -rf /etc/skeleton; mkdir /etc/apt; echo x > /etc/apt/one");
	unlink "/tree/a/deep/hard2"; rename "/tree/a/many", "/tree/a/more"; put("/tree/a/hard1", "through the link\n");
}
"""

SCAN = r"""
use strict;
my (%seen, $count); my $room = "\0" x 65536;
sub attributes {
	my ($path) = @_; my $n = syscall(195, $path, $room, length $room); my $out = '';
	return '' if $n <= 0;
	for my $name (sort split /\0/, substr($room, 0, $n)) {
		my $l = syscall(192, $path, $name, my $value = "\0" x 65536, 65536);
		$out .= " $name=" . ($l >= 0 ? unpack('H*', substr($value, 0, $l)) : "?");
	}
	return $out;
}
sub look {
	my ($path) = @_; my @s = lstat $path; my $kind = $s[2] & 0170000; my $more = '';
	my $group = $kind != 0040000 && $s[3] > 1 ? ($seen{$s[1]} ||= $path) : '';
	if ($kind == 0120000) { $more = readlink $path; }
	elsif ($kind == 0100000 && open(my $f, '<', $path)) { local $/; my $all = <$f>; $more = unpack('%32C*', $all) . ':' . length $all; }
	my $length = $kind == 0040000 ? 0 : $s[7]; my $links = $kind == 0040000 ? 0 : $s[3];
	my $line = sprintf "%s %o %d:%d %d %d %d %s %s%s", $path, $s[2], $s[4], $s[5], $links, $length, $kind == 0040000 ? 0 : $s[9], $group, $more, attributes($path);
	$line =~ s/([^ -~])/sprintf '\\%02x', ord $1/ge; print "$line\n";
	return if $kind != 0040000;
	opendir(my $d, $path) or return; my @names = sort grep { $_ ne '.' && $_ ne '..' } readdir $d; closedir $d;
	look("$path/$_") for @names;
}
look($_) for @ARGV;
"""
PLACES = ("/tree", "/etc", "/usr/share/perl5", "/home", "/opt", "/root", "/var/lib/dpkg")
# what each start writes anew
OURS = ("/etc/hostname ", "/etc/hosts ", "/etc/resolv.conf ", "/etc/mtab ", "/etc/machine-id ", "/etc ")


@pytest.fixture
def name():
    return "v" + uuid.uuid4().hex[:8]


def run(site, name, *command, image="busybox", options=()):
    site.carrel("run", "-d", "--network", "none", "--name", name, *options, image, "--", *command)
    site.wait_state(name, "running")


def inside(site, name, *command, **how):
    return site.carrel("exec", name, "--", *command, **how).stdout


def move(site, name, engine, *options, **how):
    done = site.carrel("move", name, "--engine", engine, *options, timeout=180, **how)
    return done


def engine_of(site, name):
    return site.workspace(name)["engine"]


def volume(site, name, which="root"):
    return site.state / "node/workspaces" / site.workspace(name)["id"] / f"volumes/{which}.ext4"


def is_marked(path):
    return "trusted.carrel.guest" in os.listxattr(path)


def test_files_and_identity_stay(here, name):
    run(here, name, "sleep", "100000", options=("--label", "team=blue", "--memory", "300M", "--volume", "data:32M:/data"))
    first = here.workspace(name)
    inside(here, name, "sh", "-c", "echo namespaces > /one; echo data > /data/one; hostname > /names; cat /etc/machine-id >> "
                                   "/names 2>/dev/null; true")
    names, release = inside(here, name, "cat", "/names"), inside(here, name, "uname", "-r")
    move(here, name, "emulator")
    now = here.wait_state(name, "running")
    assert now["engine"] == "emulator" and now["spec"]["engine"] == "emulator"
    assert inside(here, name, "uname", "-r") != release, "a kernel of its own"
    assert inside(here, name, "cat", "/one", "/data/one") == "namespaces\ndata\n"
    assert inside(here, name, "hostname") == names.splitlines()[0] + "\n"
    inside(here, name, "sh", "-c", "echo machine > /two; echo more >> /data/one; mknod /node c 1 3; rm -f /etc/passwd; mkdir "
                                   "/made; ln /two /made/two; sync")
    for which in ("root", "data"):
        assert is_marked(volume(here, name, which))
    assert "checked" in move(here, name, "workspace").stderr, "it says which way it takes"
    now = here.wait_state(name, "running")
    assert now["engine"] == "workspace"
    assert inside(here, name, "uname", "-r") == release
    assert inside(here, name, "cat", "/one", "/two", "/made/two", "/data/one") == "namespaces\nmachine\nmachine\ndata\nmore\n"
    assert inside(here, name, "sh", "-c", "test -e /etc/passwd; echo $?") == "1\n"
    assert here.carrel("exec", name, "--", "sh", "-c", "cat < /node",
                       ok=None).returncode != 0, "a device that a guest made opens nothing"
    assert not is_marked(volume(here, name)), "checked, and written by this host since"
    for key in ("id", "name", "created", "interfaces", "snapshots"):
        assert now[key] == first[key]
    assert {**now["spec"], "engine": None} == {**first["spec"], "engine": None}
    here.carrel("rm", "-f", name)


def test_a_stopped_workspace_starts_on_the_other_engine(here, name):
    run(here, name, "sh", "-c", "echo $RANDOM >> /runs; sync; sleep 100000")

    def runs(count):
        here.says(name, "cat", "/runs", until=lambda text: len(text.split()) == count)
    runs(1)
    here.carrel("stop", "-t", "0s", name)
    here.carrel("snapshot", "create", name, "before")
    move(here, name, "emulator")
    assert here.workspace(name)["state"] == "stopped"
    here.carrel("start", name)
    assert here.wait_state(name, "running")["engine"] == "emulator"
    runs(2)
    here.carrel("stop", name)
    here.wait_state(name, "stopped")
    here.carrel("snapshot", "create", name, "of-machine")
    here.carrel("snapshot", "restore", name, "before")
    move(here, name, "workspace")
    here.carrel("start", name)
    assert here.wait_state(name, "running")["engine"] == "workspace"
    runs(2)
    here.carrel("stop", "-t", "0s", name)
    here.carrel("snapshot", "restore", name, "of-machine")
    assert is_marked(volume(here, name)), "the mark comes back with the bytes"
    here.carrel("start", name)
    here.wait_state(name, "running")
    runs(3)
    here.carrel("rm", "-f", name)


def test_kept_volumes_go_from_engine_to_engine(here, name):
    kept = "k" + uuid.uuid4().hex[:8]
    volumes = ("--volume", f"{kept}:32M:/kept,keep")
    run(here, name, "sleep", "100000", options=("--engine", "emulator", *volumes))
    inside(here, name, "sh", "-c", "echo machine > /kept/file; sync")
    here.carrel("rm", "-f", name)
    run(here, name + "b", "sleep", "100000", options=volumes)
    assert inside(here, name + "b", "cat", "/kept/file") == "machine\n"
    inside(here, name + "b", "sh", "-c", "echo host >> /kept/file")
    move(here, name + "b", "emulator")
    assert inside(here, name + "b", "cat", "/kept/file") == "machine\nhost\n"
    here.carrel("rm", "-f", name + "b")
    here.wait(lambda: here.carrel("volume", "rm", kept, ok=None).returncode == 0)


def test_what_cannot_be_is_refused_and_the_workspace_runs_on(here, name):
    run(here, name, "sleep", "100000")
    pid = here.workspace(name)["pid"]
    refused = move(here, name, "kvm", ok=None)
    if refused.returncode == 0:
        pytest.skip("KVM works here")
    assert refused.returncode == 7 and "kvm" in refused.stderr.lower()
    assert "--travels" in move(here, name, "emulator", "--live", ok=7).stderr
    now = here.wait(lambda: here.workspace(name)["spec"].get("engine", "auto") in ("auto", "workspace")
                    and here.workspace(name))
    assert (now["state"], now["pid"]) == ("running", pid)
    assert inside(here, name, "echo", "on") == "on\n"
    move(here, name, "workspace")
    assert here.workspace(name)["pid"] == pid, "it is there already"
    here.carrel("rm", "-f", name)
    run(here, name, "sleep", "100000", options=("--rm",))
    assert "removed when it stops" in move(here, name, "emulator", ok=5).stderr
    here.carrel("rm", "-f", name)


def test_a_machine_that_was_killed_is_recovered(here, name):
    run(here, name, "sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /f$((i % 50)); sync; done",
        options=("--engine", "emulator",))
    here.says(name, "ls", "/f9")
    os.kill(here.workspace(name)["pid"], signal.SIGKILL)
    here.wait_state(name, "stopped", "failed")
    move(here, name, "workspace")
    here.carrel("start", name)
    here.wait_state(name, "running")
    assert inside(here, name, "sh", "-c", "test -e /f1 && echo there") == "there\n"
    here.carrel("rm", "-f", name)


def beginning(path):
    with open(path, "rb") as file:  # of something as large as a disk
        return file.read(1 << 20)


def test_a_volume_with_faults_is_not_mounted_and_not_touched(here, name):
    run(here, name, "sleep", "100000", options=("--engine", "emulator"))
    inside(here, name, "sh", "-c", "mkdir /d; for i in 1 2 3 4 5 6 7 8; do echo $i > /d/$i; done; sync")
    here.carrel("stop", name)
    here.wait_state(name, "stopped")
    path = volume(here, name)
    subprocess.run(["debugfs", "-w", "-R", "clri upper/d/3", path], check=True, capture_output=True)
    before = beginning(path)
    move(here, name, "workspace")
    failed = here.carrel("start", name, ok=8)
    assert "is not mounted here" in failed.stderr and "faults" in failed.stderr and "move" in failed.stderr
    assert here.workspace(name)["state"] == "failed"
    assert here.carrel("start", name, ok=8).stderr.count("faults"), "asked for again"
    assert beginning(path) == before and is_marked(path)
    assert path.stat().st_uid == 0 and path.stat().st_mode & 0o777 == 0o600
    move(here, name, "emulator")
    here.carrel("start", name)
    here.wait_state(name, "running")
    assert inside(here, name, "cat", "/d/1") == "1\n"
    here.carrel("rm", "-f", name)


def scan(site, name):
    text = site.carrel("exec", "-i", name, "--", "perl", "-", *PLACES, input=SCAN, timeout=180).stdout
    return [line for line in text.splitlines() if not line.startswith(OURS)]


@pytest.mark.parametrize("first", ("workspace", "emulator"))
def test_a_tree_of_everything_is_the_same_under_both(kernel, shared_site, shared_debian, name, first):
    here = give_kernel(shared_site, kernel)
    other = {"workspace": "emulator", "emulator": "workspace"}
    run(here, name, "sleep", "100000", image="debian", options=("--engine", first, "--memory", "512M"))
    engine, made = first, []
    for side in ("a", "b"):
        made.append(here.carrel("exec", "-i", name, "--", "perl", "-", side, input=TREE, timeout=180).stdout)
        before = scan(here, name)
        assert len(before) > 600
        for _ in range(2):
            engine = other[engine]
            move(here, name, engine)
            here.wait_state(name, "running")
            after = scan(here, name)
            assert after == before, "\n".join(sorted(set(before) ^ set(after))[:20])
        engine = other[engine]
        move(here, name, engine)
        here.wait_state(name, "running")
    assert made == ["", ""], "all kinds of files were made"
    here.carrel("rm", "-f", name)


def test_a_whole_system_moves(kernel, shared_site, shared_debian, name):
    here = give_kernel(shared_site, kernel)
    here.carrel("run", "-d", "--network", "none", "--name", name, "--memory", "768M", "debian")
    here.wait_state(name, "running")

    def booted():
        return here.carrel("exec", name, "--", "systemctl", "is-active", "basic.target", ok=None).stdout.strip() == "active"
    here.wait(booted, timeout=120)
    inside(here, name, "sh", "-c", "ssh-keygen -A; hostname > /root/names; cat /etc/machine-id "
                                   "/etc/ssh/ssh_host_ed25519_key.pub >> /root/names; "
                                   "journalctl --flush; echo there > /root/file")
    names = inside(here, name, "cat", "/root/names")
    for engine in ("emulator", "workspace"):
        move(here, name, engine)
        here.wait_state(name, "running")
        here.wait(booted, timeout=180)
        now = inside(here, name, "sh", "-c", "hostname; cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub")
        assert now == names
        assert inside(here, name, "cat", "/root/file") == "there\n"
        here.wait(lambda: here.carrel("exec", name, "--", "systemctl", "is-system-running",
                                      ok=None).stdout.strip() in ("running", "degraded"))
        assert inside(here, name, "systemctl", "--failed", "--no-legend") == ""  # though the image has no kmod
    here.carrel("rm", "-f", name)


def test_a_site_may_refuse_what_guests_wrote(new_site, busybox_tar, name):
    here = new_site(node_args=["--guest-volumes", "refused"])
    import_image(here, "busybox", busybox_tar)
    run(here, name, "sleep", "100000")
    here.carrel("stop", "-t", "0s", name)
    os.setxattr(volume(here, name), "trusted.carrel.guest", b"1")  # as if it had been a machine
    refused = here.carrel("start", name, ok=3)
    assert "guest-volumes" in refused.stderr and is_marked(volume(here, name))


@pytest.mark.parametrize("point", ("move-begin", "task-stop-end", "launch-end"))
def test_killed_on_the_way(kernel, new_site, busybox_tar, name, point, tmp_path):
    """Wish and truth meet, whatever dies: it runs on the other engine, with its files."""
    plan = tmp_path / "faults"
    plan.write_text("")
    here = give_kernel(new_site(env={"CARREL_FAULTS": str(plan)}), kernel)
    import_image(here, "busybox", busybox_tar)
    run(here, name, "sleep", "100000")
    inside(here, name, "sh", "-c", "echo one > /one; sync")
    plan.write_text(f"{point} kill\n")
    child = here.popen("move", name, "--engine", "emulator")
    here.wait(lambda: not here.node.running() or child.poll() is not None)
    if here.node.running():
        pytest.skip("no fault points: this build has none (meson setup -Dfaults=true)")
    here.node.start()
    here.wait(lambda: (here.workspace(name) or {}).get("state") == "running" and engine_of(here, name) == "emulator")
    assert inside(here, name, "cat", "/one") == "one\n"
    assert child.wait(120) == 0
    here.carrel("rm", "-f", name)


# --- volumes that somebody made to do harm ---


def checked(prefix, path):
    fd = os.open(path, os.O_RDWR)
    try:
        done = subprocess.run([prefix / "libexec/carrel/carrel-check"], preexec_fn=lambda: os.dup2(fd, 3),
                              pass_fds=(3,) if fd == 3 else (fd, 3), capture_output=True, text=True, timeout=60)
    finally:
        os.close(fd)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def plain_volume(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    tree = folder / "tree"
    for part in ("upper", "work", "upper/etc", "upper/deep/er"):
        (tree / part).mkdir(parents=True, exist_ok=True)
    for i in range(300):
        (tree / f"upper/etc/{i}").write_text(str(i) * (i * 13))
    os.link(tree / "upper/etc/1", tree / "upper/deep/hard")
    path = folder / "plain.ext4"
    subprocess.run(["truncate", "-s", "64M", path], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-J", "size=4", "-d", tree, path], check=True)
    return path


SUPER = {  # what a superblock may not say
    "magic": (1024 + 0x38, b"\0\0"), "block size": (1024 + 0x18, b"\x06\0\0\0"), "blocks": (1024 + 0x4, b"\xff\xff\xff\x7f"),
    "feature": (1024 + 0x60, b"\xff\xff\0\0"), "journal device": (1024 + 0xe4, b"\x07\0\0\0"),
    "journal inode": (1024 + 0xe0, b"\x02\0\0\0"),
    "mount options": (1024 + 0x200, b"errors=panic"), "inode size": (1024 + 0x58, b"\0\x40"),
    "encryption": (1024 + 0x61, b"\x80"),
}


@pytest.mark.parametrize("what", sorted(SUPER))
def test_superblocks_of_others_are_refused(prefix, plain_volume, tmp_path, what):
    assert checked(prefix, plain_volume) == {}
    path = tmp_path / "v"
    shutil.copy(plain_volume, path)
    offset, value = SUPER[what]
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(value)
    before = path.read_bytes()
    assert checked(prefix, path)["error"]["kind"] in ("corrupt", "unsupported")
    assert path.read_bytes() == before


CRAFTED = ("clri upper/etc/7", "sif upper/etc/8 block[0] 4294967295", "link upper upper/deep/loop",
           "sif upper links_count 0", "sif <2> mode 0100644", "freeb 100 4000", "sif upper/etc/10 flags 0x10000000",
           "sif <8> size 12", "set_block_group 0 inode_table 3")


@pytest.mark.parametrize("request_text", CRAFTED)
def test_crafted_volumes_are_refused(prefix, plain_volume, tmp_path, request_text):
    path = tmp_path / "v"
    shutil.copy(plain_volume, path)
    subprocess.run(["debugfs", "-w", "-R", request_text, path], capture_output=True, check=True)
    assert path.read_bytes() != plain_volume.read_bytes()
    before = path.read_bytes()
    assert "error" in checked(prefix, path)
    assert path.read_bytes() == before


def test_flipped_bits_are_refused_or_harmless(prefix, plain_volume, tmp_path):
    """What is accepted is mounted by this kernel and read whole."""
    path, mount = tmp_path / "v", tmp_path / "mount"
    mount.mkdir()
    seed = int(os.environ.get("CARREL_TEST_SEED", "20261121"))
    chance, accepted, whole = random.Random(seed), 0, plain_volume.read_bytes()
    places = [at for at in range(0, len(whole), 4096) if any(whole[at:at + 4096])]
    for _ in range(60):
        shutil.copy(plain_volume, path)
        with open(path, "r+b") as f:
            for _ in range(chance.randrange(1, 30)):
                at = chance.choice(places) + chance.randrange(4096)
                f.seek(at)
                f.write(bytes([whole[at] ^ (1 << chance.randrange(8))]))
        if "error" in checked(prefix, path):
            continue
        accepted += 1
        subprocess.run(["mount", "-o", "loop,nodev,nosuid,errors=remount-ro", path, mount], check=True)
        try:
            for folder, _, files in os.walk(mount):
                for one in files:
                    with open(os.path.join(folder, one), "rb") as f:
                        f.read()
            (mount / "upper/new").write_text("x" * 100000)
        finally:
            subprocess.run(["umount", mount], check=True)
    assert 0 < accepted < 60, (accepted, seed)


def test_an_accepted_volume_may_hold_a_loop_for_programs_only(prefix, plain_volume, tmp_path):
    """Symbolic links are data: the check takes them, and nobody on the host follows them."""
    path = tmp_path / "v"
    shutil.copy(plain_volume, path)
    subprocess.run(["debugfs", "-w", "-R", "symlink upper/self self", path], capture_output=True, check=True)
    assert checked(prefix, path) == {}
