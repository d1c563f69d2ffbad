"""skaffold.yaml names what the rest of the project names; whether skaffold understands it: tests/images."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
import yaml
from images.lock import PROJECT, stages

SKAFFOLD = yaml.safe_load((PROJECT / "skaffold.yaml").read_text())
ARTIFACTS = {artifact["image"]: artifact["custom"] for artifact in SKAFFOLD["build"]["artifacts"]}
PROFILES = {profile["name"]: profile for profile in SKAFFOLD["profiles"]}
RELEASE = SKAFFOLD["deploy"]["helm"]["releases"][0]
CHART = PROJECT / "helm/ecomm-data-pipeline"


def workflow_images() -> set[str]:
    texts = (path.read_text() for path in (CHART / "workflows").glob("*.yaml"))
    return {name for text in texts for name in re.findall(r"^\s+image: (\S+):[^:\s]+$", text, re.MULTILINE)}


def test_it_builds_the_images_that_the_workflows_run():
    assert workflow_images() <= set(ARTIFACTS)


def test_it_builds_each_image_as_make_does():
    assert {name: custom["buildCommand"] for name, custom in ARTIFACTS.items()} == {
        f"ecomm-data-pipeline/{stage}": f"images/build {stage}" for stage in stages()
    }
    assert re.search(r"^images:.*\n(?:\t.*\n)*\t.*\bimages/build$", (PROJECT / "Makefile").read_text(), re.MULTILINE)


def test_it_hands_every_image_to_the_chart_by_its_stage():
    assert RELEASE["setValueTemplates"] == {
        f"images.{name.rpartition('/')[2]}": f"{{{{.IMAGE_FULLY_QUALIFIED_{re.sub('[/.:-]', '_', name)}}}}}"
        for name in ARTIFACTS
    }


def test_it_installs_the_release_that_the_cluster_has():
    deploy = (PROJECT / "cluster/deploy").read_text()
    assert f"pipeline={RELEASE['name']}\n" in deploy
    assert re.search(rf"helm upgrade --install .* -n {RELEASE['namespace']} ", deploy)
    assert PROJECT / RELEASE["chartPath"] == CHART
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["name"] == CHART.name


@pytest.mark.parametrize("profile", ["kind", "prod"])
def test_the_profiles_add_values_to_that_release(profile):
    patches = PROFILES[profile]["patches"]
    assert [patch["path"] for patch in patches] == ["/deploy/helm/releases/0/valuesFiles"]


def test_the_values_for_kind_are_those_of_the_cluster_and_the_chart_accepts_them():
    [file] = PROFILES["kind"]["patches"][0]["value"]
    assert file.replace("ecomm-data-pipeline", "$pipeline") in (PROJECT / "cluster/deploy").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text()) | yaml.safe_load((PROJECT / file).read_text())
    values["images"] = {key.removeprefix("images."): "name:tag" for key in RELEASE["setValueTemplates"]}
    jsonschema.validate(values, json.loads((CHART / "values.schema.json").read_text()))


def test_it_rebuilds_for_whatever_goes_into_an_image():
    watched = [path.removesuffix("/**") for path in next(iter(ARTIFACTS.values()))["dependencies"]["paths"]]
    dockerfile = (PROJECT / "images/Dockerfile").read_text()
    copied = {
        source
        for arguments in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE)
        for source in arguments.split()
        if not source.startswith(("dist/", "README", "LICENSE"))
    }
    assert {
        path for path in copied if not any(path == known or path.startswith(f"{known}/") for known in watched)
    } == set()
