# SPDX-License-Identifier: Apache-2.0
"""
The guide is executed as it is written. In README.md and docs/guide/*.md:

  ```console          each line that begins with "$ " is run by bash, in one folder per page, against a live instance; what follows
                      it must be found in its output, in this order. "..." stands for any text, a line of its own for any lines
  ```yaml FILE        written to FILE in that folder
  other blocks        are not run (a terminal, another machine)

A page finds what ./quickstart leaves: image `debian`, network `default`, workspace `first`. Links between pages are checked, too.
"""
import os
import re
import subprocess

import pytest

import conftest
from network_tools import World

PAGES = [conftest.ROOT / "README.md", *sorted((conftest.ROOT / "docs" / "guide").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)[ ]*([^\n]*)\n(.*?)^```$", re.S | re.M)


def blocks(page):
    return [(kind, argument.strip(), text) for kind, argument, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def commands(text):
    """(command, expected lines) of a console block; a command ends where its quotes and here-documents do."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], []])
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1][0] += "\n" + line[2:]
        elif found:
            found[-1][1].append(line)
    return found


def matches(expected, output):
    pattern = []
    for line in expected:
        if line.strip() == "...":
            pattern.append(r"(?:[^\n]*\n)*?")
        elif line.strip():
            words = [r"[ \t]+".join(map(re.escape, part.split())) for part in line.split("...")]
            pattern.append(r"[ \t]*" + r"[ \t]*[^\n]*?[ \t]*".join(words) + r"[ \t]*\n")
    text = re.sub(r"\n[ \t]*\n+", "\n", output if output.endswith("\n") else output + "\n")
    return re.search("".join(pattern), text) is not None


@pytest.fixture(scope="module")
def quickstarted(prefix, debian_tar):
    """With the network `default`, on a host that is a network namespace (network_tools.py)."""
    world = World()
    site = conftest.Site(prefix, world=world)
    try:
        conftest.import_image(site, "debian", debian_tar)
        site.carrel("network", "create", "default")
        site.carrel("deploy", "debian", "--name", "first")
        site.wait(lambda: site.carrel("exec", "first", "--", "systemctl", "is-system-running", "--wait", ok=None).stdout.strip()
                  in ("running", "degraded"), what="the boot")
        yield site
    finally:
        problems = site.close()
        world.close()
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("page", [p for p in PAGES if any(kind == "console" for kind, _, _ in blocks(p))], ids=lambda p: p.name)
def test_page_does_what_it_says(page, quickstarted, tmp_path):
    environment = {**quickstarted.environment, "PATH": f"{quickstarted.prefix}/bin:{os.environ['PATH']}", "HOME": str(tmp_path)}
    ran = 0
    for kind, argument, text in blocks(page):
        if kind in ("yaml", "json") and argument:
            (tmp_path / argument).write_text(text)
        for command, expected in commands(text) if kind == "console" else ():
            done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
            fails_as_shown = any("error:" in line for line in expected)
            assert (fails_as_shown or done.returncode
                    == 0), f"{page.name}: {command}: exit status {done.returncode}\n{done.stdout}"
            assert matches(expected, done.stdout), (f"{page.name}: {command}\n--- the page says\n" + "\n".join(expected)
                                                    + f"\n--- it is\n{done.stdout}")
            ran += 1
    assert ran
    state = quickstarted.workspace("first")
    assert state and state["state"] == "running", f"{page.name} leaves workspace first {state and state['state']}"


@pytest.mark.parametrize("page", sorted(conftest.ROOT.glob("*.md")) + sorted((conftest.ROOT / "docs").rglob("*.md")),
                         ids=lambda p: str(p.relative_to(conftest.ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor and file.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in [re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles], f"{page.name}: {target}"


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_named_files_are_there(page):
    """Files and folders from the root, and as #include writes them; NAMES in capitals stand for any."""
    folders = "|".join(p.name for start in (".", "src") for p in (conftest.ROOT / start).iterdir() if p.is_dir())
    for words in re.findall(r"`([^`\n]+)`", (conftest.ROOT / page).read_text(encoding="utf-8")):
        for path in re.findall(rf"(?<![\w/.~-])((?:{folders})/[\w./*-]*)", words):
            if not re.search(r"[A-Z]{2}", path.replace("README", "")):
                found = [p for start in ("", "src") for p in (conftest.ROOT / start).glob(path.rstrip("/."))]
                assert found, f"{page} names {path}"


def test_every_decision_is_listed_under_its_title():
    folder = conftest.ROOT / "docs" / "decisions"
    pages = sorted(p for p in folder.glob("*.md") if p.name != "README.md")
    titles = [p.read_text(encoding="utf-8").split("\n", 1)[0] for p in pages]
    rows = [re.fullmatch(r"# (\d{4}): (.+)", t).groups() for t in titles]
    assert [p.name[:4] for p in pages] == [number for number, _ in rows]
    listed = re.findall(r"^\| (\d{4}) \| \[(.+)\]\((.+)\) \|$", (folder / "README.md").read_text(encoding="utf-8"), re.M)
    assert listed == [(number, title, p.name) for (number, title), p in zip(rows, pages)]


def test_matching_is_loose_but_in_order():
    assert matches(["NAME  STATE", "first ... ago"], "NAME   STATE\nfirst  running  1 minute ago\n")
    assert matches(["a", "...", "d"], "x\na\nb\nc\nd\n")
    assert not matches(["b", "a"], "a\nb\n")
