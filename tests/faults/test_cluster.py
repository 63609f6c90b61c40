"""A search on a Dask cluster of real processes, which are killed: workers, and the scheduler."""

from __future__ import annotations

import datetime
import json
import signal
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.faults.test_killed_searches import check_poisoned, poisoned
from tests.support.called import refused
from tests.support.clusters import cluster_of
from tests.support.commands import DEADLINE, environment, mnist_tuner
from tests.support.searches import (
    TRIALS,
    Undisturbed,
    check_folder,
    journal,
    launched,
    outcome,
    run_in,
    search,
    wait_for_trials,
    wait_until,
    wait_until_at_work,
)

pytestmark = pytest.mark.slow


def on_cluster(address: str, undisturbed: Undisturbed, output: Path) -> list[str]:
    """A search of a few nets there."""
    return [*search("random", undisturbed.data, output, workers=None), "--scheduler", address]


def test_a_cluster_of_which_a_worker_is_killed_gives_every_trial_and_outlives_an_interrupt_and_a_trial_that_kills_its_workers(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with cluster_of(2, tmp_path / "cluster") as cluster:
        with launched(*on_cluster(cluster.address, undisturbed, tmp_path / "runs")) as process:
            printed = wait_for_trials(process, 1)
            wait_until_at_work(cluster.workers()).kill()
            printed += wait_for_trials(process, TRIALS["random"] - 1)
            process.send_signal(signal.SIGINT)  # in the final comparison
            rest, errors = process.communicate(timeout=DEADLINE)
            assert process.returncode == 130
        assert errors == ""
        assert "failed (its worker died" not in printed + rest  # a cluster's scheduler gives the trial to another by itself
        run = run_in(tmp_path / "runs")
        kept = journal(run)
        assert len(kept) == 1 + TRIALS["random"]
        assert cluster.scheduler.poll() is None  # somebody's cluster is left as it was
        assert all(nanny.poll() is None for nanny in cluster.nannies)
        mnist_tuner("search", "--resume", run, "--scheduler", cluster.address)
        assert journal(run) == kept
        assert outcome(run) == undisturbed.outcome("random")
        check_folder(run, TRIALS["random"])

        trials, printed = poisoned(tmp_path, "1", cluster.address)
        check_poisoned(trials, printed, tmp_path)
        wait_until(lambda: len(cluster.workers()) == 2)  # their nannies have started them again
        assert cluster.scheduler.poll() is None


def test_over_tls_a_search_whose_scheduler_is_killed_says_how_to_go_on(undisturbed: Undisturbed, tmp_path: Path) -> None:
    settings = certificates(tmp_path)
    with cluster_of(1, tmp_path / "tls", "tls", **settings) as cluster:
        assert cluster.address.startswith("tls://")
        arguments = on_cluster(cluster.address, undisturbed, tmp_path / "runs")
        with launched(*arguments, env=environment(**settings)) as process:
            wait_for_trials(process, 1)
            cluster.scheduler.kill()
            printed, errors = process.communicate(timeout=DEADLINE)
    run = run_in(tmp_path / "runs")
    assert process.returncode == 1
    assert "mnist-tuner: error: the Dask scheduler" in errors
    assert f"Go on with: mnist-tuner search --resume {run}\n" in printed
    manifest = json.loads((run / "run.json").read_text())
    assert (manifest["status"], len(manifest["trials"])) == ("failed", len(journal(run)) - 1)
    kept = journal(run)
    assert len(kept) >= 2

    mnist_tuner("search", "--resume", run, "--workers", "0")  # here, that is
    assert journal(run)[: len(kept)] == kept
    assert outcome(run) == undisturbed.outcome("random")
    check_folder(run, TRIALS["random"])
    assert len(errors.splitlines()) == 1


def test_an_address_without_a_scheduler_is_refused_in_one_line(undisturbed: Undisturbed, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        done = mnist_tuner(*on_cluster(address, undisturbed, tmp_path / "runs"), code=2)
    assert len(done.stderr.splitlines()) == 1
    assert f"--scheduler {address}: no Dask scheduler answers there" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_cluster_without_workers_is_refused_in_one_line_that_says_what_to_do(undisturbed: Undisturbed, tmp_path: Path) -> None:
    with cluster_of(0, tmp_path / "cluster") as cluster:
        line = refused(*on_cluster(cluster.address, undisturbed, tmp_path / "runs"), "--workers-wait", "1.5s")
    assert "the Dask cluster has had no workers for 1.5 seconds" in line
    assert "dask worker" in line
    assert not (tmp_path / "runs").exists()


def test_a_driver_that_is_killed_goes_on_with_the_same_scheduler_and_with_a_worker_that_comes_in_meanwhile(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with cluster_of(1, tmp_path / "cluster") as cluster:
        with launched(*on_cluster(cluster.address, undisturbed, tmp_path / "runs")) as process:
            wait_for_trials(process, 1)
            process.kill()
            process.wait()
        run = run_in(tmp_path / "runs")
        kept = [line for line in journal(run) if line.endswith("\n")]
        with launched("search", "--resume", run) as process:  # there, that is
            wait_for_trials(process, 1)
            cluster.add_worker()
            _, errors = process.communicate(timeout=DEADLINE)
            assert (process.returncode, errors) == (0, "")
    assert journal(run)[: len(kept)] == kept
    assert outcome(run) == undisturbed.outcome("random")
    check_folder(run, TRIALS["random"])
    told = json.loads((run / "run.json").read_text())["worker_info"]
    assert told
    assert all(worker["address"].startswith("tcp://127.0.0.1:") and worker["refused"] is None for worker in told)


def certificates(folder: Path) -> dict[str, str]:
    """Makes a key and a certificate that is its own authority; returns the settings with which all of Dask's parts use it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "key.pem").chmod(0o600)
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    settings = {f"{tls}CA_FILE": str(folder / "certificate.pem"), "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    for part in ("SCHEDULER", "WORKER", "CLIENT"):
        settings[f"{tls}{part}__CERT"] = str(folder / "certificate.pem")
        settings[f"{tls}{part}__KEY"] = str(folder / "key.pem")
    return settings
