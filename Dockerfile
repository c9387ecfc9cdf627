# The Millrace image. Plain syntax on purpose: older builders reject heredocs and COPY --link.
# Build on a machine with the usual registries:  docker build -t millrace .

ARG RUST_VERSION=1.95
ARG NODE_VERSION=22

# The Rust side: the addon needs Node's headers from nowhere (Node-API is resolved at load time), but napi's command
# line is an npm package, so this stage has both tool chains.
FROM node:${NODE_VERSION}-bookworm-slim AS node
FROM rust:${RUST_VERSION}-slim-bookworm AS build
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
 && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
WORKDIR /src
# Dependencies first: they change seldom, and a layer that does not change is not built again.
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund || npm install --no-save --no-audit --no-fund
COPY Cargo.toml Cargo.lock rustfmt.toml ./
COPY crates crates
RUN npm run build:native
COPY tsconfig.json ./
COPY src src
RUN npm run build:ts

FROM build AS production
RUN npm prune --omit=dev --no-audit --no-fund

FROM node:${NODE_VERSION}-bookworm-slim AS runtime
LABEL org.opencontainers.image.title="millrace" \
      org.opencontainers.image.description="UDP off the wire, spread over CPUs by what is in the payload, into NATS" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV NODE_ENV=production
WORKDIR /app
COPY --from=production /src/package.json ./
COPY --from=production /src/node_modules node_modules
COPY --from=production /src/build/src build/src
COPY --from=production /src/build/*.node build/
COPY LICENSE ./
# Root, because Kubernetes gives capabilities only to UID 0 (docs/kubernetes.md); the manifests drop all but the few
# that are needed. No setcap on node: file capabilities make Node ignore parts of its environment.
EXPOSE 9000/udp 9180/tcp
STOPSIGNAL SIGTERM
# PID 1 is node itself: it has its own SIGTERM handler and starts no children, so no init is needed.
ENTRYPOINT ["node", "build/src/cli/main.js"]
