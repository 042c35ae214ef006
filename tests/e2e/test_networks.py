"""The number that PyTorch evaluates is the number that the chip computes: the networks of the zoo.

Where a network, a width, a machine and options meet, rows are chosen so that every two of them do.
"""

from __future__ import annotations

from itertools import combinations, product

import pytest

from tests.e2e.support import assert_bits, network, probes

IMAGE_NETWORKS = ("mobilenet_v1", "mobilenet_v2", "resnet18", "resnet50", "inception_v3")
SMALL_NETWORKS = ("digits", "plain", "odd", "one_pixel", "gates", "pools", "products")
MACHINES = ("edge28", "tiny")
CHOICES = (
    {},
    {"fuse": False},
    {"double_buffer": False},
    {"fuse": False, "double_buffer": False},
)
Place = tuple[str, dict[str, bool]]


@pytest.mark.slow
@pytest.mark.thin(1)
@pytest.mark.parametrize("options", CHOICES, ids=str)
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_small_network(name: str, machine: str, options: dict[str, bool]) -> None:
    q, shape = network(name)
    assert_bits(q, probes(shape), machine, **options)


WIDTHS = ("w4a8", "w4a4", "w8a16", "w16a16")


@pytest.mark.slow
@pytest.mark.parametrize("recipe", WIDTHS)
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_small_network_of_every_width(name: str, recipe: str) -> None:
    row, column = SMALL_NETWORKS.index(name), WIDTHS.index(recipe)
    q, shape = network(name, recipe=recipe)
    assert_bits(q, probes(shape), MACHINES[(row + column) % 2], **CHOICES[(row + column // 2) % 4])


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_small_network_in_a_batch_of_four(name: str) -> None:
    q, shape = network(name, batch=4)
    assert_bits(q, probes(shape), "tiny")


RECIPES = ("w8a8", "w4a8", "w4a4")
ALONE = {"fuse": False, "double_buffer": False}
TURNS: tuple[Place, ...] = (
    ("edge28", {"fuse": False}),
    ("tiny", {}),
    ("edge28", {"double_buffer": False}),
    ("tiny", {"fuse": False}),
    ("tiny", {"double_buffer": False}),
)


def places(name: str) -> tuple[Place, ...]:
    """Where a network runs at each of ``RECIPES``: on both machines, with all options and without, and once more."""
    row = IMAGE_NETWORKS.index(name)
    found: list[Place] = [("edge28", {}), ("tiny", ALONE), TURNS[row]]
    return tuple(found[(column + row) % 3] for column in range(3))


def test_every_two_choices_meet() -> None:
    rows = [
        (name, recipe, machine, options.get("fuse", True), options.get("double_buffer", True))
        for name in IMAGE_NETWORKS
        for recipe, (machine, options) in zip(RECIPES, places(name), strict=True)
    ]
    for one, other in combinations(zip(*rows, strict=True), 2):
        assert set(zip(one, other, strict=True)) == set(product(one, other))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_image_network_at_reduced_resolution(name: str, recipe: str) -> None:
    q, shape = network(name, recipe=recipe)
    machine, options = places(name)[RECIPES.index(recipe)]
    assert_bits(q, probes(shape)[:: 1 if (machine, options) == ("edge28", {}) else 3], machine, **options)


@pytest.mark.slow
def test_image_network_in_a_batch_of_four() -> None:
    q, shape = network("resnet18", batch=4)
    assert_bits(q, probes(shape)[::3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "machine", "options"),
    [
        ("mobilenet_v1", "edge28", {"fuse": False}),
        ("mobilenet_v2", "tiny", {}),
        ("resnet18", "edge28", {"double_buffer": False}),
        ("resnet50", "edge28", {}),
        ("inception_v3", "edge28", {}),
    ],
)
def test_image_network_at_full_resolution(name: str, machine: str, options: dict[str, bool]) -> None:
    q, shape = network(name, full=True)
    assert_bits(q, probes(shape)[::6], machine, **options)  # random, and with infinities and NaN
