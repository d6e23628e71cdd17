#!/bin/bash
# Train on all GPUs of several nodes, one process on each node. From the folder of the repository:
#
#   sbatch --nodes=2 --gpus-per-node=4 experiments/slurm/train.sh --config.batch=24
#
# Words after the script are given to crefjax train. The batch has to be a multiple of the number of all GPUs. Two
# minutes before its time is over the job saves, and queues itself again; so it does if it is preempted. The processes
# find each other through SLURM.
#SBATCH --job-name=crefjax-train
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
source experiments/slurm/settings.sh

# SLURM sends the signal to this shell alone, which passes it on to all processes and waits for them to save.
srun --kill-on-bad-exit=1 "$CREFJAX" train --config="$CONFIG" --workdir="$WORKDIR" \
    --config.data.dataset.folder="$DATASET" "$@" &
step=$!
trap 'kill -TERM "$step"' TERM
wait "$step"
status=$?
while kill -0 "$step" 2>/dev/null; do # the signal ended the first wait
    wait "$step"
    status=$?
done

if [ "$status" -eq 143 ]; then
    echo "crefjax: saved before the end of the job, which is queued again"
    scontrol requeue "$SLURM_JOB_ID"
elif [ "$status" -ne 0 ]; then
    echo "crefjax: the job ended with status $status; the same sbatch command resumes it from the newest checkpoint"
fi
exit "$status"
