"""deploy/kubernetes rendered by kubectl, checked against Kubernetes' own schemas and against kubernetes_lint."""
import copy
import pathlib
import subprocess
import sys
import unittest

from kubernetes_lint import lint
from packages import import_packages, need_programs
from status import record

import_packages()
need_programs(kubectl="kubernetes-client")
import kubernetes_validate  # noqa: E402
import yaml  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "deploy/kubernetes"
OVERLAYS = ("cpu-demo", "gpu", "postgresql", "scaled")
OLDEST = "1.28"
# Kinds of the Prometheus operator: no schema of Kubernetes' own knows them. Required keys, by kind.
FOREIGN = {"ServiceMonitor": {"selector", "endpoints"}, "PodMonitor": {"selector", "podMetricsEndpoints"}}


def render(overlay):
    run = subprocess.run(["kubectl", "kustomize", FOLDER / "overlays" / overlay], capture_output=True, text=True, timeout=60)
    if run.returncode != 0:
        raise AssertionError(f"{overlay}: {run.stderr}")
    return list(yaml.safe_load_all(run.stdout))


def schema_faults(document, version):
    if document["kind"] in FOREIGN:
        missing = FOREIGN[document["kind"]] - set(document["spec"])
        return [f"missing {key}" for key in missing]
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        return [str(error)]
    return []


