# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from fake_service import FakeService  # noqa: E402

BUILD = pathlib.Path(os.environ.get("CARREL_BUILD_ROOT", pathlib.Path(__file__).resolve().parents[2] / "build"))
CARREL = BUILD / "src/cli/carrel"


class Cli:
    def __init__(self, fake):
        self.fake = fake
        self.env = {**{k: v for k, v in os.environ.items() if not k.startswith("CARREL_")}, "CARREL_ADDRESS": fake.address,
                    "CARREL_LIBEXEC": str(CARREL.parent), "LC_ALL": "C.UTF-8", "PATH": f"{CARREL.parent}:{os.environ['PATH']}"}

    def __call__(self, *words, ok=0, input=None, timeout=120, env=None, **how):
        done = subprocess.run([str(CARREL), *map(str, words)], input=input, stdout=how.pop("stdout", subprocess.PIPE),
                              stderr=subprocess.PIPE,
                              timeout=timeout, env={**self.env, **(env or {})},
                              stdin=None if input is not None else subprocess.DEVNULL, **how)
        assert done.returncode == ok, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr.decode()}"
        return done

    def text(self, *words, **how):
        return self(*words, **how).stdout.decode()

    def fails(self, status, *words, **how):
        return self(*words, ok=status, **how).stderr.decode()


@pytest.fixture
def fake():
    service = FakeService()
    yield service
    service.close()


@pytest.fixture
def cli(fake):
    return Cli(fake)


@pytest.fixture
def web(fake):
    """A workspace that the fake knows."""
    workspace = {"id": "0123456789abcdef", "name": "web", "state": "running", "owner": "alice",
                 "created": "2020-01-02T03:04:05Z",
                 "spec": {"image": "debian", "labels": {"team": "blue", "x": "1"},
                          "volumes": [{"name": "data", "size": 1 << 30, "mount": "/d"}]}}
    fake.answer("GET", "/v1/workspaces", {"items": [workspace], "next": None})
    fake.answer("GET", "/v1/workspaces/web", workspace)
    return workspace


def done(**more):
    return {"id": "feedfacefeedface", "kind": "start", "state": "done", "workspace": "web", **more}


def operation(fake, *versions):
    left = list(versions) or [done()]
    fake.answer("GET", "/v1/operations/feedfacefeedface", lambda r: (200, left.pop(0) if len(left) > 1 else left[0]))
    return {"operation": "feedfacefeedface"}
