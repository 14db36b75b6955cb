FROM rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS tools
# They only build, so they need not be fast.
RUN cargo install --locked --debug cargo-chef@0.1.78 cargo-auditable@0.7.7
WORKDIR /source

# The recipe has the manifests and the lock file, without the source.
FROM tools AS recipe
COPY . .
RUN cargo chef prepare --recipe-path /recipe.json

# All dependencies. A change of the source leaves the recipe and this layer as they are.
FROM tools AS dependencies
COPY --from=recipe /recipe.json /recipe.json
RUN cargo chef cook --recipe-path /recipe.json --profile dist --locked --no-default-features --features aws

FROM dependencies AS build
COPY . .
# The bill of materials is in the program itself, where scanners of images look for it: it cannot get lost, or be another's.
RUN cargo auditable build --profile dist --locked --no-default-features --features aws
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The program, the libraries that it is linked with, and the certificates that Salla's is checked against.
RUN mkdir -p /image/etc/ssl/certs /image/usr/local/bin /image/data \
    && cp target/dist/salla-reconciler /image/usr/local/bin/ \
    && ldd target/dist/salla-reconciler | grep -o '/[^ ]*' | xargs -I{} cp --parents -L {} /image \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && chown 65532:65532 /image/data

# No shell, no package manager, nothing to log in to.
FROM scratch
COPY --from=build /image /
USER 65532:65532
WORKDIR /data
ENV SALLA_RECONCILER__HTTP__LISTEN=0.0.0.0:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=6s --start-period=20s CMD ["/usr/local/bin/salla-reconciler", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/salla-reconciler"]
CMD ["serve"]
