"""What is in deploy/, held to schemas, to Pod Security "restricted", and to the program's own configuration: see `.ci/deploy`."""

import functools
import json
import re
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import yaml

RULES = Path("deploy/kubernetes/base/prometheusrule.yaml")
ALERTS = Path("deploy/prometheus/alerts.yaml")
# Kinds of operators, whose schemas are not part of Kubernetes: the version, and the fields that `spec` may have.
OPERATOR = {
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "PodMonitor": ("monitoring.coreos.com/v1", {"selector", "podMetricsEndpoints"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}),
    "ExternalSecret": ("external-secrets.io/v1", {"refreshInterval", "secretStoreRef", "target", "dataFrom"}),
}
PORT = 8080
PREFIX = "SALLA_RECONCILER__"
# An image without it can be exchanged under its tag.
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")

problems = []


def complain(where, what):
    problems.append(f"{where}: {what}")


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text).group(1))


def keys_of_the_program():
    """Every key, as the environment spells it, and the default."""
    found = {}

    def walk(table, path):
        for name, value in table.items():
            if isinstance(value, dict):
                walk(value, path + [name])
            else:
                found[PREFIX + "__".join(path + [name]).upper()] = value

    walk(tomllib.loads(Path("config/default.toml").read_text()), [])
    return found


def check_names(keys):
    for file in [Path("Dockerfile"), *Path("docs/how-to").glob("*.md"), *Path("deploy").rglob("*.yaml")]:
        for name in sorted(set(re.findall(PREFIX + r"[A-Z0-9_]+", file.read_text()))):
            if name not in keys:
                complain(file, f"{name} is no key of config/default.toml")


def rules():
    groups = yaml.safe_load(ALERTS.read_text())
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "salla-reconciler"},
        "spec": groups,
    }
    head = "# For the Prometheus operator. Written by `.ci/deploy rules` from deploy/prometheus/alerts.yaml.\n"
    return head + yaml.safe_dump(rule, sort_keys=False, width=160, allow_unicode=True)


@functools.cache
def schema_problem(resource, version):
    """Most resources are the same in each overlay, and a schema takes long to load."""
    try:
        kubernetes_validate.validate(json.loads(resource), version, strict=True)
    except Exception as error:  # The library has one exception for each kind of complaint.
        return str(error).splitlines()[0]
    return None


def check_schema(where, resource, versions):
    kind = resource["kind"]
    if kind in OPERATOR:
        version, fields = OPERATOR[kind]
        if resource["apiVersion"] != version:
            complain(where, f"{kind} is of {resource['apiVersion']}, not {version}")
        for field in sorted(resource["spec"].keys() - fields):
            complain(where, f"{kind} has no field spec.{field}")
        return
    for version in versions:
        if problem := schema_problem(json.dumps(resource, sort_keys=True), version):
            complain(where, f"{kind} in Kubernetes {version}: {problem}")


def check_pod(where, deployment, environment, keys):
    """Pod Security "restricted" (Kubernetes' own words for it), and what the program needs."""
    pod = deployment["spec"]["template"]["spec"]
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or context.get("runAsUser", 0) == 0:
        complain(where, "the pod may run as root")
    if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        complain(where, "the pod has no seccomp profile")
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            complain(where, f"the pod has {field}")
    if pod.get("automountServiceAccountToken") is not False:
        complain(where, "the pod is given a token of the cluster's")
    for volume in pod.get("volumes", []):
        kinds = volume.keys() - {"name"}
        if not kinds <= {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}:
            complain(where, f"the volume {volume['name']} is of a kind that is not allowed: {kinds}")
    grace = seconds(environment.get(PREFIX + "SHUTDOWN__GRACE", keys[PREFIX + "SHUTDOWN__GRACE"]))
    if pod.get("terminationGracePeriodSeconds", 30) < grace + 5:
        complain(where, "terminationGracePeriodSeconds leaves less than 5 s beside shutdown.grace")
    for container in pod["containers"]:
        check_container(where, container)


