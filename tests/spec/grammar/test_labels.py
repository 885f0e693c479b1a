"""The syntax of Kubernetes' labels."""

import pytest

from components.spec.grammar.labels import is_domain, is_key, is_value, kubelet_may_set


@pytest.mark.parametrize("key", ["a", "A.b_c-1", "example.com/rack", "a" * 63, f"{'a.' * 126}a/b"])
def test_a_valid_key(key: str) -> None:
    assert is_key(key)


@pytest.mark.parametrize(
    "key", ["", "-a", "a-", "a b", "a" * 64, "/a", "Example.com/a", "a/b/c", f"{'a.' * 127}a/b", "a/"]
)
def test_an_invalid_key(key: str) -> None:
    assert not is_key(key)


def test_values() -> None:
    assert all(map(is_value, ["", "a", "A_b.c-1", "x" * 63]))
    assert not any(map(is_value, ["-a", "a b", "x" * 64, "a\n", "a/b"]))


def test_domains() -> None:
    assert all(map(is_domain, ["a", "example.com", "a-b.c1"]))
    assert not any(map(is_domain, ["", "A", "a..b", "-a", "a.", "a" * 254]))


def test_the_labels_that_kubelet_may_set() -> None:
    assert all(map(kubelet_may_set, ["rack", "example.com/a", "topology.kubernetes.io/zone", "x.node.kubernetes.io/a"]))
    assert not any(map(kubelet_may_set, ["node-role.kubernetes.io/db", "kubernetes.io/a", "k8s.io/a", "x.k8s.io/a"]))
