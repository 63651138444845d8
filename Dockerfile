# One image for every process of the control plane; `--target runtime` is the host runtime alone, without drivers of
# databases, Redis or Temporal. BASE may name any image with Python 3.11 or newer.
ARG BASE=python:3.11-slim-bookworm
ARG GO=golang:1.26-bookworm

FROM ${GO} AS guest
COPY sandbox/guest /src/sandbox/guest
RUN sh /src/sandbox/guest/build.sh /guest

FROM ${BASE} AS wheels
WORKDIR /app
COPY requirements.lock pyproject.toml ./
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock

FROM ${BASE} AS runtime-wheels
WORKDIR /app
COPY deploy/requirements/runtime.lock ./runtime.lock
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r runtime.lock

FROM ${BASE} AS base
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin awgp
WORKDIR /app
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

FROM base AS runtime
COPY --from=runtime-wheels /venv /venv
COPY --from=guest /guest /opt/awgp/guest
COPY models/__init__.py models/__init__.py
COPY models/domain models/domain
COPY sandbox sandbox
COPY workers/__init__.py workers/runtime.py workers/
USER awgp
CMD ["python", "-m", "workers.runtime"]

FROM base AS control-plane
COPY --from=wheels /venv /venv
COPY activities activities
COPY api api
COPY cli cli
COPY deploy/seed.yaml deploy/seed.yaml
COPY models models
COPY sandbox sandbox
COPY workers workers
COPY workflows workflows
USER awgp
CMD ["python", "-m", "workers.api"]
