#!/bin/sh
# One cell of a matrix: a task of a Slurm array, or a pod of an indexed Kubernetes Job.
#SBATCH --job-name=falsify
#SBATCH --gres=gpu:1
#SBATCH --exclusive
# Submit with --array=1-N, N being the number of cells. MATRIX and OUT lie on a file system that all hosts share.
set -u
number=${SLURM_ARRAY_TASK_ID:-$((JOB_COMPLETION_INDEX + 1))}
${FALSIFY:-falsify} matrix "${MATRIX:-matrix.toml}" --out "${OUT:-falsify-matrix}" --cell "$number"
code=$?
# A falsified engine is a result, not a failed task; only what left no whole record is to be tried again.
case $code in 0 | 1 | 3) exit 0 ;; *) exit $code ;; esac
