#!/bin/sh
# Builds the image, installs it with the chart into a cluster that kind makes for it, has a container killed there, and removes the
# cluster. Needs Docker, kind, kubectl and helm. (A kill under the chart's container without a cluster: `cargo xtask image`.)
set -eu
cd "$(dirname "$0")/.."
cluster=oom-watcher-ci
image=docker.io/library/oom-watcher
KUBECONFIG=$(mktemp)
export KUBECONFIG
trap 'kind delete cluster --name "$cluster"; rm -f "$KUBECONFIG"' EXIT
docker build --file Dockerfile.production --tag "$image:ci" .
kind create cluster --name "$cluster" --wait 180s
kind load docker-image "$image:ci" --name "$cluster"
helm install oom-watcher helm/oom-watcher --namespace oom-watcher --create-namespace --wait --timeout 5m \
    --set image.repository="$image" --set image.tag=ci --set image.pullPolicy=Never
helm test oom-watcher --namespace oom-watcher
cargo xtask e2e
