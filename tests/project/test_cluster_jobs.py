"""The Slurm array and the Kubernetes Jobs: what their tasks run, run in a shell, tries each cell once and joins all."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CELLS, COLLECT = yaml.safe_load_all((EXAMPLES / "matrix_job.yaml").read_text())
HARNESS = """#!{python}
import sys
from pathlib import Path
Path("calls").open("a").write(" ".join(sys.argv[1:]) + "\\n")
sys.exit({code})
"""


@pytest.fixture
def run(tmp_path):
    """Run words as a task does, with a stand-in for `falsify` that notes its words and ends with a code."""

    def make(words, code=0, **given):
        shutil.copy(EXAMPLES / "matrix_task.sh", tmp_path)
        program = tmp_path / "falsify"
        program.write_text(HARNESS.format(python=sys.executable, code=code))
        program.chmod(0o755)
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(words, cwd=tmp_path, env={"PATH": path, **given}, timeout=60, check=False)
        return done.returncode, (tmp_path / "calls").read_text().splitlines()

    return make


def container(job):
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only


def settings(job):
    return {each["name"]: each["value"] for each in container(job).get("env", [])}


@pytest.mark.parametrize(("code", "task"), [(0, 0), (1, 0), (2, 2), (3, 0), (4, 4)])
def test_a_pod_tries_the_cell_of_its_index_and_fails_only_without_a_record(run, code, task):
    done, calls = run(container(CELLS)["command"], code, JOB_COMPLETION_INDEX="6", **settings(CELLS))
    assert done == task
    assert calls == ["matrix matrix.toml --out out --cell 7"]


def test_a_slurm_task_tries_the_cell_of_its_number(run):
    assert run(["sh", "matrix_task.sh"], SLURM_ARRAY_TASK_ID="7") == (
        0,
        ["matrix matrix.toml --out falsify-matrix --cell 7"],
    )


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_the_last_pod_joins_the_cells_and_ends_with_the_worst_code(run, code):
    assert run(container(COLLECT)["command"], code) == (code, ["matrix matrix.toml --out out --collect"])


def test_every_index_is_one_pod_with_one_gpu_and_the_shared_directory():
    spec = CELLS["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] >= spec["parallelism"] >= 1
    assert container(CELLS)["resources"]["limits"] == {"nvidia.com/gpu": 1}
    for job in (CELLS, COLLECT):
        assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
        pod = job["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        (mounted,) = container(job)["volumeMounts"]
        assert mounted["mountPath"] == container(job)["workingDir"]
        assert [mounted["name"]] == [volume["name"] for volume in pod["volumes"]]
