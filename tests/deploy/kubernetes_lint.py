"""What every manifest of deploy/kubernetes must have. lint(documents) yields one line a fault."""
import re

WORKLOADS = ("StatefulSet", "Deployment", "DaemonSet")


def lint(documents):
    names = {(d["kind"], d["metadata"]["name"]) for d in documents}
    workloads = [d for d in documents if d["kind"] in WORKLOADS]
    for document in documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        labels = document["metadata"].get("labels", {})
        if document["kind"] != "ConfigMap" and labels.get("app.kubernetes.io/part-of") != "ll":
            yield f"{where}: no label app.kubernetes.io/part-of"
        if document["kind"] != "Namespace" and document["metadata"].get("namespace") != "ll":
            yield f"{where}: not in the namespace ll"
        for rule in document.get("rules", ()) if document["kind"] in ("Role", "ClusterRole") else ():
            if document["kind"] == "ClusterRole" or not rule.get("resourceNames") or "*" in str(rule):
                yield f"{where}: may do more than one object of the namespace needs"
        if document["kind"] == "Secret":
            yield f"{where}: secrets are made by the operator and named here, never written"
    for workload in workloads:
        yield from lint_workload(workload, names)
        labels = workload["spec"]["template"]["metadata"]["labels"]
        if not any(d["kind"] == "PodDisruptionBudget" and selects(d["spec"]["selector"], labels) for d in documents):
            yield f"{workload['metadata']['name']}: no PodDisruptionBudget"
        if not any(d["kind"] == "NetworkPolicy" and d["spec"]["podSelector"] and selects(d["spec"]["podSelector"], labels) for d in documents):
            yield f"{workload['metadata']['name']}: no NetworkPolicy of its own"
    yield from lint_services(documents, workloads)
    if not any(d["kind"] == "NetworkPolicy" and d["spec"]["podSelector"] == {} and "ingress" not in d["spec"] and
               set(d["spec"]["policyTypes"]) == {"Ingress", "Egress"} and "egress" not in d["spec"] for d in documents):
        yield "no NetworkPolicy that denies what is not named"


def selects(selector, labels):
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def lint_workload(workload, names):
    name, pod = workload["metadata"]["name"], workload["spec"]["template"]["spec"]
    security = pod.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield f"{name}: may run as root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"{name}: no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield f"{name}: mounts a service account's token"
    if pod.get("hostNetwork") or pod.get("hostPID") or any("hostPath" in v for v in pod.get("volumes", [])):
        yield f"{name}: uses the host's namespaces or files"
    claims = {t["metadata"]["name"] for t in workload["spec"].get("volumeClaimTemplates", [])}
    volumes = {v["name"]: v for v in pod.get("volumes", [])}
    for volume in volumes.values():
        if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in names:
            yield f"{name}: volume {volume['name']}: no such ConfigMap"
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and ("PersistentVolumeClaim", claim) not in names:
            yield f"{name}: volume {volume['name']}: no such claim"
        if volume.get("secret", {}).get("defaultMode", 0o440) & 0o007:
            yield f"{name}: volume {volume['name']}: a secret that everybody in the pod may read"
    for container in pod["containers"]:
        for fault in lint_container(container, claims | set(volumes)):
            yield f"{name}/{container['name']}: {fault}"
        ports = {p["name"] for p in container.get("ports", [])}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for action in ("httpGet", "tcpSocket"):
                port = container.get(probe, {}).get(action, {}).get("port")
                if port is not None and port not in ports:
                    yield f"{name}/{container['name']}: {probe} asks an unknown port {port}"
    if not any("readinessProbe" in c for c in pod["containers"]):
        yield f"{name}: no readiness probe"


def lint_container(container, volumes):
    security, resources = container.get("securityContext", {}), container.get("resources", {})
    if security.get("allowPrivilegeEscalation") is not False or security.get("privileged"):
        yield "may gain privileges"
    if security.get("capabilities", {}).get("drop") != ["ALL"] or security.get("capabilities", {}).get("add"):
        yield "keeps capabilities"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "may write into its image"
    if "livenessProbe" not in container:
        yield "no liveness probe"
    if "memory" not in resources.get("limits", {}) or not {"cpu", "memory"} <= set(resources.get("requests", {})):
        yield "no memory limit or no requests"
    for key, value in resources.get("limits", {}).items():
        if "/" in key and resources.get("requests", {}).get(key) != value:
            yield f"{key}: requests and limits differ"
    if not re.search(r":[\w.-]*\d", container["image"]) or container["image"].endswith(":latest"):
        yield f"image {container['image']} has no version"
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            yield f"mounts an unknown volume {mount['name']}"
    for variable in container.get("env", []):
        if re.search("TOKEN|SECRET|PASSWORD", variable["name"]) and "value" in variable:
            yield f"{variable['name']}: a secret in clear text"


def lint_services(documents, workloads):
    for service in (d for d in documents if d["kind"] == "Service"):
        name = service["metadata"]["name"]
        served = [w for w in workloads if selects({"matchLabels": service["spec"]["selector"]}, w["spec"]["template"]["metadata"]["labels"])]
        ports = {p["name"] for w in served for c in w["spec"]["template"]["spec"]["containers"] for p in c.get("ports", [])}
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"Service/{name}: nothing listens at {port['targetPort']}"
        if service["spec"].get("type") in ("LoadBalancer", "NodePort"):
            yield f"Service/{name}: is reachable from outside the cluster"
