# The controller:      docker build --tag pd-planner .
# With the simulator:  docker build --build-arg EXTRAS=simulation --tag pd-planner .
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
COPY requirements.lock ./
# Every file is checked against the lock's hashes here; the later steps see /wheels and no network.
RUN pip download --no-cache-dir --no-deps --require-hashes --only-binary :all: --dest /wheels --requirement requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY planner planner
COPY predictors predictors
COPY profiles profiles
RUN pip wheel --no-cache-dir --no-index --find-links /wheels --no-deps --wheel-dir /wheels .
# `run` needs no extra; `simulation` and `prophet` are in the lock.
ARG EXTRAS=""
# /wheels holds one version of everything: the lock's.
# hadolint ignore=DL3013
RUN python -m venv --without-pip /opt/pd-planner \
    && pip --python /opt/pd-planner install --no-cache-dir --no-index --find-links /wheels "pd-planner${EXTRAS:+[${EXTRAS}]}"

FROM python:${PYTHON_VERSION}-slim
LABEL org.opencontainers.image.title="pd-planner" \
      org.opencontainers.image.description="SLA-driven autoscaling of disaggregated prefill and decode pools for LLM serving" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/pd-planner /opt/pd-planner
ENV PATH="/opt/pd-planner/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    OPENBLAS_NUM_THREADS=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can prove runAsNonRoot without reading the image's user table.
USER 65532:65532
# The page, /metrics and health, where `run` is given --listen=:8080 as in manifests/.
EXPOSE 8080
ENTRYPOINT ["pd-planner"]
CMD ["--help"]
