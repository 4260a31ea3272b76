# syntax=docker/dockerfile:1
# The demo in a container:
#   docker build --tag dcls_mm .
#   docker run --rm --shm-size 1g --volume "$PWD/work_dirs:/dcls_mm/work_dirs" dcls_mm
# `--build-arg TORCH_INDEX=...` names an index with CPU builds of torch; without it pip
# installs the CUDA builds, which are much larger.
FROM python:3.11-slim-bookworm

# mmcv and csrc/ are compiled with these; OpenCV's headless build needs no other packages.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /dcls_mm
COPY . .

# Not in the cache below, which is no part of the image.
ENV DCLS_MM_NATIVE_LIBRARY=/dcls_mm/build/native/libdcls_direct.so

ARG TORCH_INDEX=
# The cache keeps the mmcv wheel for the next build.
RUN --mount=type=cache,target=/root/.cache \
    PIP_EXTRA_INDEX_URL="$TORCH_INDEX" make env

CMD ["make", "demo"]
