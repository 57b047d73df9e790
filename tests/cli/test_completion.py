# SPDX-License-Identifier: Apache-2.0
"""Completion in the shells themselves."""
import os
import shutil
import subprocess

import pytest

from conftest import BUILD


@pytest.fixture
def things(fake, web):
    fake.answer("GET", "/v1/images", {"items": [{"name": "debian:bookworm"}, {"name": "dev/il\x1b"}, {"name": "alpine"}],
                                      "next": None})
    fake.answer("GET", "/v1/workspaces/web/snapshots", {"items": [{"name": "before"}], "next": None})


def asked(cli, *words):
    return [line.split("\t")[0] for line in cli.text("__complete", *words).splitlines()]


@pytest.mark.parametrize("words, expected", [
    (["imag"], ["image"]), (["image", "im"], ["import"]), (["r"], ["run", "restart", "resume", "rename", "rm"]),
    (["show", ""], ["web"]),
    (["--format", "json", "sho"], ["show"]), (["show", "w"], ["web"]), (["show", "x"], []), (["show", "web", ""], []),
    (["rm", "web", "w"], ["web"]),
    (["run", "--rm", "de"], ["debian:bookworm", ":file"]), (["ls", "--state", "sto"], ["stopping", "stopped"]),
    (["ls", "--state=sto"], ["--state=stopping", "--state=stopped"]), (["snapshot", "rm", "web", ""], ["before"]),
    (["ls", "--sta"], ["--state"]),
    (["exec", "web", "ls", ""], []), (["run", "debian", "--", ""], []), (["cp", "w"], ["web:", ":file"]),
    (["completion", "z"], ["zsh"]),
    (["--form"], ["--format"]), (["nonsense", ""], []), (["__comp"], []), (["image", "nonsense", ""], []), ([], None),
    (["image", "rm", "dev"], [])])
def test_candidates(cli, things, words, expected):
    result = asked(cli, *words)
    assert result == expected if expected is not None else "run" in result


def test_without_a_service(cli, things):
    assert asked(cli, "--address", "unix:/nonexistent", "show", "") == asked(cli, "--address=unix:/nonexistent", "show",
                                                                             "") == []
    assert cli.text("__complete", "show", "", env={"CARREL_ADDRESS": "unix:/nonexistent"}) == ""


def shell(name, script, cli, *more):
    program = shutil.which(name)
    if not program:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([program, *more, "-c", script], env={**cli.env, "HOME": "/nonexistent"}, capture_output=True,
                          text=True, timeout=120)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("line, expected", [("carrel imag", ["image"]), ("carrel image im", ["import"]),
                                            ("carrel show ", ["web"]), ("carrel ls --state sto", ["stopping", "stopped"]),
                                            ("carrel rm -f w", ["web"])])
def test_bash(cli, things, line, expected):
    words = line.split(" ")
    script = f"""source {BUILD}/src/cli/carrel.bash
COMP_WORDS=({' '.join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; COMP_LINE='{line}'; COMP_POINT={len(line)}
_carrel 2>/dev/null; printf '%s\\n' "${{COMPREPLY[@]}}" """
    out, errors = shell("bash", script, cli)
    assert out == expected, errors


@pytest.mark.parametrize("line, expected", [("carrel imag", ["image"]), ("carrel image im", ["import"]),
                                            ("carrel show ", ["web"]), ("carrel ls --state sto", ["stopped", "stopping"]),
                                            ("carrel run alp", ["alpine"])])
def test_fish(cli, things, line, expected, tmp_path):
    out, errors = shell("fish", f"source {BUILD}/src/cli/carrel.fish; complete -C '{line}'", cli)
    assert sorted(o.split("\t")[0] for o in out) == expected, errors


@pytest.mark.parametrize("keys, expected", [("carrel imag", "carrel image"), ("carrel image im", "carrel image import"),
                                            ("carrel show ", "carrel show web"),
                                            ("carrel run --rm debian", "carrel run --rm debian")])
def test_zsh(cli, things, keys, expected, tmp_path):
    """A real interactive zsh on a pty: the line after a press of Tab."""
    if not shutil.which("zsh"):
        pytest.skip("zsh is not installed")
    shutil.copy(BUILD / "src/cli/_carrel", tmp_path)
    (tmp_path / ".zshrc").write_text(f"PS1='%% '; fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -d "
                                     f"{tmp_path}/dump\n"
                                     "show() {{ print -r -- \"LINE=[$BUFFER]\"; BUFFER=exit; zle accept-line }}; zle -N show; "
                                     "bindkey '^T' show\n"
                                     .replace("{{", "{").replace("}}", "}"))
    import pty
    import select
    import time
    process, main = pty.fork()
    if process == 0:
        os.execve(shutil.which("zsh"), ["zsh", "-i"],
                  {**cli.env, "ZDOTDIR": str(tmp_path), "TERM": "dumb", "HOME": str(tmp_path)})
    heard = b""

    def until(text, seconds=120):
        nonlocal heard
        end = time.monotonic() + seconds
        while text not in heard and time.monotonic() < end:
            if select.select([main], [], [], 0.1)[0]:
                try:
                    heard += os.read(main, 65536)
                except OSError:
                    return
    until(b"% ")
    os.write(main, keys.encode() + b"\t")
    os.write(main, b"\x14")  # zsh takes key after key: this one is read when the completion is done
    until(b"LINE=[")
    until(b"]")
    os.write(main, b"exit\r")
    os.close(main)
    os.waitpid(process, 0)
    assert b"LINE=[" + expected.encode() in heard
