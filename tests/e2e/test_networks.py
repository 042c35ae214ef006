"""The number that PyTorch evaluates is the number that the chip computes: the networks of the zoo."""

from __future__ import annotations

import pytest

from tests.e2e.support import assert_bits, network, probes

IMAGE_NETWORKS = ("mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50", "inception_v3")
SMALL_NETWORKS = ("digits", "plain", "odd", "one_pixel", "gates", "pools", "products")
CHOICES = (
    {},
    {"fuse": False},
    {"double_buffer": False},
    {"fuse": False, "double_buffer": False},
)


@pytest.mark.thin
@pytest.mark.parametrize("options", CHOICES, ids=str)
@pytest.mark.parametrize("machine", ["edge28", "tiny"])
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_small_network(name: str, machine: str, options: dict[str, bool]) -> None:
    q, shape = network(name)
    assert_bits(q, probes(shape), machine, **options)


@pytest.mark.thin
@pytest.mark.parametrize("recipe", ["w4a8", "w4a4", "w8a16", "w16a16"])
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_small_network_of_every_width(name: str, recipe: str) -> None:
    q, shape = network(name, recipe=recipe)
    assert_bits(q, probes(shape), "tiny")
    assert_bits(q, probes(shape), "edge28")


@pytest.mark.thin(2)
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_small_network_in_a_batch_of_four(name: str) -> None:
    q, shape = network(name, batch=4)
    assert_bits(q, probes(shape), "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_image_network_at_reduced_resolution(name: str) -> None:
    q, shape = network(name)
    assert_bits(q, probes(shape)[:3])


@pytest.mark.slow
@pytest.mark.parametrize("options", CHOICES, ids=str)
@pytest.mark.parametrize("machine", ["edge28", "tiny"])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_image_network_on_every_machine(name: str, machine: str, options: dict[str, bool]) -> None:
    q, shape = network(name)
    assert_bits(q, probes(shape, extreme=False), machine, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_image_network_in_a_batch_of_four(name: str) -> None:
    q, shape = network(name, batch=4)
    assert_bits(q, probes(shape, extreme=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_image_network_at_full_resolution(name: str) -> None:
    q, shape = network(name, full=True)
    assert_bits(q, probes(shape))


@pytest.mark.slow
@pytest.mark.parametrize("options", CHOICES, ids=str)
@pytest.mark.parametrize("machine", ["edge28", "tiny"])
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_image_network_at_full_resolution_on_every_machine(name: str, machine: str, options: dict[str, bool]) -> None:
    q, shape = network(name, full=True)
    assert_bits(q, probes(shape, extreme=False), machine, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_image_network_at_full_resolution_in_a_batch_of_four(name: str) -> None:
    q, shape = network(name, batch=4, full=True)
    assert_bits(q, probes(shape, extreme=False))
