"""What the depth model is trained and measured with: exact scenes, metrics by hand, pictures that decode."""

from __future__ import annotations

import dataclasses
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.depth import picture, scenes
from benchmarks.depth.head import FARTHEST, NEAREST
from benchmarks.depth.metrics import Metrics
from benchmarks.depth.model import NETWORKS, trained
from benchmarks.depth.scenes import SETS, TEST, VALIDATION, Scenes
from benchmarks.depth.train import batch_of, halved, rate_of, validated
from benchmarks.depth.unet import UNet

# ---------------------------------------------------------------- scenes


def metres(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


def test_the_same_seed_gives_the_same_scene_and_another_seed_another() -> None:
    (image, depth), (again, same), (other, _) = Scenes().scene(3), Scenes().scene(3), Scenes().scene(4)
    assert image.shape == (3, 112, 112)
    assert depth.shape == (1, 112, 112)
    assert np.array_equal(image, again)
    assert np.array_equal(depth, same)
    assert not np.array_equal(image, other)
    images, depths = Scenes().batch(3, 2)
    assert np.array_equal(images[1], other)
    assert np.array_equal(depths[0], depth)


def test_images_and_depths_stay_in_range() -> None:
    images, depths = Scenes(size=28).batch(0, 20)
    assert images.min() >= 0
    assert images.max() <= 1
    assert depths.min() > 0.9
    assert np.isfinite(depths).all()
    assert depths.max() < 12


@given(height=metres(1.0, 3.0), pitch=metres(0.0, 20.0), wall=metres(4.0, 12.0))
def test_an_empty_room_has_the_depth_of_its_equation(height: float, pitch: float, wall: float) -> None:
    room = Scenes(
        size=14, camera_height=(height, height), pitch=(pitch, pitch), wall=(wall, wall), boxes=(0, 1), spheres=(0, 1)
    )
    up = -((np.arange(14) + 0.5) / 14 * 2 - 1) * np.tan(np.deg2rad(35))
    c, s = np.cos(np.deg2rad(pitch)), np.sin(np.deg2rad(pitch))
    # A point z along the axis is at (.., height + z (up c - s), z (up s + c)).
    drop = s - up * c
    expected = np.minimum(np.where(drop > 0, height / np.where(drop > 0, drop, 1), np.inf), wall / (up * s + c))
    _, depth = room.scene(0)
    assert np.allclose(depth[0], expected[:, None], rtol=1e-6)


@given(x=metres(-2, 2), y=metres(-2, 2), z=metres(3, 8), radius=metres(0.2, 0.9))
def test_rays_end_on_the_near_side_of_a_sphere(x: float, y: float, z: float, radius: float) -> None:
    rays, centre = Scenes(size=28)._rays(0.0), np.array([x, y, z])
    t, normal = scenes._sphere(np.zeros(3), rays, centre, radius)
    hit = np.isfinite(t)
    points = rays[hit] * t[hit][:, None]
    assert np.allclose(np.linalg.norm(points - centre, axis=-1), radius)
    assert np.allclose(np.linalg.norm(normal[hit], axis=-1), 1)
    assert ((normal[hit] * rays[hit]).sum(-1) <= 1e-6).all()
    towards = np.array([[centre / np.linalg.norm(centre)]])
    assert np.allclose(scenes._sphere(np.zeros(3), towards, centre, radius)[0], np.linalg.norm(centre) - radius)


@given(low=st.tuples(metres(-3, 2), metres(-2, 1), metres(2, 6)), size=st.tuples(*[metres(0.3, 2)] * 3))
def test_rays_end_on_the_near_faces_of_a_box(low: tuple[float, ...], size: tuple[float, ...]) -> None:
    rays, corner = Scenes(size=28)._rays(0.0), np.array(low)
    middle, half = corner + np.array(size) / 2, np.array(size) / 2
    t, normal = scenes._box(np.zeros(3), rays, corner, corner + np.array(size))
    hit = np.isfinite(t)
    points = rays[hit] * t[hit][:, None]
    assert np.allclose((np.abs(points - middle) / half).max(-1), 1)
    assert np.allclose(((points - middle) * normal[hit]).sum(-1), (half * np.abs(normal[hit])).sum(-1))
    # A ray at the middle hits, whatever the image's own rays do.
    towards = np.array([[middle / np.linalg.norm(middle)]])
    distance, face = scenes._box(np.zeros(3), towards, corner, corner + np.array(size))
    inside = np.abs(towards * distance[..., None] - middle) <= half + 1e-9
    assert 0 < distance[0, 0] < np.linalg.norm(middle)
    assert inside.all()
    assert (face * towards).sum() < 0
    assert ((normal[hit] * rays[hit]).sum(-1) < 0).all()


def test_rounding_does_not_draw_the_pattern_of_the_ground() -> None:
    points = np.random.default_rng(0).uniform(-5, 5, (50, 3))
    for seed in range(20):
        above, below = (
            scenes._texture(np.random.default_rng(seed), points * [1, 0, 1] + [0, y, 0]) for y in (1e-15, -1e-15)
        )
        assert np.abs(above - below).max() < 1e-9


def test_scenes_as_in_training_are_those_of_the_stated_results() -> None:
    """New parameters of the generator leave its old scenes as they are."""
    images, depths = SETS["held out"].batch(TEST, 2)
    assert hashlib.sha256(images.tobytes() + depths.tobytes()).hexdigest()[:16] == "c684284f58dd0c96"


@pytest.mark.parametrize("name", list(SETS)[1:])
def test_other_sets_are_exact_scenes_within_the_depths_that_a_network_can_say(name: str) -> None:
    images, depths = dataclasses.replace(SETS[name], size=28).batch(TEST, 12)
    usual, _ = dataclasses.replace(SETS["held out"], size=28).batch(TEST, 12)
    assert images.min() >= 0
    assert images.max() <= 1
    assert depths.min() > NEAREST
    assert depths.max() < FARTHEST
    assert not np.array_equal(images, usual)


def statistics(name: str) -> tuple[float, float, float]:
    """Mean brightness, mean step between neighbouring pixels, mean depth."""
    images, depths = dataclasses.replace(SETS[name], size=56).batch(TEST, 12)
    return float(images.mean()), float(np.abs(np.diff(images)).mean()), float(depths.mean())


@pytest.mark.slow
def test_each_set_differs_in_what_its_name_says() -> None:
    bright, detail, far = statistics("held out")
    assert statistics("textures")[1] > 1.5 * detail
    assert statistics("night")[0] < 0.5 * bright
    assert statistics("camera")[2] < 0.95 * far
    assert statistics("crowd")[2] < 0.95 * far


# ---------------------------------------------------------------- training


def test_training_validation_and_test_scenes_do_not_meet() -> None:
    assert VALIDATION > 100_000
    assert VALIDATION + 100_000 < TEST


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [rate_of(step, 3000) for step in range(3001)]
    assert rates[0] < rates[100] < rates[200] == rates[1200] == max(rates)
    assert rates[2100] == pytest.approx(max(rates) / 2)
    assert rates[3000] < 1e-9


def test_a_batch_follows_from_seed_and_step() -> None:
    images, depths = (torch.from_numpy(a).half() for a in Scenes(size=14).batch(0, 6))
    first, second = batch_of(images, depths, 4, 0, 7), batch_of(images, depths, 4, 0, 7)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], batch_of(images, depths, 4, 0, 8)[0])
    assert not torch.equal(first[0], batch_of(images, depths, 4, 1, 7)[0])


