"""The examples of README.md do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import test_drf
from django.test import override_settings
from django.utils.module_loading import import_string
from rest_framework.test import APIRequestFactory
from servers import Server
from starlette.testclient import TestClient

import redis_rl.limits
from redis_rl import drf

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def examples() -> dict[str, str]:
    """By heading; a second one under the same heading has a 2 behind it."""
    found: dict[str, str] = {}
    for part in re.split(r"^## ", README, flags=re.MULTILINE)[1:]:
        heading = part.splitlines()[0]
        for number, program in enumerate(re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL), 1):
            found[heading + (f" {number}" if number > 1 else "")] = program
    return found


EXAMPLES = examples()
RUN: set[str] = set()


def run(heading: str, server: Server) -> dict[str, Any]:
    program = EXAMPLES[heading].replace("localhost:6379", server.address).replace("port=6379", f"port={server.port}")
    names: dict[str, Any] = {"__name__": "readme"}
    RUN.add(heading)
    exec(compile(program, f"README.md: {heading}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples state no timeout, and the default is too short for a busy machine of tests."""
    for function in (
        redis_rl.Limiter.from_url.__func__,  # type: ignore[attr-defined]
        redis_rl.AsyncLimiter.from_url.__func__,  # type: ignore[attr-defined]
        redis_rl.limits.RedisRLStorage.__init__,
    ):
        monkeypatch.setitem(function.__kwdefaults__ or {}, "timeout", 30)
    monkeypatch.setattr(drf, "TIMEOUT", 30)


def test_flask_limiter(server: Server) -> None:
    client = run("flask-limiter", server)["app"].test_client()
    assert [client.get("/").status_code for _ in range(6)] == [200] * 5 + [429]
    assert server.calls() == {"RL.SLIDING": 6}


def test_several_limits(server: Server) -> None:
    client = run("flask-limiter 2", server)["app"].test_client()
    assert [client.get("/").status_code for _ in range(6)] == [200] * 5 + [429]
    assert server.calls() == {"RL.MULTI": 6}


def test_slowapi(server: Server) -> None:
    with TestClient(run("slowapi", server)["app"]) as client:
        assert [client.get("/").status_code for _ in range(6)] == [200] * 5 + [429]
    assert server.calls() == {"RL.TOKENBUCKET": 6}


def test_limits(server: Server) -> None:
    names = run("limits by itself", server)
    assert (names["granted"], names["remaining"]) == ([True] * 5 + [False], 0)


def test_django(server: Server) -> None:
    names = run("Django REST framework", server)
    with override_settings(REDIS_RL=names["REDIS_RL"]):
        throttles = names["REST_FRAMEWORK"]["DEFAULT_THROTTLE_CLASSES"]
        view = test_drf.view(None, throttle_classes=[import_string(path) for path in throttles])
        found = [view(APIRequestFactory().get("/")).status_code for _ in range(4)]
    assert found == [200] * 3 + [429]


def test_asgi(server: Server) -> None:
    with TestClient(run("FastAPI and ASGI", server)["app"], client=("203.0.113.9", 4711)) as client:
        responses = [client.get("/") for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 5 + [429]
    shown = re.search(r"^```text\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert shown is not None
    for line in shown[1].splitlines():
        name, value = line.split(": ", 1)
        assert responses[0].headers[name] == value
    assert server.calls() == {"RL.MULTI": 6}


def test_dependency(server: Server) -> None:
    with TestClient(run("FastAPI and ASGI 2", server)["app"]) as client:
        found = [client.get("/search", headers={"X-Api-Key": "secret"}).status_code for _ in range(6)]
        free = [client.get("/search").status_code for _ in range(9)]
    assert (found, free) == ([200] * 5 + [429], [200] * 9)


def test_the_limiter(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        run("The limiter", server)
        printed = capsys.readouterr().out
        assert printed.startswith("granted" if number < 5 else "429")


def test_who_is_it(server: Server) -> None:
    assert run("Who is it?", server)["who"] == "ip:203.0.113.9"


def test_the_client(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    run("The client", server)
    assert capsys.readouterr().out.splitlines() == ["True 99 0.0", "True [9, 4997]"]


def test_a_lease(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    run("The client 2", server)
    assert server.calls() == {"RL.ACQUIRE": 1, "RL.RELEASE": 1}
    assert capsys.readouterr().out == ""


def test_a_settlement(server: Server) -> None:
    run("The client 3", server)
    assert server.calls() == {"RL.FIXEDWINDOW": 1, "RL.SETTLE": 1}


def test_no_example_is_left_out() -> None:
    assert set(EXAMPLES) == RUN


# ---- docs/clients.md: a fresh application in each framework


def fresh(heading: str, server: Server) -> dict[str, Any]:
    page = (Path(__file__).parents[3] / "docs" / "clients.md").read_text(encoding="utf-8")
    part = page.split(f"\n### {heading}\n")[1].split("\n### ")[0]
    (program,) = re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    # What the change adds is in the program.
    for line in re.findall(r"^\+ *(\S.*)$", part, re.MULTILINE):
        assert line.removesuffix(",") in program
    names: dict[str, Any] = {"__name__": "fresh"}
    exec(compile(program.replace("localhost:6379", server.address), f"docs/clients.md: {heading}", "exec"), names)
    return names


def test_a_fresh_flask_application(server: Server) -> None:
    client = fresh("flask-limiter", server)["app"].test_client()
    assert [client.get("/").status_code for _ in range(6)] == [200] * 5 + [429]


def test_a_fresh_flask_application_with_several_limits(server: Server) -> None:
    client = fresh("flask-limiter with several limits", server)["app"].test_client()
    assert [client.get("/").status_code for _ in range(6)] == [200] * 5 + [429]
    assert server.calls() == {"RL.MULTI": 6}


def test_a_fresh_fastapi_application(server: Server) -> None:
    with TestClient(fresh("FastAPI", server)["app"], client=("203.0.113.9", 4711)) as client:
        assert [client.get("/").status_code for _ in range(6)] == [200] * 5 + [429]


def test_a_fresh_django_application(server: Server, tmp_path: Path) -> None:
    settings = fresh("Django REST framework", server)
    names = {name: value for name, value in settings.items() if name.isupper()}
    (tmp_path / "settings.py").write_text("\n".join(f"{name} = {value!r}" for name, value in names.items()))
    (tmp_path / "urls.py").write_text(FRESH_URLS)
    (tmp_path / "visit.py").write_text(FRESH_VISIT)
    # A process of its own: Django's settings are read once.
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "settings"}
    visit = [sys.executable, "visit.py"]
    found = subprocess.run(visit, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["200"] * 5 + ["429"]
    assert server.calls() == {"RL.SLIDING": 6}


FRESH_URLS = """
from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response

@api_view()
def index(request):
    return Response("hello")

urlpatterns = [path("", index)]
"""
FRESH_VISIT = """
import django
from django.test.utils import setup_test_environment
from redis_rl import drf

# The default is too short for a busy machine of tests.
drf.TIMEOUT = 30
django.setup()
setup_test_environment()
from rest_framework.test import APIClient

for _ in range(6):
    print(APIClient().get("/").status_code)
"""
