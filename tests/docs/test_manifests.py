"""Deployment manifests fit their schemas, and have only settings that the service understands."""

import configparser
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from jsonschema.validators import validator_for

from sam.callback.service import HEALTH_PATH, READY_PATH
from sam.callback.settings import Settings

ROOT: Final = Path(__file__).parents[2]
COMPOSE_FILES: Final = [
    ROOT / "compose.yaml",
    ROOT / "tests/stack/compose.postgresql.yaml",
]
MANIFESTS: Final = sorted((ROOT / "docs/kubernetes").glob("*.yaml"))
OLDEST_KUBERNETES: Final = "1.29"
END_SECONDS: Final = 10
"""The longest that ending takes, after CALLBACK_DRAIN_SECONDS."""

Document = dict[str, Any]


class ComposeLoader(yaml.SafeLoader):
    """Reads Compose's own tags, which say how a value is merged, as the value."""


def _value(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    assert isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node, deep=True)


ComposeLoader.add_multi_constructor("!", _value)


def compose(path: Path) -> Document:
    document: Document = yaml.load(path.read_text(), ComposeLoader)  # noqa: S506 - a safe one
    return document


def manifests() -> dict[str, Document]:
    return {
        f"{document['kind']}/{document['metadata']['name']}": document
        for path in MANIFESTS
        for document in yaml.safe_load_all(path.read_text())
    }


def pods() -> Iterator[Document]:
    for document in manifests().values():
        if document["kind"] in {"StatefulSet", "Deployment", "Job"}:
            yield document["spec"]["template"]["spec"]


def containers() -> Iterator[Document]:
    for pod in pods():
        yield from pod["containers"]


def statefulset() -> Document:
    return manifests()["StatefulSet/sam-callback"]


def environment(container: Document) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_a_compose_file_fits_the_compose_specification(path: Path) -> None:
    vendored = files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json")
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    validator = validator_for(schema)(schema)
    validator.validate(compose(path))
    assert not validator.is_valid({"services": {"callback": {"imge": "sam-callback"}}})


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, kubernetes_validate.latest_version()])
def test_a_manifest_fits_the_schemas_of_kubernetes(version: str) -> None:
    assert manifests()
    for document in manifests().values():
        kubernetes_validate.validate(document, version, strict=True)
    misspelt = deepcopy(statefulset())
    misspelt["spec"]["template"]["spec"]["terminationGraceSeconds"] = 40
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, version, strict=True)


def test_every_variable_they_name_is_a_setting() -> None:
    named = {
        *manifests()["Secret/sam-callback"]["stringData"],
        *(name.lower() for container in containers() for name in environment(container)),
        *(
            name.lower()
            for path in COMPOSE_FILES
            for name in compose(path)["services"]["callback"]["environment"]
        ),
    }
    assert named <= set(Settings.model_fields)
    assert {"callback_api_key", "sql_sam_server", "callback_docs"} <= named


def test_the_settings_of_a_pod_are_complete_and_right() -> None:
    secrets = manifests()["Secret/sam-callback"]["stringData"]
    for container in containers():
        values = {name.lower(): value for name, value in environment(container).items()}
        Settings(**secrets, **values)


def test_a_pod_may_end_in_its_own_time() -> None:
    pod = statefulset()["spec"]["template"]["spec"]
    [container] = pod["containers"]
    drain = float(environment(container)["CALLBACK_DRAIN_SECONDS"])
    assert drain > 0
    assert pod["terminationGracePeriodSeconds"] > drain + END_SECONDS


def test_a_stack_may_end_in_its_own_time() -> None:
    service = compose(COMPOSE_FILES[0])["services"]["callback"]
    assert int(service["stop_grace_period"].removesuffix("s")) > END_SECONDS


def test_probes_ask_where_the_service_answers() -> None:
    [container] = statefulset()["spec"]["template"]["spec"]["containers"]
    asked = {
        name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")
    }
    assert asked == {
        "startupProbe": HEALTH_PATH,
        "livenessProbe": HEALTH_PATH,
        "readinessProbe": READY_PATH,
    }
    [port] = container["ports"]
    assert port["containerPort"] == Settings.model_fields["callback_port"].default


def test_nothing_public_is_served_that_need_not_be() -> None:
    [container] = statefulset()["spec"]["template"]["spec"]["containers"]
    assert environment(container)["CALLBACK_DOCS"] == "false"