def check_container(where, container):
    context = container.get("securityContext", {})
    if context.get("allowPrivilegeEscalation") is not False:
        complain(where, "the container may gain privileges")
    if context.get("privileged"):
        complain(where, "the container is privileged")
    if context.get("readOnlyRootFilesystem") is not True:
        complain(where, "the container's root is writable")
    capabilities = context.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        complain(where, "the container keeps capabilities")
    if context.get("runAsUser") == 0 or context.get("runAsNonRoot") is False:
        complain(where, "the container runs as root")
    tag = container["image"].rpartition(":")[2]
    if ":" not in container["image"] or tag == "latest":
        complain(where, f"the image {container['image']} has no fixed tag")
    if [port["containerPort"] for port in container.get("ports", [])] != [PORT]:
        complain(where, f"the container's port is not {PORT}")
    if container.get("args") != ["serve"]:
        complain(where, "the container does not serve")
    if "memory" not in container.get("resources", {}).get("limits", {}):
        complain(where, "the container has no memory limit")
    for probe, path in (("livenessProbe", "/healthz"), ("startupProbe", "/healthz"), ("readinessProbe", "/readyz")):
        asked = container.get(probe, {}).get("httpGet", {})
        if (asked.get("path"), asked.get("port")) != (path, "http"):
            complain(where, f"{probe} does not ask {path} at the port http")


def check_overlay(file, versions, keys):
    resources = [resource for resource in yaml.safe_load_all(file.read_text()) if resource]
    where = f"deploy/kubernetes/{file.parent.name}/{file.stem}"
    by_kind = {}
    for resource in resources:
        by_kind.setdefault(resource["kind"], []).append(resource)
        check_schema(where, resource, versions)
        if resource["kind"] == "Secret":
            complain(where, "holds a Secret: its values belong elsewhere")
        if resource["metadata"].get("namespace") != "salla-reconciler":
            complain(where, f"{resource['kind']} is in no namespace of ours")
    wanted = {"Deployment", "Service", "ServiceAccount", "ConfigMap", "NetworkPolicy", "PrometheusRule"}
    for kind in sorted(wanted - by_kind.keys()):
        complain(where, f"there is no {kind}")
    if wanted - by_kind.keys():
        return
    [deployment], [settings] = by_kind["Deployment"], by_kind["ConfigMap"]
    pod = deployment["spec"]["template"]
    container = pod["spec"]["containers"][0]
    check_pod(where, deployment, settings["data"], keys)
    for name in settings["data"]:
        if name not in keys:
            complain(where, f"{name} is no key of config/default.toml")
    if settings["data"].get(PREFIX + "HTTP__LISTEN") != f"0.0.0.0:{PORT}":
        complain(where, f"the program does not listen on 0.0.0.0:{PORT}")
    refs = [source.get("configMapRef", {}).get("name") for source in container.get("envFrom", [])]
    if refs != [settings["metadata"]["name"]]:
        complain(where, "the pod does not read the ConfigMap")
    references = {entry["name"]: entry["valueFrom"]["secretKeyRef"] for entry in container.get("env", [])
                  if "secretKeyRef" in entry.get("valueFrom", {})}
    secrets = references.keys()
    for entry in container.get("env", []):
        if "value" in entry:
            complain(where, f"{entry['name']} has a value: settings are in the ConfigMap, secrets in the Secret")
    for name in ("VAULT__KEYS", "HTTP__API_TOKENS", "SALLA__CLIENT_ID", "SALLA__CLIENT_SECRET"):
        if PREFIX + name not in secrets:
            complain(where, f"{PREFIX + name} does not come from the Secret")
    labels = pod["metadata"]["labels"].items()
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        for resource in by_kind.get(kind, []):
            spec = resource["spec"]
            selector = spec.get("podSelector", spec.get("selector", {}))
            chosen = selector.get("matchLabels", selector if kind == "Service" else {})
            if not chosen or not chosen.items() <= labels:
                complain(where, f"{kind} does not choose the pods")
    for policy in by_kind["NetworkPolicy"]:
        check_network(where, policy["spec"])
    if pod["spec"].get("enableServiceLinks") is not False:
        complain(where, "the pod is given service links, which are variables with the program's prefix")
    [service] = by_kind["Service"]
    if [port["targetPort"] for port in service["spec"]["ports"]] != ["http"]:
        complain(where, "the Service does not lead to the port http")
    check_monitors(where, by_kind, service["spec"]["ports"][0]["name"], container["ports"][0]["name"])
    check_spread(where, pod)
    for resource in by_kind.get("ExternalSecret", []):
        written = resource["spec"].get("target", {}).get("name", resource["metadata"]["name"])
        if {reference["name"] for reference in references.values()} != {written}:
            complain(where, f"the ExternalSecret writes the Secret {written}, which the pod does not read")
    check_target(where, settings["data"])
    database = settings["data"].get(PREFIX + "DATABASE__URL", "")
    replicas, strategy = deployment["spec"].get("replicas", 1), deployment["spec"].get("strategy", {}).get("type")
    if database.startswith("sqlite:"):
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
        if replicas != 1 or strategy != "Recreate":
            complain(where, "two processes may be on one SQLite file")
        if not any(database.startswith(f"sqlite://{mount}/") for mount in mounts):
            complain(where, "the SQLite file is on no volume")
    else:
        if PREFIX + "DATABASE__URL" not in secrets:
            complain(where, "the database's address does not come from the Secret")
        if replicas < 2 or strategy != "RollingUpdate" or "PodDisruptionBudget" not in by_kind:
            complain(where, "a deploy, or a drained node, leaves no replica")


