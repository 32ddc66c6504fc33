"""Builds the programs of the control plane from pinned sources, once, outside the checkout.

``python -m tests.cluster.build`` fills a cache folder named after the pins and the Go release, so
that a changed pin builds anew and nothing else does. What exists is left alone.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from planner.adapters.clock import stopwatch_s
from tests.caches import alone_in, cache_of

MODULES = Path(__file__).parent / "modules"
FOLDER_VARIABLE = "PD_PLANNER_CLUSTER_BIN"
GET_IT = "make cluster-build"
WHY = "the tests run a real Kubernetes API server and a real Volcano, built from pinned sources"
MANIFESTS = "volcano.json"
FLAGS = ("-mod=readonly", "-trimpath", "-buildvcs=false")
LINKED = "-s -w"
# Kubernetes takes its version from its linker; without one kubectl refuses to compare.
VERSION = "-X k8s.io/component-base/version.gitVersion="
STILL_THERE_S = 30.0  # a compiler says nothing for minutes


class BuildError(Exception):
    """A program cannot be built; the message is one line: what, why, how to mend."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program, where it comes from, and about how long its build takes on one core [s]."""

    name: str
    module: str
    package: str
    cpu_s: float


# In this order each build finds most of its packages compiled by the one before it; the times are
# those of an empty build cache.
PROGRAMS = (
    Program("etcd", "kube", "go.etcd.io/etcd/server/v3", 60),
    Program("kube-apiserver", "kube", "k8s.io/kubernetes/cmd/kube-apiserver", 700),
    Program(
        "kube-controller-manager", "kube", "k8s.io/kubernetes/cmd/kube-controller-manager", 130
    ),
    Program("kubectl", "kube", "k8s.io/kubernetes/cmd/kubectl", 60),
    Program("vc-controller-manager", "volcano", "volcano.sh/volcano/cmd/controller-manager", 310),
    Program("vc-scheduler", "volcano", "volcano.sh/volcano/cmd/scheduler", 80),
    Program("vc-webhook-manager", "volcano", "volcano.sh/volcano/cmd/webhook-manager", 20),
    Program("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok", 290),
)

Say = Callable[[str], None]


def pins() -> list[Path]:
    """Return the files that fix every version."""
    return sorted(MODULES.glob("*/go.*"))


