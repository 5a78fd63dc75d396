"""Structural checks of the files in this folder; called by ./check. Prints one line a problem."""

import json
import os
import re
import sys
import tomllib

import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
problems = []


def bad(where, what):
    problems.append(f"{where}: {what}")


def text(*path):
    with open(os.path.join(*path), encoding="utf-8") as file:
        return file.read()


def documents(name):
    try:
        return [d for d in yaml.safe_load_all(text(HERE, name)) if d is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        bad(name, f"is not YAML, line {mark.line + 1 if mark else '?'}")
        return []


# What Compose reads as "instead of the list in the file before".
yaml.SafeLoader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def reference():
    """Every setting of config.toml, the commented ones included, as paths."""
    key = re.compile(r"^#(\[\[|[a-z_]+ = )")
    lines = [l[1:] if key.match(l) else l for l in text(ROOT, "config.toml").splitlines()]
    return paths(tomllib.loads("\n".join(lines)))


def paths(table, before=""):
    found = set()
    for name, value in table.items():
        if isinstance(value, dict):
            found |= paths(value, f"{before}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                found |= paths(item, f"{before}{name}[].")
        else:
            found.add(before + name)
    return found


SETTINGS = reference()


def variable(where, name):
    setting = name.removeprefix("MSP_GATEWAY__").lower().replace("__", ".")
    if name.startswith("MSP_GATEWAY__") and setting not in SETTINGS:
        bad(where, f"{name} names no setting of config.toml")


def settings(where, toml):
    try:
        table = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        return bad(where, f"is not TOML: {error}") or {}
    for path in sorted(paths(table) - SETTINGS):
        bad(where, f"{path} is no setting of config.toml")
    return table


def secret_files(table):
    """Files the settings name as holding a secret."""
    for section in table.values():
        for name, value in section.items() if isinstance(section, dict) else ():
            if name.endswith("_file") and value:
                yield value


gateway = settings("gateway.toml", text(HERE, "gateway.toml"))
FILES = sorted(secret_files(gateway))

# Dockerfile: what it copies exists, and passes its ignore file.
stages, user, checked = set(), None, False
ignore = text(HERE, "Dockerfile.dockerignore").splitlines()
for line in text(HERE, "Dockerfile").replace("\\\n", " ").splitlines():
    word, _, rest = line.partition(" ")
    if word == "FROM":
        stages.add(rest.partition(" AS ")[2])
        user = None
    elif word == "USER":
        user = rest.split(":")[0]
    elif word == "HEALTHCHECK":
        checked = rest.endswith('CMD ["/usr/local/bin/msp-gateway", "healthcheck"]')
    elif word == "COPY":
        sources = rest.split()[:-1]
        if sources[0].startswith("--from="):
            if sources[0].removeprefix("--from=") not in stages:
                bad("Dockerfile", f"copies from an unknown stage: {sources[0]}")
            continue
        for source in sources:
            if not os.path.exists(os.path.join(ROOT, source)):
                bad("Dockerfile", f"copies {source}, which does not exist")
            if "!" + source.removeprefix("./").rstrip("/") not in ignore:
                bad("Dockerfile.dockerignore", f"leaves out {source}")
if not checked:
    bad("Dockerfile", "has no HEALTHCHECK by the program itself")
if user in (None, "0", "root"):
    bad("Dockerfile", "runs as root")

# compose.yaml
for compose in documents("compose.yaml"):
    for name, service in compose["services"].items():
        where = f"compose.yaml {name}"
        if service.get("read_only") is not True:
            bad(where, "its file system can be written")
        if "no-new-privileges:true" not in service.get("security_opt", []):
            bad(where, "lacks no-new-privileges")
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            # The operator makes the folder of keys.
            if source.startswith("./") and source != "./secrets" and not os.path.exists(os.path.join(HERE, source)):
                bad(where, f"mounts {source}, which does not exist")
        for secret in service.get("secrets", []):
            if secret not in compose.get("secrets", {}):
                bad(where, f"takes an unknown secret: {secret}")
        for name in service.get("environment", {}):
            variable(where, name)
    if "./secrets:/run/secrets:ro" not in compose["services"]["gateway"]["volumes"]:
        bad("compose.yaml", "does not mount the files that gateway.toml names")

# Over it, the file for two gateways and a Valkey.
(shared,) = documents("compose.valkey.yaml")
for name in shared["services"]["gateway"]["environment"]:
    variable("compose.valkey.yaml gateway", name)
if "read_only" not in shared["services"]["valkey"]:
    bad("compose.valkey.yaml valkey", "its file system can be written")

# One vendor is enough: each may be left out.
for vendor in ("wiv", "nable"):
    if gateway[vendor].get("optional") is not True:
        bad("gateway.toml", f"demands a key of {vendor}")
for path in FILES:
    if os.path.dirname(path) != "/run/secrets":
        bad("gateway.toml", f"{path} is not where compose.yaml and the Deployment put secrets")

# The unit: its variables are settings, its credentials are used.
unit = text(HERE, "msp-gateway.service")
credentials = set(re.findall(r"^LoadCredential=(\w+):", unit, re.M))
for name, value in re.findall(r"^Environment=(\w+)=(.*)$", unit, re.M):
    if not name.startswith("MIMALLOC_"):  # the allocator's own
        variable("msp-gateway.service", name)
    if value.startswith("%d/"):
        if value[3:] not in credentials:
            bad("msp-gateway.service", f"{name} leads to no LoadCredential")
        credentials.discard(value[3:])
for name in re.findall(r"^LoadCredential=(\w+):", unit, re.M):
    if f"\nSetCredential={name}:\\n\n" not in unit:
        bad("msp-gateway.service", f"cannot do without the credential {name}")
for vendor in ("WIV", "NABLE"):
    if f"\nEnvironment=MSP_GATEWAY__{vendor}__OPTIONAL=true\n" not in unit:
        bad("msp-gateway.service", f"demands a key of {vendor}")
for name in sorted(credentials):
    bad("msp-gateway.service", f"the credential {name} is not used")

# The socket is the one that the settings name, under the name that the gateway knows.
held = text(HERE, "msp-gateway.socket")
public = tomllib.loads(text(ROOT, "config.toml"))["listen"]["public"]
if f"\nListenStream={public}\n" not in held:
    bad("msp-gateway.socket", f"does not listen on listen.public of config.toml, {public}")
if "\nFileDescriptorName=public\n" not in held:
    bad("msp-gateway.socket", "does not name its socket public")
for line in ("Wants=msp-gateway.socket", "After=msp-gateway.socket", "Type=notify"):
    if f"\n{line}\n" not in unit:
        bad("msp-gateway.service", f"lacks {line}")

# Kubernetes. What needs the Prometheus operator is there to be added.
OPERATORS = ["prometheusrule.yaml", "servicemonitor.yaml"]
kinds = {}
folder = sorted(os.listdir(os.path.join(HERE, "kubernetes")))
for name in folder:
    for document in documents(f"kubernetes/{name}"):
        for member in ("apiVersion", "kind"):
            if not document.get(member):
                bad(f"kubernetes/{name}", f"lacks {member}")
        kinds.setdefault(document.get("kind"), []).append(document)
for needed in ("Deployment", "Service", "ConfigMap", "NetworkPolicy", "PodDisruptionBudget"):
    if needed not in kinds:
        bad("kubernetes", f"has no {needed}")
resources = kinds["Kustomization"][0]["resources"]
for name in folder:
    if name not in resources + OPERATORS + ["kustomization.yaml"]:
        bad("kubernetes/kustomization.yaml", f"leaves out {name}")
for name in resources:
    if name not in folder:
        bad("kubernetes/kustomization.yaml", f"names {name}, which does not exist")
if "Secret" in kinds:
    bad("kubernetes", "holds a Secret; keys never enter the repository")

config_map = kinds["ConfigMap"][0]
if config_map["data"]["config.toml"] != text(HERE, "gateway.toml"):
    bad("kubernetes/configmap.yaml", "is not gateway.toml any more")

where = "kubernetes/deployment.yaml"
deployment = kinds["Deployment"][0]
pod = deployment["spec"]["template"]
labels = pod["metadata"]["labels"].items()
spec = pod["spec"]
(container,) = spec["containers"]
ports = {p["name"]: p["containerPort"] for p in container["ports"]}
for listener in ("public", "admin"):
    if gateway["listen"][listener].rsplit(":", 1)[1] != str(ports.get(listener)):
        bad(where, f"the port {listener} is not that of gateway.toml")
for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
    if container[probe]["httpGet"]["port"] != "admin":
        bad(where, f"{probe} is not on the admin port")
for member, good in (
    ("allowPrivilegeEscalation", False),
    ("readOnlyRootFilesystem", True),
    ("capabilities", {"drop": ["ALL"]}),
):
    if container["securityContext"].get(member) != good:
        bad(where, f"securityContext.{member} must be {good}")
if spec["securityContext"].get("runAsNonRoot") is not True:
    bad(where, "runs as root")
if "memory" not in container["resources"]["limits"]:
    bad(where, "has no memory limit")
for entry in container.get("env", []):
    variable(where, entry["name"])
volumes = {v["name"]: v for v in spec["volumes"]}
mounted = []
for mount in container["volumeMounts"]:
    volume = volumes.get(mount["name"])
    if volume is None:
        bad(where, f"mounts an unknown volume: {mount['name']}")
    elif "secret" in volume:
        if volume["secret"].get("optional") is not True:
            bad(where, "demands the keys of both vendors")
        if volume["secret"].get("defaultMode") != 0o440:
            bad(where, "the keys can be read by others than the gateway")
        mounted += [f"{mount['mountPath']}/{i['path']}" for i in volume["secret"]["items"]]
    elif "emptyDir" in volume:
        directory = tomllib.loads(text(HERE, "gateway.toml"))["store"]["directory"]
        if mount["mountPath"] != directory:
            bad(where, "mounts a volume that is not the store's directory")
    elif volume.get("configMap", {}).get("name") != config_map["metadata"]["name"]:
        bad(where, "mounts another ConfigMap")
    elif container["args"][-1] != f"{mount['mountPath']}/config.toml":
        bad(where, "reads its settings where none are mounted")
if sorted(mounted) != FILES:
    bad(where, "its secrets are not the files that gateway.toml names")
selectors = [deployment["spec"]["selector"]["matchLabels"]]
selectors += [s["spec"]["selector"] for s in kinds["Service"]]
selectors += [p["spec"]["selector"]["matchLabels"] for p in kinds["PodDisruptionBudget"]]
selectors += [p["spec"]["podSelector"]["matchLabels"] for p in kinds["NetworkPolicy"]]
for selector in selectors:
    if not selector.items() <= labels:
        bad("kubernetes", f"{selector} selects no pod of the Deployment")
for service in kinds["Service"]:
    for port in service["spec"]["ports"]:
        if port["targetPort"] not in ports:
            bad("kubernetes/service.yaml", f"leads to no port: {port['targetPort']}")

# The same over a shared store.
overlay = {}
for name in sorted(os.listdir(os.path.join(HERE, "kubernetes-valkey"))):
    (document,) = documents(f"kubernetes-valkey/{name}")
    overlay[document["kind"]] = document
where = "kubernetes-valkey"
(patched,) = overlay["Deployment"]["spec"]["template"]["spec"]["containers"]
for entry in patched["env"]:
    variable(where, entry["name"])
if patched["name"] != container["name"]:
    bad(where, "patches another container")
for patch in overlay["Kustomization"]["patches"]:
    if "path" in patch and not os.path.exists(os.path.join(HERE, where, patch["path"])):
        bad(where, f"names {patch['path']}, which does not exist")
    for step in yaml.safe_load(patch.get("patch", "[]")):
        if step["path"].removeprefix("/spec/") not in kinds["Service"][0]["spec"]:
            bad(where, f"removes {step['path']}, which is not there")
rules = overlay["NetworkPolicy"]["spec"]["egress"]
if rules[:-1] != kinds["NetworkPolicy"][0]["spec"]["egress"]:
    bad(where, "its first rules of egress are not those of kubernetes/networkpolicy.yaml")

if kinds["PrometheusRule"][0]["spec"] != yaml.safe_load(text(HERE, "alerts.yml")):
    bad("kubernetes/prometheusrule.yaml", "is not alerts.yml any more")

# Alerts speak of metrics, outcomes and settings that exist, and each is explained.
room = os.path.join(ROOT, "src", "metrics")
metrics = text(ROOT, "src", "metrics.rs") + "".join(text(room, n) for n in sorted(os.listdir(room)))
alerts = text(HERE, "alerts.yml")
for name in sorted(set(re.findall(r"\bmsp_gateway_(\w+)", alerts))):
    if f'"{name}"' not in metrics:
        bad("alerts.yml", f"msp_gateway_{name} is no metric")
words = metrics + text(ROOT, "src", "upstream", "error.rs")
for group in re.findall(r'outcome=~?"([^"]+)"', alerts):
    for word in group.split("|"):
        if f'"{word}"' not in words:
            bad("alerts.yml", f"{word} is no outcome")
runbook, tests = text(ROOT, "docs", "operations.md"), text(HERE, "alerts_test.yml")
(group,) = yaml.safe_load(alerts)["groups"]
for rule in group["rules"]:
    name, annotations = rule["alert"], rule["annotations"]
    if f"### {name}\n" not in runbook:
        bad("../docs/operations.md", f"does not explain {name}")
    if f"alertname: {name}" not in tests:
        bad("alerts_test.yml", f"does not test {name}")
    for annotation in ("summary", "description", "runbook_url"):
        if not annotations.get(annotation):
            bad("alerts.yml", f"{name} has no {annotation}")
    if not annotations.get("runbook_url", "").endswith("operations.md#" + name.lower()):
        bad("alerts.yml", f"the runbook_url of {name} does not lead to it")
    if rule["labels"]["severity"] not in ("page", "ticket"):
        bad("alerts.yml", f"{name} is neither a page nor a ticket")

# The dashboard speaks of metrics that exist, under the labels that they have.
listed = {}
for line in text(HERE, "METRICS.md").splitlines():
    if line.startswith("| `"):
        cells = line.split("|")
        listed[cells[1].strip(" `")] = set(re.findall(r"`(\w+)`", cells[2]))
dashboard = json.loads(text(HERE, "grafana", "msp-gateway.json"))
drawn = [t["expr"] for p in dashboard["panels"] for t in p.get("targets", [])]
drawn += [a["expr"] for a in dashboard["annotations"]["list"]]
for expression in drawn:
    for name, selectors in re.findall(r"\bmsp_gateway_(\w+)\{([^}]*)\}", expression):
        plain = re.sub(r"_(bucket|sum|count)$", "", name)
        if plain not in listed:
            bad("grafana/msp-gateway.json", f"msp_gateway_{name} is no metric")
            continue
        for label in re.findall(r"(\w+)[!=]", selectors):
            if label not in listed[plain] | {"instance", "job", "le"}:
                bad("grafana/msp-gateway.json", f"msp_gateway_{name} has no label {label}")
for job in yaml.safe_load(text(HERE, "prometheus.yml"))["scrape_configs"]:
    if f'job="{job["job_name"]}"' not in alerts:
        bad("prometheus.yml", f"the job {job['job_name']} is not the one in alerts.yml")

for problem in problems:
    print(f"deploy/{problem}", file=sys.stderr)
sys.exit(bool(problems))
