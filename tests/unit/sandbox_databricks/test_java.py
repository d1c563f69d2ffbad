"""A Java that is cut down starts all the same."""

from __future__ import annotations

import subprocess

import pytest

from ecomm_sandbox.databricks.spark import with_what_spark_asks_for


@pytest.fixture
def java_with(tmp_path):
    def make(modules):
        home = tmp_path / "a java"
        (home / "bin").mkdir(parents=True)
        (home / "release").write_text(f'JAVA_VERSION="25"\nMODULES="{modules}"\n')
        (home / "bin" / "java").write_text('#!/bin/sh\nfor one do echo "$one"; done\n')
        (home / "bin" / "java").chmod(0o755)
        return home

    return make


def test_a_whole_java_is_taken_as_it_is(java_with, tmp_path):
    home = java_with("java.base jdk.incubator.vector")
    assert with_what_spark_asks_for(home, tmp_path / "made") == home


def test_a_java_without_the_vector_module_is_started_without_asking_for_it(java_with, tmp_path):
    made = with_what_spark_asks_for(java_with("java.base java.se"), tmp_path / "made")
    options = ["-Xmx1g", "--add-modules=jdk.incubator.vector", "a b", "--add-modules=java.se"]
    done = subprocess.run([made / "bin" / "java", *options], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["-Xmx1g", "a b", "--add-modules=java.se"]


def test_a_java_that_does_not_tell_its_modules_is_taken_as_it_is(tmp_path):
    assert with_what_spark_asks_for(tmp_path, tmp_path / "made") == tmp_path
