#!/usr/bin/env bash
# Test in a Slurm job:
#   tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of test.py]
# Environment variables (defaults in brackets): GPUS, the total (8); GPUS_PER_NODE (8);
# CPUS_PER_TASK (5); SRUN_ARGS, more arguments of srun, separated by spaces. Jobs that
# share a node each need their own MASTER_PORT (29500).
set -euo pipefail

if [ "$#" -lt 4 ]; then
    sed -n '2,3s/^# *//p' "$0" >&2
    exit 2
fi
partition=$1
job_name=$2
config=$3
checkpoint=$4
shift 4
gpus_per_node=${GPUS_PER_NODE:-8}
read -r -a srun_args <<<"${SRUN_ARGS:-}"

exec srun \
    --partition="$partition" \
    --job-name="$job_name" \
    --gres=gpu:"$gpus_per_node" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${srun_args[@]+"${srun_args[@]}"} \
    "${PYTHON:-python}" -u "$(dirname "$0")/test.py" "$config" "$checkpoint" \
    --launcher slurm "$@"
