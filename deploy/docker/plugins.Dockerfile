# The service with plugins. Put the plugins' packages into a folder `plugins` beside a copy of this file, and
#
#     docker build -f plugins.Dockerfile -t headrace-with-plugins .
#
# They are built where pip is; only what is installed gets into the image. BASE has the Python of HEADRACE.
ARG HEADRACE=headrace
ARG BASE=docker.io/library/python:3.13-slim-bookworm

FROM ${HEADRACE} AS headrace

FROM ${BASE} AS build
COPY --from=headrace /opt/headrace /opt/headrace
COPY plugins /src
# What the image has is kept, in its versions: pip refuses a plugin that needs others.
RUN python3 -m venv /build \
 && /build/bin/pip --python /opt/headrace/bin/python freeze --exclude headrace > /build/kept.txt \
 && /build/bin/pip --python /opt/headrace/bin/python install --quiet --no-cache-dir --prefix /plugins \
      --constraint /build/kept.txt /src/*

FROM headrace
COPY --from=build /plugins /opt/headrace
