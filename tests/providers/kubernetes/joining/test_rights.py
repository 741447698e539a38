from typing import Any

import yaml

from skep.providers.kubernetes.joining import rights


def roles() -> dict[str, list[dict[str, Any]]]:
    documents = yaml.safe_load_all(rights.manifest())
    return {one["metadata"]["name"]: one["rules"] for one in documents if one["kind"] == "ClusterRole"}


def test_secrets_are_read_and_written_in_namespaces_of_tenants_only() -> None:
    held = {
        name: [rule for rule in rules if "secrets" in rule["resources"]] for name, rules in roles().items()
    }

    assert (held["skep"], len(held["skep-tenant"])) == ([], 1)


def test_no_right_is_for_everything() -> None:
    for name, rules in roles().items():
        for rule in rules:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], (name, rule)


def test_only_its_own_role_may_be_bound() -> None:
    binding = [rule for rule in roles()["skep"] if "bind" in rule["verbs"]]

    assert [rule["resourceNames"] for rule in binding] == [["skep-tenant"]]