def go_release() -> str:
    """Return what `go version` says, or say which Go is needed and where it is to be had."""
    needed = max(
        tuple(int(part) for part in found.group(1).split("."))
        for path in MODULES.glob("*/go.mod")
        if (found := re.search(r"^go (\d+\.\d+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    )
    wanted = f"Go {needed[0]}.{needed[1]} or later builds the test cluster"
    if (go := shutil.which("go")) is None:
        raise BuildError(f"{wanted}, and `go` is not on PATH: see https://go.dev/doc/install")
    release = subprocess.run([go, "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"go(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < needed:
        raise BuildError(
            f"{wanted}, `{release.strip()}` is too old: see https://go.dev/doc/install"
        )
    return release.strip()


def folder() -> Path:
    """Return where the programs are or will be: $PD_PLANNER_CLUSTER_BIN, else the cache."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    recipe = [FLAGS, LINKED, VERSION, [(program.name, program.package) for program in PROGRAMS]]
    digest = hashlib.sha256(f"{go_release()} {recipe}".encode())
    for path in pins():
        digest.update(path.read_bytes())
    return cache_of("cluster") / digest.hexdigest()[:16]


def missing(place: Path) -> list[Program]:
    """Return the programs that `place` does not hold yet."""
    return [program for program in PROGRAMS if not (place / program.name).is_file()]


def is_complete(place: Path) -> bool:
    return not missing(place) and (place / MANIFESTS).is_file()


def build(say: Say) -> Path:
    """Build what is missing and return its folder; a second caller waits for the first."""
    place = folder()
    if is_complete(place):
        return place
    go_release()
    place.mkdir(parents=True, exist_ok=True)
    with alone_in(place):
        wanted = missing(place)
        if wanted:
            say(f"building {len(wanted)} programs into {place}: {WHY}")
            say("this happens once: about 12 minutes on 2 cores, less where Go has compiled before")
        _build_all(wanted, place, say)
        if not (place / MANIFESTS).is_file():
            _write_atomically(place / MANIFESTS, json.dumps(_volcano_manifests()))
    return place


def _build_all(wanted: list[Program], place: Path, say: Say) -> None:
    elapsed_s = stopwatch_s()
    left_cpu_s = total_cpu_s = sum(program.cpu_s for program in wanted)
    cores = os.cpu_count() or 1
    for number, program in enumerate(wanted, 1):
        done_cpu_s = total_cpu_s - left_cpu_s
        pace = elapsed_s() / done_cpu_s if done_cpu_s else 1.0 / cores
        say(
            f"[{number}/{len(wanted)}] {program.name} ... "
            f"about {duration(left_cpu_s * pace)} left in all"
        )
        took_s = stopwatch_s()
        _build_one(program, place, say)
        left_cpu_s -= program.cpu_s
        say(f"[{number}/{len(wanted)}] {program.name} built in {duration(took_s())}")


def _build_one(program: Program, place: Path, say: Say) -> None:
    # Built beside its place and renamed: whoever finds a program finds a whole one.
    unfinished = place / f".{program.name}.{os.getpid()}"
    linked = f"-ldflags={_link_flags(program)}"
    try:
        _go(program, ["build", *FLAGS, linked, "-o", str(unfinished), program.package], say)
        unfinished.rename(place / program.name)
    finally:
        unfinished.unlink(missing_ok=True)


def _link_flags(program: Program) -> str:
    if not program.package.startswith("k8s.io/kubernetes/"):
        return LINKED
    pinned = (MODULES / program.module / "go.mod").read_text(encoding="utf-8")
    release = re.search(r"k8s\.io/kubernetes (v[\d.]+)", pinned)
    assert release is not None, f"{program.module}/go.mod names no release of Kubernetes"
    return f"{LINKED} {VERSION}{release[1]}"


def _go(program: Program, arguments: list[str], say: Say) -> str:
    took_s = stopwatch_s()
    process = subprocess.Popen(
        ["go", *arguments],
        cwd=MODULES / program.module,
        env=os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        while True:
            try:
                out, err = process.communicate(timeout=STILL_THERE_S)
                break
            except subprocess.TimeoutExpired:
                say(f"    still building {program.name}, {duration(took_s())} so far")
    if process.returncode != 0:
        raise BuildError(_what_went_wrong(program.name, err + out))
    return out


def _what_went_wrong(name: str, said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["go said nothing"]
    refused = r"dial tcp|lookup |Forbidden|Not Found|Bad Gateway|proxyconnect|i/o timeout|TLS"
    if line := next((line for line in lines if re.search(refused, line)), None):
        mend = "check the network and what `go env GOPROXY` names"
        return f"{name}: the sources could not be downloaded: {line}; {mend}, then {GET_IT}"
    return f"{name}: go build failed: {lines[-1]}; mend it, then {GET_IT}"


def _volcano_manifests() -> dict[str, list[dict[str, Any]]]:
    """Return Volcano's own CRDs and webhook configurations, from the module that is built."""
    program = next(program for program in PROGRAMS if program.module == "volcano")
    module = "/".join(program.package.split("/")[:2])
    found = json.loads(_go(program, ["mod", "download", "-json", module], lambda _: None))
    sources = Path(found["Dir"])
    installer = (sources / "installer/volcano-development.yaml").read_text(encoding="utf-8")
    # Loaded document by document: only the few wanted ones of a 10 000 line file are parsed.
    webhooks = [
        yaml.safe_load(document)
        for document in re.split(r"^---$", installer, flags=re.MULTILINE)
        if re.search(r"^kind: \w+WebhookConfiguration$", document, re.MULTILINE)
    ]
    crds = [
        yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        for path in sorted((sources / "config/crd/volcano/bases").glob("*.yaml"))
    ]
    return {"crds": crds, "webhooks": webhooks}


def _write_atomically(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(path)


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def to_stderr(line: str) -> None:
    """Say how far the build is."""
    print(f"cluster-build: {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Build what is missing; return the exit status."""

    try:
        to_stderr(f"complete: {build(to_stderr)}")
    except BuildError as error:
        to_stderr(str(error))
        return 1
    except KeyboardInterrupt:
        to_stderr(f"stopped; what is built is kept, {GET_IT} goes on from here")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
