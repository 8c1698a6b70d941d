"""Servers for tests: one that all share and that is emptied for each, or one of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from servers import Cluster, Replicated, Server

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_settings")


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.end()


@pytest.fixture
def server(shared_server: Server) -> Server:
    shared_server.connection.flushall()
    shared_server.forget_calls()
    return shared_server


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may stop and kill."""
    server = Server()
    yield server
    server.go_on()
    server.end()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.end()


@pytest.fixture
def replicated() -> Iterator[Replicated]:
    replicated = Replicated()
    yield replicated
    replicated.end()
