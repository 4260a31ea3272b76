# syntax=docker/dockerfile:1
# The demo in a container:
#   docker build --tag dcls_mm .
#   docker run --rm --shm-size 1g --volume "$PWD/work_dirs:/dcls_mm/work_dirs" dcls_mm
# `--build-arg TORCH_INDEX=...` names an index with the CPU builds of torch; without it
# pip takes the builds for CUDA, which are much larger.
FROM python:3.11-slim-bookworm

# For mmcv, which is compiled; OpenCV's headless build needs no more.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /dcls_mm
COPY . .

ARG TORCH_INDEX=
# The cache keeps the wheel of mmcv for the next build.
RUN --mount=type=cache,target=/root/.cache \
    PIP_EXTRA_INDEX_URL="$TORCH_INDEX" make env

CMD ["make", "demo"]