def check_monitors(where, by_kind, service_port, pod_port):
    """One monitor scrapes the pods, at /metrics."""
    endpoints = [(kind, endpoint.get("port"), endpoint.get("path"), port)
                 for kind, field, port in (("ServiceMonitor", "endpoints", service_port), ("PodMonitor", "podMetricsEndpoints", pod_port))
                 for monitor in by_kind.get(kind, []) for endpoint in monitor["spec"].get(field, [])]
    if len(endpoints) != 1:
        complain(where, f"the pods are scraped by {len(endpoints)} endpoints of monitors, not by one")
    for kind, port, path, expected in endpoints:
        if (port, path) != (expected, "/metrics"):
            complain(where, f"the {kind} does not scrape /metrics at the port {expected}")


def check_spread(where, pod):
    """A constraint that counts other pods spreads nothing, and Kubernetes refuses two for one key and action."""
    constraints = pod["spec"].get("topologySpreadConstraints", [])
    for constraint in constraints:
        chosen = constraint.get("labelSelector", {}).get("matchLabels", {})
        if not chosen or not chosen.items() <= pod["metadata"]["labels"].items():
            complain(where, f"the spread over {constraint['topologyKey']} does not count the pods")
    spread = [(constraint["topologyKey"], constraint["whenUnsatisfiable"]) for constraint in constraints]
    for key, action in sorted(set(spread)):
        if spread.count((key, action)) > 1:
            complain(where, f"two constraints {action} over {key}")


def check_target(where, data):
    """The program refuses a view without a function, and both on SQLite."""
    for kind in ("ORDERS", "PRODUCTS", "CUSTOMERS"):
        names = [f"{PREFIX}TARGET__{kind}__{part}" for part in ("VIEW", "FUNCTION")]
        found = [name for name in names if data.get(name)]
        if len(found) == 1:
            complain(where, f"{found[0]} is set without the other name of its target")
        if found and data.get(PREFIX + "DATABASE__URL", "").startswith("sqlite:"):
            complain(where, f"{found[0]} needs PostgreSQL")


def check_components(built):
    """A component that changes nothing was not applied, or repeats the base."""
    without = (built / "overlays/postgresql.yaml").read_text()
    for file in sorted(built.glob("components/*.yaml")):
        if file.read_text() == without:
            complain(f"deploy/kubernetes/components/{file.stem}", "changes nothing")