def test_a_validation_uses_running_statistics_and_leaves_them_alone() -> None:
    model = UNet().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, depths = (torch.from_numpy(a).half() for a in Scenes(size=32).batch(0, 3))
    both, one = validated(model, images, depths), validated(model, images[:1], depths[:1])
    rest = validated(model, images[1:], depths[1:])
    assert both.abs_rel == pytest.approx((one.abs_rel + 2 * rest.abs_rel) / 3)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


ENDS = {**dict.fromkeys(NETWORKS, (NEAREST, FARTHEST)), "metric3d": (0.0999, 1000.0)}
"""In metres; Metric3D's are its own, .1 but for what 1000 - (1000 - .1) loses."""


@pytest.mark.thin(1)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_say_depths_between_their_ends_from_checkpoints_in_half_precision(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    torch.save(halved(model), tmp_path / "checkpoint.pt")
    depth = trained(name, tmp_path / "checkpoint.pt")(100 * torch.randn(2, 3, 112, 112))
    assert depth.shape == (2, 1, 112, 112)
    nearest, farthest = ENDS[name]
    assert depth.min() >= nearest
    assert depth.max() <= farthest * (1 + 1e-6)


# ---------------------------------------------------------------- metrics


def test_metrics_by_hand() -> None:
    found = Metrics.of(torch.tensor([[1.0, 2.0, 3.0, 8.0]]), torch.tensor([[1.0, 4.0, 2.5, 6.0]]))
    assert found.abs_rel == pytest.approx((0 + 1 / 2 + 1 / 5 + 1 / 3) / 4)
    assert (found.delta1, found.delta2, found.delta3) == (0.5, 0.75, 0.75)  # ratios 1, 2, 1.2, 1.333
    assert found.rmse == pytest.approx(((0 + 4 + 0.25 + 4) / 4) ** 0.5)
    logs = np.log([1, 0.5, 1.2, 4 / 3])
    assert found.silog == pytest.approx(100 * logs.std())


def test_metrics_are_averaged_over_images_and_silog_ignores_scale() -> None:
    truth = torch.tensor([[1.0, 2.0], [4.0, 4.0]])
    found = Metrics.of(truth * torch.tensor([[2.0], [1.0]]), truth)
    assert found.abs_rel == pytest.approx(0.5)
    assert found.silog == pytest.approx(0, abs=1e-6)
    assert found.rmse == pytest.approx(((1 + 4) / 2) ** 0.5 / 2)


def test_deltas_nest_and_count_ratios_both_ways() -> None:
    """Ratios 1.2, 1 / 1.5, 1.9 and 2: below 1.25, 1.5625, 1.953 and none of them."""
    found = Metrics.of(torch.tensor([[1.2, 1.0, 1.9, 1.0]]), torch.tensor([[1.0, 1.5, 1.0, 2.0]]))
    assert (found.delta1, found.delta2, found.delta3) == (0.25, 0.5, 0.75)
    assert found.abs_rel == pytest.approx((0.2 + 1 / 3 + 0.9 + 0.5) / 4)


def test_silog_is_the_spread_of_the_ratio_s_logarithm() -> None:
    """Ratios e and 1 / e: mean 0, standard deviation 1, given as 100."""
    found = Metrics.of(torch.tensor([[np.e, 1.0]]), torch.tensor([[1.0, np.e]]))
    assert found.silog == pytest.approx(100)
    assert found.rmse == pytest.approx(np.e - 1)


def test_metrics_want_one_shape() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: \(1, 2\) against \(1, 3\)"):
        Metrics.of(torch.ones(1, 2), torch.ones(1, 3))


# ---------------------------------------------------------------- pictures


def decoded(data: bytes) -> picture.Picture:
    """The pixels of an 8-bit RGB PNG without filters; asserts signature, chunks and sums."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(data):
        (length,), kind = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        body, place = data[place + 8 : place + 8 + length], place + 12 + length
        assert data[place - 4 : place] == struct.pack(">I", zlib.crc32(kind + body))
        chunks[kind] = body
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, 3)


def noise(height: int, width: int) -> picture.Picture:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_png_decodes_to_its_picture() -> None:
    assert np.array_equal(decoded(picture.png(noise(5, 7))), noise(5, 7))


def test_colours_run_from_near_to_far() -> None:
    colours = picture.coloured(np.array([[0.0, 1.0, 5.5, 10.0, 99.0]], np.float32), 1, 10)
    assert colours[0].tolist() == [[240, 249, 33]] * 2 + [[204, 71, 120]] + [[13, 8, 135]] * 2


def test_a_sheet_has_a_title_over_each_column() -> None:
    parts = [noise(10, 40), noise(10, 40) // 2]
    drawn = picture.sheet(("a8", "exact"), [parts, parts[::-1]], scale=2)
    assert drawn.shape == (26 + 2 * (4 + 20), 2 * 80 + 4, 3)
    assert np.array_equal(drawn[30:50:2, 84::2], parts[1])
    assert np.array_equal(drawn[54::2, :80:2], parts[1])
    ink = (drawn[:26] < 255).any(-1)
    assert ink[:, :80].any()
    assert ink[:, 84:].any()
    assert not ink[:, 80:84].any()


def test_every_letter_of_the_captions_is_different() -> None:
    drawn = {picture.caption(letter, 12).tobytes() for letter in picture.LETTERS}
    assert len(drawn) == len(picture.LETTERS)


def test_half_blocks_show_two_pixels_per_character() -> None:
    text = picture.half_blocks(noise(4, 4), columns=4)
    assert text.plain == "▀▀▀▀\n" * 2
    (a, b, c), (d, e, f) = noise(4, 4)[2, 1].tolist(), noise(4, 4)[3, 1].tolist()
    assert str(text.spans[5].style) == f"rgb({a},{b},{c}) on rgb({d},{e},{f})"
