"""Whether the manifests refer to what is there. Prints the settings of the container, a line each.

    manifests.py VERSION FILE…
"""

import re
import sys

import yaml


def find(kind, name="nudged"):
    found = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"] == name]
    assert len(found) == 1, f"there are {len(found)} {kind}s named {name}"
    return found[0]


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(s|m|h)", text).groups()
    return int(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def is_selected(selector, labels):
    return selector.items() <= labels.items()


version, *files = sys.argv[1:]
manifests = [one for file in files for one in yaml.safe_load_all(open(file)) if one]
deployment = find("Deployment")["spec"]
pod, labels = deployment["template"]["spec"], deployment["template"]["metadata"]["labels"]
[container] = pod["containers"]
ports = {port["name"]: port["containerPort"] for port in container["ports"]}
settings = {one["name"]: one["value"] for one in container["env"]}

for selector in [
    deployment["selector"]["matchLabels"],
    find("Service")["spec"]["selector"],
    find("Service", "nudged-internal")["spec"]["selector"],
    find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
]:
    assert is_selected(selector, labels), f"{selector} selects no pod"
for service in ["nudged", "nudged-internal"]:
    for port in find("Service", service)["spec"]["ports"]:
        assert port["targetPort"] in ports, f"{service}: there is no port {port['targetPort']}"
for rule in find("NetworkPolicy")["spec"]["ingress"]:
    for port in rule["ports"]:
        assert port["port"] in ports, f"NetworkPolicy: there is no port {port['port']}"
for probe in ["readinessProbe", "livenessProbe"]:
    assert container[probe]["httpGet"]["port"] in ports, f"{probe}: there is no such port"

monitor = find("ServiceMonitor")["spec"]
monitored = [
    one for one in manifests
    if one["kind"] == "Service" and is_selected(monitor["selector"]["matchLabels"], one["metadata"]["labels"])
]
assert [one["metadata"]["name"] for one in monitored] == ["nudged-internal"], "ServiceMonitor selects another service"
assert {one["port"] for one in monitor["endpoints"]} <= {one["name"] for one in monitored[0]["spec"]["ports"]}
target = find("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
find(target["kind"], target["name"])

for name, variable in [("streams", "NUDGED_LISTEN"), ("internal", "NUDGED_INTERNAL_LISTEN")]:
    assert settings[variable].endswith(f":{ports[name]}"), f"the port {name} is not that of {variable}"
assert pod["terminationGracePeriodSeconds"] > seconds(settings["NUDGED_DRAIN_TIMEOUT"]) + 5, "killed while it drains"
assert container["image"].endswith(f":{version}"), f"{container['image']} is not version {version}"
context = container["securityContext"]
assert context["readOnlyRootFilesystem"] and context["capabilities"]["drop"] == ["ALL"]
assert pod["securityContext"]["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
assert settings["NUDGED_JWT_SECRET_FILE"] == mounts["secret"] + "/jwt-secret"
for name, value in settings.items():
    print(f"{name}={value}")
