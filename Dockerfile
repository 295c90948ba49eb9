# Two images from one file:
#
#   docker build -t keyside .                      the agent and the whole command line
#   docker build -t keyside-exec --target exec .   the exec wrapper alone, to be copied into a step's image:
#                                                  COPY --from=keyside-exec /keyside-exec /usr/local/bin/
#
# Both bases are arguments, for those who mirror images or build on their own. Programs that are built already take the
# place of the stages that compile them, as directories with `out/keyside` and `out/keyside-exec` in them:
#
#   docker build --build-context build-agent=DIRECTORY --build-context build-exec=DIRECTORY .
ARG BUILDER=docker.io/library/rust:1.95.0-slim-bookworm
ARG BASE=docker.io/library/debian:bookworm-slim

# --- what both programs are built from -------------------------------------------------------------------------------
# rust-toolchain.toml is not copied: the builder image is the toolchain, and rustup shall fetch no linters.
FROM ${BUILDER} AS source
WORKDIR /source
COPY . .

# --- the agent -------------------------------------------------------------------------------------------------------
# Dynamic: a static glibc cannot look up host names. The base's glibc is 2.36, which link/build.sh counts on. The cache mounts
# outlive the layer, hence the copy to /out.
FROM source AS build-agent
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,sharing=locked \
    program="$(link/build.sh keyside)" && install -D "${program}" /out/keyside

# --- the wrapper alone -----------------------------------------------------------------------------------------------
# Static, so that it runs in any step's image.
FROM source AS build-exec
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,sharing=locked \
    program="$(link/build.sh keyside-exec)" && install -D "${program}" /out/keyside-exec

FROM scratch AS exec
COPY --from=build-exec /out/keyside-exec /keyside-exec
# A step's process has its own user; nothing here needs root.
USER 10001:10001
ENTRYPOINT ["/keyside-exec"]

# --- the agent's image: the last stage, so the one that is built unless another is named -----------------------------
FROM ${BASE} AS agent
# The socket's directory belongs to the agent and nobody else may write to it, or the agent refuses to listen there. A
# volume for sharing the socket is mounted over it. No program of the base lends its owner's rights: nobody here needs su.
RUN groupadd --gid 10001 keyside \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin keyside \
    && install --directory --owner=10001 --group=10001 --mode=0755 /run/keyside \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +
COPY --from=build-agent /out/keyside /usr/local/bin/keyside
# The wrapper is not for the agent: an init container copies it to where a step's container finds it.
COPY --from=build-exec /out/keyside-exec /usr/local/bin/keyside-exec
# By number: an orchestrator that demands a non-root user cannot judge a name.
USER 10001:10001
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/usr/local/bin/keyside", "health"]
ENTRYPOINT ["/usr/local/bin/keyside"]
CMD ["agent"]
