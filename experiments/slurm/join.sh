#!/bin/bash
# Join the parts of a dataset after experiments/slurm/prepare.sh, which describes how both are submitted.
#SBATCH --job-name=crefjax-join
#SBATCH --cpus-per-task=4
#SBATCH --mem=24G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
source experiments/slurm/settings.sh

exec "$CREFJAX" prepare "$ENTRIES"/* -o "$DATASET" --jobs "$SLURM_CPUS_PER_TASK"
