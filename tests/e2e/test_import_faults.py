# SPDX-License-Identifier: Apache-2.0
"""The programs of import die, or the disk fails, at each fault point: the store stays whole and the next import does the work."""
import contextlib
import os
import pathlib
import signal
import threading
import time

import pytest

from image_tools import (Failure, Image, PlainRegistry, check_store, do_import, leftovers, need, start_import, tar)


@pytest.fixture(scope="module")
def image():
    need()
    return Image([tar({"bin/sh": b"#!" * 1000}), tar({"data": os.urandom(3000000)})])


def run(store, registry, plan, tmp_path):
    faults = tmp_path / "faults"
    faults.write_text(plan)
    return start_import(store, reference=registry.reference(), environment={"CARREL_FAULTS": str(faults)})


@pytest.fixture(scope="module")
def points(image, tmp_path_factory):
    folder = tmp_path_factory.mktemp("points")
    with PlainRegistry(image) as registry:
        program = run(folder / "store", registry, f"* log {folder}/log\n", folder)
        program.result()
        program.end()
    if not (folder / "log").exists():
        pytest.skip("built without fault points (-Dfaults=true)")
    # the converter has points of its own: see test_converter_dies
    return sorted({point for point in (folder / "log").read_text().split() if not point.startswith("convert-")})


def nothing_half_made(store):
    check_store(store)
    for path in (store / "tmp").iterdir():
        assert path.name.startswith("partial-"), path


def children(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_killed_at_each_point(image, points, tmp_path):
    with PlainRegistry(image) as registry:
        whole = do_import(tmp_path / "whole", reference=registry.reference())["digest"]
        assert len(points) >= 7
        for point in points:
            store = tmp_path / point
            program = run(store, registry, f"{point} kill\n", tmp_path)
            with pytest.raises(AssertionError, match="no answer"):
                program.result()
            check_store(store)
            assert do_import(store, reference=registry.reference())["digest"] == whole, point
            nothing_half_made(store)
            assert list((store / "tmp").iterdir()) == [], point


def test_converter_dies(image, points, tmp_path):
    with PlainRegistry(image) as registry:
        program = run(tmp_path / "store", registry, "convert-start kill\n", tmp_path)
        with pytest.raises(Failure, match="converter") as failure:
            program.result()
        assert failure.value.kind == "internal"
        nothing_half_made(tmp_path / "store")
        do_import(tmp_path / "store", reference=registry.reference())


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_disk_fails_at_each_point(image, points, tmp_path, error):
    with PlainRegistry(image) as registry:
        for point in points:
            store = tmp_path / point
            program = run(store, registry, f"{point} {error}\n", tmp_path)
            with pytest.raises(Failure) as failure:
                program.result()
            assert failure.value.kind == ("no-capacity" if error == "ENOSPC" else "internal"), point
            assert leftovers(store) == []
            nothing_half_made(store)
            do_import(store, reference=registry.reference())
            assert list((store / "tmp").iterdir()) == [], point


def test_children_are_killed(image, tmp_path):
    """Whichever child dies, the import ends with an error, and no process stays."""
    def slow(registry, request):
        time.sleep(0.02)
        return False
    with PlainRegistry(image, slow) as registry:
        for moment in range(12):
            store = tmp_path / str(moment)
            program = start_import(store, reference=registry.reference())
            program.read_line()
            time.sleep(0.015 * moment)
            for child in children(program.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            try:
                program.result()
            except Failure as failure:
                assert failure.kind == "internal", failure
            program.end()
            nothing_half_made(store)
            do_import(store, reference=registry.reference())


def test_no_child_survives_the_importer(image, tmp_path):
    going_on = threading.Event()

    def stuck(registry, request):
        if "blobs" in request.path:
            going_on.wait(120)
        return False
    with PlainRegistry(image, stuck) as registry, contextlib.ExitStack() as afterwards:
        afterwards.callback(going_on.set)
        program = start_import(tmp_path / "store", reference=registry.reference())
        deadline = time.monotonic() + 60
        while not (orphans := children(program.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert orphans
        program.signal(signal.SIGKILL)
        program.end()
        while [p for p in orphans if pathlib.Path(f"/proc/{p}").exists()] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not [p for p in orphans if pathlib.Path(f"/proc/{p}").exists()]
