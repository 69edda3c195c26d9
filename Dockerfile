# One image for every command: `docker build -t docv-archive .`, then `docker run docv-archive --help`.
# The base is at least Python 3.13.14: docs/design.md says what older ones do with a forged ZIP.

FROM python:3.13.14-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    UV_COMPILE_BYTECODE=1 UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1
# `--build-arg PINS=tracing` adds what DOCV_TRACING needs.
ARG PINS=runtime
WORKDIR /build
COPY constraints/ constraints/
RUN pip install --require-hashes -r constraints/uv.txt \
 && uv venv /opt/docv-archive \
 && uv pip install --python /opt/docv-archive --require-hashes -r constraints/${PINS}.txt
# The layers below change with every commit; those above stay cached.
COPY pyproject.toml README.md LICENSE ./
COPY worker/ worker/
COPY tasks/ tasks/
COPY scripts/ scripts/
# The build tools of the wheel are pinned by the constraints that developers use.
RUN uv build --wheel --require-hashes --build-constraints constraints/develop.txt --out-dir dist \
 && uv pip install --python /opt/docv-archive --no-deps dist/*.whl

FROM python:3.13.14-slim
# The commit is a label of the build: CONTRIBUTING.md, Releases.
LABEL org.opencontainers.image.title="docv-archive" \
      org.opencontainers.image.description="Carries the images of Socure RiskOS DocV evaluations into an archive of your own, and proves it." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
# A fixed number, so that a volume's owner is known in advance and a cluster can verify that it is not root.
RUN groupadd --gid 10001 docv \
 && useradd --uid 10001 --gid docv --no-log-init --home-dir /var/lib/docv-archive --shell /usr/sbin/nologin docv \
 && install --directory --owner docv --group docv --mode 0700 /var/lib/docv-archive
COPY --from=build /opt/docv-archive /opt/docv-archive
# Only /var/lib/docv-archive and /tmp are written to: the root file system may be read-only.
ENV PATH=/opt/docv-archive/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    DOCV_STATE_DIR=/var/lib/docv-archive/state
WORKDIR /var/lib/docv-archive
VOLUME /var/lib/docv-archive
USER 10001:10001
STOPSIGNAL SIGTERM
# Healthy means only that the settings are valid and that Redis answers from this container.
# The worker needs no check of its own: it is the container's process, and both end together.
HEALTHCHECK --interval=60s --timeout=15s --start-period=30s --retries=3 \
    CMD docv-archive status > /dev/null || exit 1
ENTRYPOINT ["docv-archive"]
CMD ["worker"]
