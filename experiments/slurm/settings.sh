# What all jobs share; change it for your cluster. The other scripts read it from the folder in which sbatch is called.
# shellcheck shell=bash disable=SC2034  # the variables are used by the scripts that read this file

CREFJAX=${CREFJAX:-/shared/software/crefjax/bin/crefjax}   # the command, on a file system that all nodes share
ENTRIES=${ENTRIES:-entries}                                # folder of entry folders, as crefjax fetch makes it
DATASET=${DATASET:-dataset}                                # folder of the dataset
CONFIG=${CONFIG:-experiments/configs/paper.py}             # what to train
WORKDIR=${WORKDIR:-runs/paper}                             # folder of the run
