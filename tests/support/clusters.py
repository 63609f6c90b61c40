"""A Dask cluster of real processes on this machine, to search on and to disturb."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.support.commands import environment
from tests.support.searches import wait_until


class Cluster:
    """A scheduler and its workers, each a process of its own.

    Args:
        folder: for their files.
        workers: so many, each with a nanny that starts it again.
        protocol: "tcp" or "tls".
        path: a folder in which the scheduler's modules are looked for first.
        settings: more environment variables.
    """

    def __init__(self, folder: Path, workers: int, protocol: str = "tcp", path: Path | None = None, **settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.stack = ExitStack()
        file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", path, "--scheduler-file", file, "--port", "0", "--protocol", protocol)
        wait_until(lambda: file.exists() and file.read_text().endswith("}"))
        self.address: str = json.loads(file.read_text())["address"]
        self.nannies: list[subprocess.Popen[bytes]] = []
        for _ in range(workers):
            self.add_worker()

    def add_worker(self, *options: str, path: Path | None = None, threads: int = 1) -> subprocess.Popen[bytes]:
        """Starts one more, with more options of ``dask worker``, and a folder in which its modules are looked for first."""
        self.nannies.append(self._start("worker", path, self.address, "--nthreads", str(threads), *options))
        return self.nannies[-1]

    def _start(self, kind: str, path: Path | None, *options: str | Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", kind, *map(str, options), "--host", "127.0.0.1", "--no-dashboard"]
        log = self.stack.enter_context((self.folder / f"{kind}.log").open("ab"))
        env = environment(**self.settings)
        if path is not None:
            env["PYTHONPATH"] = f"{path}:{env.get('PYTHONPATH', '')}"
        return subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=self.folder)

    def workers(self) -> list[psutil.Process]:
        """The processes that do the work."""
        processes = [child for nanny in self.nannies for child in psutil.Process(nanny.pid).children()]
        return [process for process in processes if "spawn_main" in " ".join(process.cmdline())]

    def close(self) -> None:
        """Ends all of it."""
        for process in [self.scheduler, *self.nannies]:
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for each in [process, *children]:
                each.kill()
            process.wait()
        self.stack.close()


@contextmanager
def cluster_of(workers: int, folder: Path, protocol: str = "tcp", path: Path | None = None, **settings: str) -> Iterator[Cluster]:
    folder.mkdir()
    cluster = Cluster(folder, workers, protocol, path, **settings)
    try:
        yield cluster
    finally:
        cluster.close()
