# Fanfare in a container: one binary, the few files it needs, no shell, and a user without rights.
#
# From the source, for this machine or, with buildx, for others (compiled across, not emulated):
#   docker build --tag fanfare .
#   docker buildx build --platform linux/amd64,linux/arm64 --tag fanfare .
#
# From a binary that is built already, without any other image (its glibc is this machine's):
#   config/image/collect target/release/fanfare /tmp/fanfare-image
#   docker build --file Dockerfile --target packed --tag fanfare /tmp/fanfare-image
#
# With Podman or Buildah add --format docker: the OCI format has no HEALTHCHECK.

# A compiler on Debian; its glibc becomes the image's.
ARG RUST_IMAGE=docker.io/library/rust:1-slim-bookworm

# What both kinds have in common: everything but the files.
FROM scratch AS base
ARG VERSION=unreleased
ARG REVISION=unknown
# As in 2026-01-31T12:00:00Z.
ARG CREATED=
ARG SOURCE=https://github.com/fanfare/fanfare
LABEL org.opencontainers.image.title="Fanfare" \
      org.opencontainers.image.description="A self-hosted Pusher Channels server" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="MIT"
# Metrics and probes are for the container's network; the admin API stays inside.
ENV FANFARE_SERVER_BIND=0.0.0.0:6001 \
    FANFARE_METRICS_BIND=0.0.0.0:9601
EXPOSE 6001 9601
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
# Closing thousands of connections takes longer than the 10 s that docker stop gives: run it with --stop-timeout 30.
STOPSIGNAL SIGTERM
# Whether it is alive, not whether it is ready: what restarts unhealthy containers must not do so, and drop every client,
# because Redis is away.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["/usr/bin/fanfare", "healthcheck", "--live"]
ENTRYPOINT ["/usr/bin/fanfare"]
CMD ["serve"]

FROM --platform=$BUILDPLATFORM ${RUST_IMAGE} AS build
ARG TARGETARCH
WORKDIR /src
COPY config/image/build config/image/
RUN ["config/image/build", "prepare"]
COPY . .
RUN --mount=type=cache,id=fanfare-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=fanfare-target,target=/target,sharing=locked \
    ["config/image/build", "compile", "/target", "/collected"]

# Takes what config/image/collect has put together.
FROM base AS packed
COPY system /
COPY --chown=65532:65532 state /var/lib/

FROM base AS compiled
COPY --from=build /collected/system /
COPY --from=build --chown=65532:65532 /collected/state /var/lib/
