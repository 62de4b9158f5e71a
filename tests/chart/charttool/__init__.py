"""Tooling of the Helm chart: what renders it, writes what is generated from it, and checks what it says.

Helm is Helm's own SDK (helm-python-sdk), Kubernetes' schemas are kubernetes-validate's, PromQL is promtool's. Nothing
here talks to a cluster.
"""
