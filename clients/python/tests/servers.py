"""Real servers with the module: one, a cluster of three, or two with Sentinels. Ports are the system's choice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import redis
import trustme

MODULE = os.environ["RL_MODULE"]
SERVER = os.environ["RL_SERVER"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_until(check: Callable[[], Any], seconds: float = 60.0) -> None:
    """Waits for a condition. The limit is only there for a test that would never end."""
    end = time.monotonic() + seconds
    while True:
        try:
            if check():
                return
        except (redis.RedisError, OSError):
            pass
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


class Certificates:
    """What a server proves that it is 127.0.0.1 with; `authority` is the file that a client trusts."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="redis-rl-")
        self.authority, self.chain, self.key = (str(Path(self.folder.name, name)) for name in ("ca", "chain", "key"))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        server = authority.issue_cert("127.0.0.1", "localhost")
        server.private_key_pem.write_to_path(self.key)
        for certificate in server.cert_chain_pems:
            certificate.write_to_path(self.chain, append=True)

    @property
    def options(self) -> dict[str, Any]:
        """What a client needs."""
        return {"ssl": True, "ssl_ca_certs": self.authority}

    def words(self, port: int) -> list[str]:
        """What a server needs. It speaks nothing but TLS."""
        files = ["--tls-cert-file", self.chain, "--tls-key-file", self.key, "--tls-ca-cert-file", self.authority]
        ways = ["--tls-auth-clients", "no", "--tls-replication", "yes"]
        return ["--port", "0", "--tls-port", str(port), *files, *ways]


def speaks_tls() -> bool:
    """Whether the server was built with TLS. The port is wrong, so that it ends at once."""
    found = subprocess.run([SERVER, "--tls-port", "-1"], capture_output=True, text=True)
    return "between 0 and 65535" in found.stdout + found.stderr


class EndedError(Exception):
    """The server ended at once."""


class Server:
    """One server on loopback."""

    def __init__(
        self, *options: str, sentinel: str | None = None, cluster: bool = False, tls: Certificates | None = None
    ) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="redis-rl-")
        self.options = options
        self.sentinel = sentinel
        self.tls = tls
        self.bus = free_port() if cluster else 0
        while True:
            self.port = free_port()
            try:
                self.start()
            except EndedError:
                continue  # somebody else took the port
            break

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        words = self.tls.words(self.port) if self.tls else ["--port", str(self.port)]
        words += ["--bind", "127.0.0.1", "--dir", self.folder.name]
        if self.sentinel is None:
            words += ["--save", "", "--loadmodule", MODULE, "--rl.client-clock", "no", *self.options]
            if self.bus:
                words += ["--cluster-enabled", "yes", "--cluster-port", str(self.bus), "--cluster-node-timeout", "2000"]
                words += ["--tls-cluster", "yes"] if self.tls else []
        else:
            path = Path(self.folder.name, "sentinel.conf")
            path.write_text(self.sentinel, encoding="utf-8")
            words = [str(path), *words, "--sentinel"]
        self.process = subprocess.Popen([SERVER, *words], stdout=subprocess.DEVNULL)
        self.connection = redis.Redis(host="127.0.0.1", port=self.port, **(self.tls.options if self.tls else {}))
        wait_until(self._answers)

    def _answers(self) -> Any:
        if self.process.poll() is not None:
            raise EndedError
        return self.connection.ping()

    def ask(self, *words: str | bytes | int) -> Any:
        return self.connection.execute_command(*words)  # type: ignore[no-untyped-call]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Stops it as a debugger would: it accepts connections and does not answer."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.kill()
        self.connection.close()
        self.folder.cleanup()

    def calls(self) -> dict[str, int]:
        """How often each command was called, but for those of a connection's beginning and of this test."""
        stats = self.connection.info("commandstats")
        ours = ("hello", "client", "info", "config", "ping", "command", "select", "function", "script")
        found = {}
        for name, numbers in stats.items():
            command = name.removeprefix("cmdstat_")
            if command.split("|")[0] not in ours:
                found[command] = numbers["calls"]
        return found

    def forget_calls(self) -> None:
        self.connection.config_resetstat()


class Cluster:
    """Three primaries."""

    def __init__(self, tls: Certificates | None = None) -> None:
        self.servers = [Server(cluster=True, tls=tls) for _ in range(3)]
        first, *others = self.servers
        for number, server in enumerate(self.servers):
            slots = range(number * 16384 // 3, (number + 1) * 16384 // 3)
            server.ask("CLUSTER ADDSLOTSRANGE", slots.start, slots.stop - 1)
            server.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for server in others:
            server.ask("CLUSTER MEET", "127.0.0.1", first.port, first.bus)
        for server in self.servers:
            wait_until(partial(self._is_whole, server))

    @staticmethod
    def _is_whole(server: Server) -> bool:
        info = server.ask("CLUSTER INFO")
        text = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
        return bool(text["cluster_state"] == "ok" and text["cluster_known_nodes"] == "3")

    @property
    def addresses(self) -> str:
        return ",".join(server.address for server in self.servers)

    def end(self) -> None:
        for server in self.servers:
            server.end()


class Replicated:
    """A primary, a replica, and three Sentinels that watch them."""

    def __init__(self, tls: Certificates | None = None) -> None:
        self.primary = Server(tls=tls)
        self.replica = Server("--replicaof", "127.0.0.1", str(self.primary.port), tls=tls)
        wait_until(lambda: self.replica.connection.info("replication")["master_link_status"] == "up")
        text = (
            f"sentinel monitor main 127.0.0.1 {self.primary.port} 2\n"
            "sentinel down-after-milliseconds main 1000\n"
            "sentinel failover-timeout main 5000\n"
        )
        self.sentinels = [Server(sentinel=text, tls=tls) for _ in range(3)]
        for server in self.sentinels:
            wait_until(partial(self._knows_all, server))

    @staticmethod
    def _knows_all(server: Server) -> bool:
        state: Any = server.connection.sentinel_master("main")
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)

    @property
    def addresses(self) -> str:
        return ",".join(server.address for server in self.sentinels)

    def end(self) -> None:
        for server in [*self.sentinels, self.replica, self.primary]:
            server.end()
