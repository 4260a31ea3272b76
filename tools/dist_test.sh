#!/usr/bin/env bash
# Test on several GPUs or, without GPUs, in several processes:
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of test.py]
# For several machines, run it on each of them with NNODES, NODE_RANK (0 ... NNODES-1),
# MASTER_ADDR (the address of rank 0) and PORT set.
set -euo pipefail

if [ "$#" -lt 3 ]; then
    sed -n '2,3s/^# *//p' "$0" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3

exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node-rank="${NODE_RANK:-0}" \
    --nproc-per-node="$gpus" \
    --master-addr="${MASTER_ADDR:-127.0.0.1}" \
    --master-port="${PORT:-29500}" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