def check_network(where, spec):
    """Each peer is a namespace by its name; only HTTPS and PostgreSQL may lead anywhere."""
    if set(spec.get("policyTypes", [])) != {"Ingress", "Egress"}:
        complain(where, "the NetworkPolicy does not cover both directions")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, []):
            ports = {port["port"] for port in rule.get("ports", [])}
            if peers not in rule and (direction == "ingress" or not ports <= {443, 5432} or not ports):
                complain(where, f"the NetworkPolicy's {direction} is open to all on {sorted(ports)}")
            for peer in rule.get(peers, []):
                selector = peer.get("namespaceSelector", {})
                named = [one["key"] for one in selector.get("matchExpressions", []) if one["operator"] == "In" and one["values"]]
                named += selector.get("matchLabels", {})
                if "kubernetes.io/metadata.name" not in named:
                    complain(where, f"the NetworkPolicy's {direction} names no namespace")


class Template(yaml.SafeLoader):
    """CloudFormation's own tags, as what they are of."""


Template.add_multi_constructor("!", lambda loader, suffix, node: (
    loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode)
    else loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode)
    else loader.construct_mapping(node, deep=True)))


def check_ecs(keys):
    where = Path("deploy/ecs/salla-reconciler.yaml")
    template = yaml.load(where.read_text(), Template)
    resources = template["Resources"]
    [ours] = resources["Task"]["Properties"]["ContainerDefinitions"]
    [collector] = resources["CollectorTask"]["Properties"]["ContainerDefinitions"]
    environment = {entry["Name"]: entry["Value"] for entry in ours["Environment"]}
    secrets = {entry["Name"] for entry in ours["Secrets"]}
    for name in ("DATABASE__URL", "VAULT__KEYS", "HTTP__API_TOKENS", "SALLA__CLIENT_ID", "SALLA__CLIENT_SECRET"):
        if PREFIX + name not in secrets:
            complain(where, f"{PREFIX + name} does not come from Secrets Manager")
        if PREFIX + name in environment:
            complain(where, f"{PREFIX + name} stands in the open")
    grace = seconds(environment.get(PREFIX + "SHUTDOWN__GRACE", keys[PREFIX + "SHUTDOWN__GRACE"]))
    if ours.get("StopTimeout", 30) < grace + 5:
        complain(where, "StopTimeout leaves less than 5 s beside shutdown.grace")
    if ours.get("ReadonlyRootFilesystem") is not True or not ours.get("User", "root").startswith("65532"):
        complain(where, "the container is root, or its root is writable")
    if ours["HealthCheck"]["Command"] != ["CMD", "/usr/local/bin/salla-reconciler", "healthcheck"]:
        complain(where, "the health check is not the program's own")
    if environment.get(PREFIX + "HTTP__LISTEN") != f"0.0.0.0:{PORT}" or ours["PortMappings"][0]["ContainerPort"] != PORT:
        complain(where, f"the port is not {PORT} throughout")
    if f"port: {PORT}" not in str(collector["Environment"]):
        complain(where, f"the collector does not scrape port {PORT}")
    roles = [str(resources[task]["Properties"][role]) for task in ("Task", "CollectorTask")
             for role in ("TaskRoleArn", "ExecutionRoleArn")]
    if len(set(roles)) != len(roles):
        complain(where, "the collector shares a role with the daemon")
    for role in ("TaskRole", "CollectorExecutionRole"):
        if "aps:" in str(resources[role]) or "secretsmanager:" in str(resources[role]):
            complain(where, f"{role} may do what only another role is for")
    if "secretsmanager:" in str(resources["CollectorRole"]):
        complain(where, "the collector's role may read secrets")
    for name in ("Image", "CollectorImage"):
        parameter = template["Parameters"][name]
        pinned = re.compile(parameter.get("AllowedPattern", ".*"))
        if pinned.fullmatch("registry.example/image:1.0.0") or not pinned.fullmatch(parameter.get("Default", f"a@sha256:{'0' * 64}")):
            complain(where, f"{name} takes an image without a digest")


