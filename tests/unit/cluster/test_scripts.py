"""The cluster's scripts: versions are said once and agree, and a machine that cannot run a cluster is told so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CLUSTER = ROOT / "cluster"
SCRIPTS = sorted(
    path
    for path in CLUSTER.rglob("*")
    if path.is_file() and path.read_bytes().startswith(b"#!") and path.name != "lib.sh"
)
VERSIONS = dict(re.findall(r"^([A-Z]+)=(\S+)$", (CLUSTER / "versions").read_text(), re.MULTILINE))
GO_MOD = "".join(path.read_text() for path in sorted((CLUSTER / "offline/go").rglob("go.mod")))


def run(script: str, *arguments: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shutil.which("bash") or "bash", str(CLUSTER / script), *arguments],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(CLUSTER)))
def test_each_script_parses_and_can_be_run(script):
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False).stderr == ""
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("KUBERNETES", "k8s.io/kubernetes"),
        ("ETCD", "go.etcd.io/etcd/server/v3"),
        ("COREDNS", "github.com/coredns/coredns"),
        ("KIND", "sigs.k8s.io/kind"),
        ("HELM", "helm.sh/helm/v3"),
    ],
)
def test_what_is_built_from_modules_is_of_the_version_that_is_named(name, module):
    assert re.search(rf"^(?:\t|require ){re.escape(module)} (\S+)", GO_MOD, re.MULTILINE).group(1) == VERSIONS[name]


def test_all_of_kubernetes_is_of_one_version():
    replaced = set(re.findall(r"^replace \S+ => \S+ v0\.(\S+)$", GO_MOD, re.MULTILINE))
    assert replaced == {VERSIONS["KUBERNETES"].removeprefix("v1.")}


def test_the_chart_supports_the_kubernetes_that_it_is_tested_on():
    chart = yaml.safe_load((ROOT / "helm/ecomm-data-pipeline/Chart.yaml").read_text())
    lowest = re.fullmatch(r">=1\.(\d+)\.\d+-0", chart["kubeVersion"]).group(1)
    assert int(lowest) <= int(VERSIONS["KUBERNETES"].split(".")[1])


def test_the_readme_tells_the_versions_that_are_installed():
    readme = (CLUSTER / "README.md").read_text()
    for product, name in (("Kubernetes", "KUBERNETES"), ("Argo Workflows", "ARGO")):
        major_minor = ".".join(VERSIONS[name].removeprefix("v").split(".")[:2])
        assert f"{product} {major_minor}" in readme


def test_env_can_be_evaluated_and_names_a_kubeconfig_of_its_own(tmp_path):
    cache = tmp_path / "a folder"
    printed = run("env", cache=cache).stdout
    command = f'{printed}\nprintf "%s\\n" "$KUBECONFIG" "${{PATH%%:*}}"'
    kubeconfig, first = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert Path(kubeconfig) == cache / "ecomm-data-pipeline/cluster/ecomm.kubeconfig"
    assert Path(first) == cache / "ecomm-data-pipeline/cluster/bin"


def test_without_docker_and_without_root_it_ends_with_3_and_says_how_to_get_docker(tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("dirname", "mkdir", "sed", "awk", "bash"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "id").chmod(0o755)
    ended = run("engine", cache=tmp_path, PATH=str(tools))
    assert ended.returncode == 3
    assert ended.stderr.startswith("cluster: no Docker engine answers: install and start Docker")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "arguments"), [("up", ["now"]), ("down", ["everything"]), ("load", []), ("engine", ["restart"])]
)
def test_a_wrong_call_ends_with_64_and_the_usage(script, arguments, tmp_path):
    ended = run(script, *arguments, cache=tmp_path)
    assert (ended.returncode, "usage: cluster/" in ended.stderr) == (64, True)


def test_a_source_that_does_not_exist_is_refused(tmp_path):
    ended = run("tools", "helm", cache=tmp_path, CLUSTER_SOURCE="internet")
    assert ended.returncode == 64
    assert "write registry (download) or build" in ended.stderr


@pytest.mark.parametrize("script", ["up", "down", "env", "load", "tools", "base-image", "engine", "overhead"])
def test_each_command_tells_what_it_is_for(script, tmp_path):
    told = run(script, "--help", cache=tmp_path)
    assert f"cluster/{script}" in told.stdout
    assert "source" not in told.stdout.splitlines()[-1]
