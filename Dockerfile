# syntax=docker/dockerfile:1
#
# Two images from one recipe. `docker build .` makes the worker: both engines, for a GPU with driver 570 or newer.
# `docker build --target draft .` makes the draft engine alone: no torch, no GPU, an eighth of the size.
#
# torch's wheels for CUDA 12.8 bring their own CUDA runtime, so the base holds none: a CUDA base image would carry the same
# libraries a second time. The driver comes from the host. Sizes, layer by layer: docs/deploy.md.

ARG BASE=debian:bookworm-slim

# The interpreter and the certificates: all that both the build and the running image need of the system.
# hadolint ignore=DL3006
FROM ${BASE} AS system
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*

# The installer stays here: nothing that runs can install anything.
FROM system AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build

# torch alone, from PyTorch's own index: the largest layer by far, and the one that changes least.
FROM build AS torch
RUN python3 -m venv --without-pip /opt/torch \
    && python3 -m pip --python /opt/torch/bin/python install --no-cache-dir \
        --index-url https://download.pytorch.org/whl/cu128 torch==2.11.0

# What the draft engine, the handler and the tracer need, the code, and the compiled kernels.
FROM build AS core
COPY pyproject.toml ./
RUN python3 -m venv --without-pip /opt/packages \
    && python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > core.txt \
    && python3 -m pip --python /opt/packages/bin/python install --no-cache-dir --requirement core.txt
COPY README.md handler.py ./
COPY pipeline pipeline
COPY models models
COPY builder builder
COPY serve serve
RUN python3 -m pip --python /opt/packages/bin/python install --no-cache-dir --no-deps --target /opt/livery .
COPY test_input.json /opt/livery/
WORKDIR /opt/livery
ENV PATH=/opt/packages/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin \
    PYTHONPATH=/opt/livery \
    NUMBA_CACHE_DIR=/opt/kernels
RUN python -m pipeline compile \
    && python -c "import runpod, handler, pipeline.command, builder.choice"

# The studio engine's packages see torch where it lies, so they bring no second one.
FROM core AS studio
WORKDIR /build
RUN --mount=type=bind,from=torch,source=/opt/torch,target=/opt/torch \
    python3 -c "import pathlib, sys; v = f'lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages'; \
pathlib.Path(f'/opt/packages/{v}/torch.pth').write_text(f'/opt/torch/{v}\n')" \
    && python3 -c "import tomllib; \
print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['studio'], sep='\n')" > studio.txt \
    && python3 -m pip --python /opt/packages/bin/python install --no-cache-dir \
        --requirement core.txt --requirement studio.txt
# get_arch_list() is empty where there is no GPU, as on most builders; what torch was compiled for is asked here.
WORKDIR /opt/livery
RUN --mount=type=bind,from=torch,source=/opt/torch,target=/opt/torch \
    python -c "import torch; flags = torch._C._cuda_getArchFlags().split(); \
assert torch.version.cuda == '12.8', torch.version.cuda; assert 'sm_120' in flags, flags; \
assert torch.__file__.startswith('/opt/torch/'), torch.__file__" \
    && python -c "import importlib, pkgutil, models; \
[importlib.import_module(f'models.{found.name}') for found in pkgutil.iter_modules(models.__path__)]" \
    && python -m builder --help > /dev/null

# What every image runs as and with.
FROM system AS runtime
RUN useradd --system --uid 10001 --user-group --create-home --home-dir /var/lib/livery livery
ENV PATH=/opt/packages/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/livery \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/opt/kernels
WORKDIR /opt/livery
USER 10001:10001
# A real job on a tiny picture, on the processor: it loads no model and takes no GPU memory.
HEALTHCHECK --interval=5m --timeout=60s --start-period=2m CMD ["python", "-c", "import sys; \
from pipeline.health import ping; from pipeline.settings import load_settings; from pipeline.worker import Worker; \
sys.exit(ping(Worker(load_settings())).status != 'ready')"]
CMD ["python", "handler.py"]

FROM runtime AS draft
ENV LIVERY_AUTO_ENGINE=draft
COPY --from=core /opt/packages /opt/packages
COPY --from=core /opt/livery /opt/livery
COPY --from=core --chown=10001:10001 /opt/kernels /opt/kernels

FROM runtime AS worker
ENV LIVERY_AUTO_ENGINE=studio \
    LIVERY_VOLUME=/runpod-volume \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA=cuda>=12.8
COPY --from=torch /opt/torch /opt/torch
COPY --from=studio /opt/packages /opt/packages
COPY --from=core /opt/livery /opt/livery
COPY --from=core --chown=10001:10001 /opt/kernels /opt/kernels