class Kubernetes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.rendered = {overlay: render(overlay) for overlay in OVERLAYS}

    def test_schemas(self):
        versions = (OLDEST, kubernetes_validate.latest_version())
        for overlay, documents in self.rendered.items():
            for document in documents:
                for version in versions:
                    self.assertEqual(schema_faults(document, version), [], f"{overlay}: {document['kind']} {document['metadata']['name']}, {version}")
        count = sum(len(d) for d in self.rendered.values())
        record("Kubernetes: kustomize base, overlays cpu-demo, gpu, postgresql and scaled", "rendered only",
               f"{count} objects rendered by kubectl, valid for Kubernetes {versions[0]} to {versions[1].rsplit('.', 1)[0]} (strict; the Prometheus "
               "operator's two kinds by their required keys), linted; no cluster was there to start them")

    def test_schemas_can_fail(self):
        worker = copy.deepcopy(self.find("gpu", "StatefulSet", "ll-worker"))
        worker["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
        self.assertNotEqual(schema_faults(worker, OLDEST), [])

    def find(self, overlay, kind, name):
        return next(d for d in self.rendered[overlay] if (d["kind"], d["metadata"]["name"]) == (kind, name))

    def test_lint(self):
        for overlay, documents in self.rendered.items():
            self.assertEqual(list(lint(documents)), [], overlay)

    def test_lint_sees_every_fault(self):
        def pod(d):
            return d["spec"]["template"]["spec"]
        faults = {
            "may run as root": lambda w: pod(w)["securityContext"].pop("runAsNonRoot"),
            "no seccomp profile": lambda w: pod(w)["securityContext"].pop("seccompProfile"),
            "mounts a service account's token": lambda w: pod(w).pop("automountServiceAccountToken"),
            "uses the host's": lambda w: pod(w).update(hostNetwork=True),
            "may gain privileges": lambda w: pod(w)["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
            "keeps capabilities": lambda w: pod(w)["containers"][0]["securityContext"].pop("capabilities"),
            "may write into its image": lambda w: pod(w)["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
            "no liveness probe": lambda w: pod(w)["containers"][0].pop("livenessProbe"),
            "no readiness probe": lambda w: pod(w)["containers"][0].pop("readinessProbe"),
            "unknown port": lambda w: pod(w)["containers"][0]["startupProbe"]["httpGet"].update(port="nowhere"),
            "no memory limit": lambda w: pod(w)["containers"][0]["resources"].pop("limits"),
            "requests and limits differ": lambda w: pod(w)["containers"][0]["resources"]["limits"].update({"nvidia.com/gpu": "9"}),
            "has no version": lambda w: pod(w)["containers"][0].update(image="ll-worker:latest"),
            "unknown volume": lambda w: pod(w)["volumes"].pop(),
            "no such ConfigMap": lambda w: pod(w)["volumes"].append({"name": "x", "configMap": {"name": "x"}}),
            "no such claim": lambda w: pod(w)["volumes"].append({"name": "x", "persistentVolumeClaim": {"claimName": "x"}}),
            "everybody in the pod": lambda w: pod(w)["volumes"].append({"name": "x", "secret": {"secretName": "x", "defaultMode": 0o444}}),
            "a secret in clear text": lambda w: pod(w)["containers"][0]["env"].append({"name": "LLCTL_TOKEN", "value": "x"}),
            "no PodDisruptionBudget": lambda w: w["spec"]["template"]["metadata"]["labels"].update({"app.kubernetes.io/name": "x"}),
            "part-of": lambda w: w["metadata"].pop("labels"),
            "not in the namespace": lambda w: w["metadata"].pop("namespace"),
        }
        for expected, break_it in faults.items():
            documents = copy.deepcopy(self.rendered["gpu"])
            break_it(next(d for d in documents if (d["kind"], d["metadata"]["name"]) == ("StatefulSet", "ll-worker")))
            self.assertTrue(any(expected in fault for fault in lint(documents)), expected)
        for break_it in (lambda rule: rule.pop("resourceNames"), lambda rule: rule["verbs"].append("*")):
            documents = copy.deepcopy(self.rendered["scaled"])
            break_it(next(d for d in documents if d["kind"] == "Role")["rules"][0])
            self.assertTrue(any("may do more" in fault for fault in lint(documents)))
        for kind, name, expected in (("NetworkPolicy", "ll-nothing-else", "denies what is not named"),
                                     ("NetworkPolicy", "ll-worker", "no NetworkPolicy of its own")):
            documents = [d for d in self.rendered["gpu"] if (d["kind"], d["metadata"]["name"]) != (kind, name)]
            self.assertTrue(any(expected in fault for fault in lint(documents)), expected)

    def test_the_daemons_accept_what_the_config_maps_say(self):
        """The keys are flags: an unknown one would end the pod at its start."""
        binaries = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "build/bin")
        files = {daemon: (f"base/config/{daemon}.yaml", f"overlays/postgresql/{daemon}.yaml") for daemon in ("coordinator", "worker")}
        files["scaler"] = ("scaler/config/scaler.yaml",)
        for daemon in files:
            known = subprocess.run([binaries / f"ll-{daemon}", "--help"], capture_output=True, text=True, check=True).stdout
            for file in files[daemon]:
                for key in yaml.safe_load((FOLDER / file).read_text()):
                    self.assertIn(f"--{key} ", known.replace("=", " "), file)

    def test_the_scaler_may_do_what_it_does_and_no_more(self):
        """Paths and verbs of scaler/kubernetes.cc: GET and PUT of one StatefulSet's scale."""
        (rule,) = self.find("scaled", "Role", "ll-scaler")["rules"]
        self.assertEqual(rule, {"apiGroups": ["apps"], "resources": ["statefulsets/scale"], "resourceNames": ["ll-worker"], "verbs": ["get", "update"]})
        binding = self.find("scaled", "RoleBinding", "ll-scaler")
        self.assertEqual((binding["roleRef"]["kind"], binding["roleRef"]["name"]), ("Role", "ll-scaler"))
        self.assertEqual(binding["subjects"], [{"kind": "ServiceAccount", "name": "ll-scaler", "namespace": "ll"}])
        deployment = self.find("scaled", "Deployment", "ll-scaler")
        self.assertEqual(deployment["spec"]["template"]["spec"]["serviceAccountName"], "ll-scaler")
        self.assertEqual(deployment["spec"]["strategy"], {"type": "Recreate"})
        config = next(d for d in self.rendered["scaled"] if d["kind"] == "ConfigMap" and d["metadata"]["name"].startswith("ll-scaler"))
        self.assertEqual(yaml.safe_load(config["data"]["scaler.yaml"])["statefulset"], "ll-worker")
        # Only here, where something else sets it: the number would be set back by each `kubectl apply`.
        self.assertNotIn("replicas", self.find("scaled", "StatefulSet", "ll-worker")["spec"])
        self.assertIn("replicas", self.find("gpu", "StatefulSet", "ll-worker")["spec"])
        self.assertFalse([d for overlay in OVERLAYS if overlay != "scaled" for d in self.rendered[overlay] if d["kind"] in ("Role", "RoleBinding")])

    def test_coordinators_with_postgresql(self):
        """Each has a name of its own that agents know, a way to the database, and a passfile that libpq takes."""
        coordinator = self.find("postgresql", "StatefulSet", "ll-coordinator")
        config = {kind: next(d for d in self.rendered["postgresql"] if d["kind"] == "ConfigMap" and d["metadata"]["name"].startswith(f"ll-{kind}"))
                  for kind in ("coordinator", "worker")}
        service = self.find("postgresql", "Service", coordinator["spec"]["serviceName"])
        self.assertEqual((service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]), ("None", True))
        names = [f"ll-coordinator-{i}.{service['metadata']['name']}:7070" for i in range(coordinator["spec"]["replicas"])]
        self.assertEqual(yaml.safe_load(config["worker"]["data"]["worker.yaml"])["coordinator"].split(","), names)
        self.assertIn("https.conf", config["coordinator"]["data"])
        store = yaml.safe_load(config["coordinator"]["data"]["coordinator.yaml"])["store"]
        self.assertNotRegex(store, r"://[^/@]*:[^/@]*@")
        pod = coordinator["spec"]["template"]["spec"]
        (init,) = pod["initContainers"]
        self.assertEqual(init["command"][:3], ["install", "-m", "0600"])
        self.assertIn(f"passfile={init['command'][-1]}", store)
        port = int(store.split("@")[1].split("/")[0].split(":")[1])
        self.assertEqual(self.find("postgresql", "NetworkPolicy", "ll-postgresql")["spec"]["egress"], [{"ports": [{"protocol": "TCP", "port": port}]}])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
