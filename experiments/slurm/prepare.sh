#!/bin/bash
# Prepare a dataset as an array of jobs, one part each. From the folder of the repository:
#
#   sbatch --array=1-16 experiments/slurm/prepare.sh
#   sbatch --dependency=afterok:JOB experiments/slurm/join.sh  # JOB: the number that the first command prints
#
# A task that failed or was cut off is submitted again by its number, as in --array=5, and continues where it stopped.
# Memory: about six maps of the largest entry for each of the four worker processes.
#SBATCH --job-name=crefjax-prepare
#SBATCH --cpus-per-task=4
#SBATCH --mem=24G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source experiments/slurm/settings.sh

# Numbers of an array may begin anywhere; parts are numbered from 1. PARTS is needed if only some tasks are submitted.
parts=${PARTS:-$SLURM_ARRAY_TASK_COUNT}
exec "$CREFJAX" prepare "$ENTRIES"/* -o "$DATASET" --part "$SLURM_ARRAY_TASK_ID/$parts" --jobs "$SLURM_CPUS_PER_TASK"