def check_compose():
    where = Path("deploy/compose/compose.yaml")
    services = yaml.safe_load(where.read_text())["services"]
    ours = services["salla-reconciler"]
    for name, value in ours["environment"].items():
        secret = any(word in name for word in ("KEYS", "TOKEN", "SECRET"))
        if secret and not str(value).startswith("${"):
            complain(where, f"{name} stands in the open")
    if ours["environment"].get(PREFIX + "HTTP__LISTEN") != f"0.0.0.0:{PORT}":
        complain(where, f"the program does not listen on port {PORT}")
    if not all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", [])):
        complain(where, "a port is open to more than this machine")
    if not ours.get("read_only") or ours.get("cap_drop") != ["ALL"]:
        complain(where, "the container's root is writable, or it keeps capabilities")
    if seconds(ours.get("stop_grace_period", "10s")) < 30:
        complain(where, "stop_grace_period leaves less than 5 s beside shutdown.grace")
    for name, service in services.items():
        if "build" not in service and not DIGEST.search(service["image"]):
            complain(where, f"the image of {name} has no digest")
    scraped = yaml.safe_load(Path("deploy/compose/prometheus.yaml").read_text())
    alone = yaml.safe_load(Path("deploy/prometheus/prometheus.yaml").read_text())
    [target] = scraped["scrape_configs"][0]["static_configs"][0]["targets"]
    if target != f"salla-reconciler:{PORT}":
        complain("deploy/compose/prometheus.yaml", "does not scrape the daemon")
    scraped["scrape_configs"][0].pop("static_configs")
    alone["scrape_configs"][0].pop("static_configs")
    if scraped != alone:
        complain("deploy/compose/prometheus.yaml", "differs from deploy/prometheus/prometheus.yaml in more than its target")


def check_image(keys):
    text = Path("Dockerfile").read_text()
    stages = {"scratch", *re.findall(r"^FROM \S+ AS (\S+)$", text, re.M)}
    for image in re.findall(r"^(?:FROM|# *syntax *=) *(\S+)", text, re.M):
        if image not in stages and not DIGEST.search(image):
            complain("Dockerfile", f"the image {image} has no digest")
    if not re.search(r"^USER 65532:65532$", text, re.M):
        complain("Dockerfile", "the image is root's")
    if not re.search(r"^FROM scratch$", text, re.M):
        complain("Dockerfile", "the image has more than the program")
    if f"{PREFIX}HTTP__LISTEN=0.0.0.0:{PORT}" not in text or f"EXPOSE {PORT}" not in text:
        complain("Dockerfile", f"the port is not {PORT} throughout")
    options = "--profile dist --locked --no-default-features --features aws"
    if f"cargo auditable build {options}" not in text:
        complain("Dockerfile", "the program has no bill of materials, or is not built as released")
    if not re.search(rf"cargo chef cook .*{options}$", text, re.M):
        complain("Dockerfile", "the dependencies are built with other options than the program")
    toolchain = tomllib.loads(Path("rust-toolchain.toml").read_text())["toolchain"]["channel"]
    if not re.search(rf"^FROM rust:{re.escape(toolchain)}[-.\w]*@sha256:\w+ AS tools$", text, re.M):
        complain("Dockerfile", f"builds with another Rust than {toolchain}")


def main():
    if sys.argv[1] == "rules":
        RULES.write_text(rules())
        return
    _, _, built, *versions = sys.argv
    keys = keys_of_the_program()
    if RULES.read_text() != rules():
        complain(RULES, "is not what deploy/prometheus/alerts.yaml says: run .ci/deploy rules")
    check_names(keys)
    overlays, components = (sorted(Path(built).glob(f"{folder}/*.yaml")) for folder in ("overlays", "components"))
    for file in overlays + components:
        check_overlay(file, versions, keys)
    check_components(Path(built))
    check_ecs(keys)
    check_compose()
    check_image(keys)
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"{len(overlays)} overlays and {len(components)} components in Kubernetes {', '.join(versions)}, ECS, Compose and the Dockerfile fit the program")


main()