def test_pods_run_as_the_image_does_and_may_do_nothing_else() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    [user, group] = re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)[0]
    for pod in pods():
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert (security["runAsUser"], security["fsGroup"]) == (int(user), int(group))
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_each_replica_keeps_its_spool() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    [spool] = re.findall(r"CALLBACK_SPOOL_PATH=(\S+)", dockerfile)
    for container in containers():
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert str(Path(spool).parent) == mounts["spool"]
    spec = statefulset()["spec"]
    [claim] = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "spool"
    assert spec["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"
    [drained] = [
        volume["persistentVolumeClaim"]["claimName"]
        for volume in manifests()["Job/sam-callback-drain-1"]["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "spool"
    ]
    assert drained == f"spool-{statefulset()['metadata']['name']}-1"


def test_a_pod_has_a_bound_on_all_that_it_may_use_up() -> None:
    for container in containers():
        resources = container["resources"]
        assert {"memory", "ephemeral-storage"} <= resources["limits"].keys()
        assert {"cpu", "memory", "ephemeral-storage"} == resources["requests"].keys()


def test_only_callbacks_come_into_a_pod_and_only_to_the_database_it_goes() -> None:
    pod = statefulset()["spec"]["template"]
    job = manifests()["Job/sam-callback-drain-1"]["spec"]["template"]
    incoming, outgoing = [
        manifests()[f"NetworkPolicy/{name}"]["spec"]
        for name in ("sam-callback", "sam-callback-egress")
    ]
    assert incoming["podSelector"]["matchLabels"] == pod["metadata"]["labels"]
    assert incoming["policyTypes"] == ["Ingress"]
    [rule] = incoming["ingress"]
    assert all(each.keys() == {"namespaceSelector"} for each in rule["from"])
    [port] = pod["spec"]["containers"][0]["ports"]
    assert [each["port"] for each in rule["ports"]] == [port["name"]]

    [selects] = outgoing["podSelector"]["matchExpressions"]
    names = [each["metadata"]["labels"][selects["key"]] for each in (pod, job)]
    assert (selects["operator"], selects["values"]) == ("In", names)
    assert outgoing["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in outgoing
    ports = [{each["port"] for each in rule["ports"]} for rule in outgoing["egress"]]
    server = environment(pod["spec"]["containers"][0])["SQL_SAM_SERVER"]
    assert ports == [{53}, {int(server.partition(",")[2])}]


def test_selectors_match_the_pods_of_the_statefulset() -> None:
    spec = statefulset()["spec"]
    labels = spec["template"]["metadata"]["labels"]
    budget = manifests()["PodDisruptionBudget/sam-callback"]["spec"]
    assert spec["selector"]["matchLabels"] == labels
    assert budget["selector"]["matchLabels"] == labels
    for service in ("sam-callback", spec["serviceName"]):
        assert manifests()[f"Service/{service}"]["spec"]["selector"] == labels
    job = manifests()["Job/sam-callback-drain-1"]["spec"]["template"]["metadata"]["labels"]
    assert job != labels


def test_the_unit_for_systemd_gives_it_time_to_end_and_a_directory_that_stays() -> None:
    unit = configparser.RawConfigParser(strict=False, interpolation=None)
    unit.read(ROOT / "docs/systemd/sam-callback.service")
    service = unit["Service"]
    # The console script, and no working directory: nothing is run from what the service can write.
    assert service["ExecStart"].endswith("/bin/sam-callback")
    assert "WorkingDirectory" not in service
    assert service["Restart"] == "always"
    assert int(service["TimeoutStopSec"]) > END_SECONDS
    name, _, path = service["Environment"].partition("=")
    assert name.lower() in Settings.model_fields
    assert Path(path).parent == Path("/var/lib", service["StateDirectory"])


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is for Linux alone")
def test_the_unit_for_systemd_is_sandboxed_and_bounded() -> None:
    unit = ROOT / "docs/systemd/sam-callback.service"
    command = shlex.split("systemd-analyze security --no-pager --offline=true --threshold=25")
    looked_at = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
    assert looked_at.returncode == 0, looked_at.stdout
    assert "Overall exposure level for sam-callback.service: " in looked_at.stdout
    text = unit.read_text(encoding="utf-8")
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    compose_limits = compose(COMPOSE_FILES[0])["services"]["callback"]["deploy"]["resources"]
    assert settings["MemoryMax"] == compose_limits["limits"]["memory"]
    assert int(settings["TasksMax"]) == compose_limits["limits"]["pids"]
    assert settings["LimitCORE"] == "0"
    assert settings["MemorySwapMax"] == "0"
