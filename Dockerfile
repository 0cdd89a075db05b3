# wsi-norm in a container.
#
#   docker build -t wsi-norm .                                   PyTorch for the CPU
#   docker build -t wsi-norm:cuda --build-arg TORCH_BACKEND=cu128 .   PyTorch for CUDA 12.8
#   docker run --rm -v "$PWD":/data wsi-norm run slides/*.svs -o normalized     (--gpus all for CUDA)

FROM python:3.11.14-slim-bookworm

ARG TORCH_BACKEND=cpu

RUN apt-get update \
    && apt-get install --yes --no-install-recommends make=4.3-4.1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 wsi \
    && pip install --no-cache-dir uv==0.13.9

WORKDIR /opt/wsi-norm
COPY pyproject.toml constraints.txt Makefile README.md LICENSE ./
COPY wsi_norm wsi_norm
COPY cli cli
COPY sample_configs sample_configs

# The Makefile's own recipe; only the PyTorch build is chosen here.
RUN make install VENV=/opt/venv PIP="/opt/venv/bin/python -m pip --no-cache-dir" \
    TORCH_INSTALL="uv pip install --no-cache --python /opt/venv --constraint constraints.txt --torch-backend ${TORCH_BACKEND} torch"

ENV PATH=/opt/venv/bin:$PATH

# Kernels for the processor of this build, kept beside the package, where whoever runs the image reads
# them. On another model of processor they are compiled anew, into NUMBA_CACHE_DIR.
RUN wsi-norm warm-up
ENV NUMBA_CACHE_DIR=/tmp/wsi-norm
USER 1000
WORKDIR /data
ENTRYPOINT ["wsi-norm"]
CMD ["--help"]
