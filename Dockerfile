ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG UV_VERSION=0.13.9
RUN pip install --no-cache-dir uv==${UV_VERSION}
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /app
COPY pyproject.toml uv.lock README.md LICENSE ./
RUN uv sync --locked --no-dev --no-install-project
COPY sam sam
RUN uv sync --locked --no-dev --no-editable

FROM ${BASE_IMAGE}
# The driver manager, what Microsoft's driver links, and SQLite's driver for `serve --embedded`.
RUN apt-get update \
    && apt-get install -y --no-install-recommends unixodbc libgssapi-krb5-2 libsqliteodbc \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --uid 10001 sam \
    && install -d -o sam -g sam /data
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    CALLBACK_SPOOL_PATH=/data/callback-spool.db
WORKDIR /data
VOLUME /data
USER sam
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "-c", "\
import os, ssl, urllib.request as u; \
s = 'https' if os.environ.get('CALLBACK_SSL_CERTFILE') else 'http'; \
p = os.environ.get('CALLBACK_PORT') or '8000'; \
c = ssl._create_unverified_context() if s == 'https' else None; \
u.urlopen(f'{s}://127.0.0.1:{p}/health', timeout=2, context=c)"]
CMD ["python", "-m", "sam.callback"]
