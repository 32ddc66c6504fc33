"""What one control plane trusts: a CA, one server certificate, a signing key, one admin token."""

import json
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

DAYS = "2"  # longer than any run of the tests


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files in a run folder, and the token of a member of system:masters."""

    ca: Path
    certificate: Path
    key: Path
    signing_key: Path
    tokens: Path
    admin_token: str


def make_certificates(folder: Path) -> Certificates:
    """Write fresh ones for 127.0.0.1 into `folder`."""
    made = Certificates(
        ca=folder / "ca.crt",
        certificate=folder / "server.crt",
        key=folder / "server.key",
        signing_key=folder / "signing.key",
        tokens=folder / "tokens.csv",
        admin_token=secrets.token_hex(16),
    )
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-x509"]
    ca_key = folder / "ca.key"
    _openssl(
        "req", *new_key, "-days", DAYS, "-subj", "/CN=pd-planner-tests",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        "-keyout", ca_key, "-out", made.ca,
    )  # fmt: skip
    _openssl(
        "req", *new_key, "-days", DAYS, "-subj", "/CN=127.0.0.1",
        "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "-addext", "basicConstraints=critical,CA:FALSE",
        "-CA", made.ca, "-CAkey", ca_key,
        "-keyout", made.key, "-out", made.certificate,
    )  # fmt: skip
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", made.signing_key)
    made.tokens.write_text(f'{made.admin_token},admin,admin,"system:masters"\n', encoding="utf-8")
    return made


def _openssl(*arguments: str | Path) -> None:
    if (openssl := shutil.which("openssl")) is None:
        raise AssertionError("openssl is not on PATH: install it (apt-get install openssl)")
    done = subprocess.run(
        [openssl, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"openssl {arguments[0]}: {done.stderr.strip()}"


def write_kubeconfig(path: Path, url: str, ca: Path, token: str, namespace: str) -> None:
    """Write a kubeconfig (JSON is YAML) for one user of one cluster."""
    name = "pd-planner-tests"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}
        ],
    }
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    path.chmod(0o600)
