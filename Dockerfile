# A digest pins the base for good: --build-arg BASE_IMAGE=python:3.13-slim-bookworm@sha256:...
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
# Empty for an image without Microsoft's ODBC driver: --build-arg BUNDLED_DRIVER=
ARG BUNDLED_DRIVER=yes
COPY .ci/uv.txt .ci/
RUN pip install --no-cache-dir --require-hashes -r .ci/uv.txt
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /app
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --locked --no-dev --no-install-project --no-build \
        $([ -n "${BUNDLED_DRIVER}" ] || echo --no-install-package mssql-python-odbc)
COPY sam sam
# No history comes in here to take the version from: --build-arg VERSION=0.1.0
ARG VERSION=""
RUN SETUPTOOLS_SCM_PRETEND_VERSION=${VERSION} \
        uv sync --locked --no-dev --no-editable --inexact --only-install-project
COPY .docker/notice.py .docker/healthcheck.py .docker/
# What stays behind: uv's lock, which all may write; Microsoft's driver as built for other
# distributions; the sources of compiled modules. What is carried on is for all to read, whatever
# umask the checkout was made with.
RUN .venv/bin/python .docker/notice.py > NOTICE.txt \
    && rm .venv/.lock \
    && chmod -R u=rwX,go=rX .venv .docker LICENSE NOTICE.txt \
    && cd .venv/lib/python*/site-packages \
    && rm -rf mssql_python_odbc/libs/linux/rhel mssql_python_odbc/libs/linux/suse \
    && find . -name '*.pyx' -delete

FROM ${BASE_IMAGE}
# Debian packages to add, such as another database's ODBC driver (odbc-postgresql).
ARG EXTRA_PACKAGES=""
# The driver manager, what Microsoft's driver links, SQLite's driver for `serve --embedded`; and
# tini, since a container's first process gets no signal that it has no handler for yet.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        unixodbc libgssapi-krb5-2 libsqliteodbc tini ${EXTRA_PACKAGES} \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 sam \
    && useradd --uid 10001 --gid sam --home-dir /data --no-create-home --shell /usr/sbin/nologin sam \
    && install -d -o sam -g sam -m 0750 /data
# The base has the standard library without its bytecode, and the service can write none: compiled at
# each start and each health check, it costs more than all else that they do.
RUN python -m compileall -q -x '/(site|dist)-packages/|/(test|idlelib|tkinter|turtledemo|ensurepip)/' \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=build /app/.venv /app/.venv
COPY --from=build /app/LICENSE /app/NOTICE.txt /app/.docker/healthcheck.py /app/
ARG BASE_IMAGE
ARG VERSION=""
ARG BUNDLED_DRIVER=yes
LABEL org.opencontainers.image.title="SAM Callback Service" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.description="Receives Automation 360 deployment callbacks and writes their status into SAM's database. What it carries, and on which terms: /app/NOTICE.txt." \
      org.opencontainers.image.licenses="MIT${BUNDLED_DRIVER:+ AND LicenseRef-Microsoft-ODBC-Driver-18}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    CALLBACK_SPOOL_PATH=/data/callback-spool.db
# Not /data: nothing is run or read from what the service can write, but its spool.
WORKDIR /app
VOLUME /data
# By number: Kubernetes' runAsNonRoot cannot tell who a name is.
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "/app/healthcheck.py"]
ENTRYPOINT ["tini", "--"]
CMD ["sam-callback"]
