"""The layer at work on uint8 tiles.

Without a GPU these stay untested: that tiles reach it through pinned memory, that the layer moves
to it, that its output agrees with the CPU's, and that a fitted batch really fits. The choice of a
device and the size of a batch are tested with torch's answers faked, the GPU's kernels interpreted
(test_gpu.py). The tests named `..._gpu` run where there is a CUDA device (`make gpu`).
"""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage import color
from torch import Tensor

from tests.builders import GLASS, TEMPLATE, density_by_numpy, moments_by_scikit_image
from wsi_norm.errors import ConfigError
from wsi_norm.lstainnorm import LayerConfig, LStainNorm, Statistics, Template, make_layer
from wsi_norm.normalizers import engine as module
from wsi_norm.normalizers.batches import BYTES_PER_PIXEL, OnTensors
from wsi_norm.normalizers.engine import Engine, Normalizer

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

PRESETS = ["paper", "product", "mean", "single:lab", "reference"]


def tissue(count: int = 3, height: int = 24, width: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    amount = rng.random((count, height, width, 1))
    colour = np.array([70, 40, 110]) * amount + np.array([190, 110, 130]) * (1 - amount)
    return (colour + rng.normal(0, 5, colour.shape)).clip(1, 200).astype(np.uint8)


def tiles_with_glass(count: int = 3, glass_rows: int = 10) -> np.ndarray:
    tiles = tissue(count)
    tiles[:, :glass_rows] = GLASS
    return tiles


def blank(count: int = 1) -> np.ndarray:
    return np.full((count, 24, 40, 3), GLASS, np.uint8)


def normalizer(preset: str = "paper", engine: Engine = "auto") -> Normalizer:
    torch.manual_seed(0)
    layer = make_layer(LayerConfig(preset), TEMPLATE)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return Normalizer(layer, device="cpu", engine=engine)


def as_image(tiles: np.ndarray) -> Tensor:
    return torch.tensor(tiles).permute(0, 3, 1, 2) / 255


def slide() -> Statistics:
    return normalizer().measure(tiles_with_glass(2))


def assert_measured(statistics: Statistics, pixels: np.ndarray) -> None:
    """Against scikit-image and scipy on the pixels (M, 3) that count."""
    expected = moments_by_scikit_image(pixels)
    expected["od"] = density_by_numpy(pixels, statistics.white)
    assert set(statistics.mean) == set(expected)
    for space, (mean, std) in expected.items():
        np.testing.assert_allclose(statistics.mean[space], mean, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(statistics.std[space], std, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("given", [False, True])
def test_it_is_the_layer_but_for_rounding_to_bytes(preset: str, given: bool) -> None:
    tiles = tiles_with_glass()
    normalize = normalizer(preset)
    statistics = slide() if given else None
    out = normalize(tiles, statistics)
    assert out.dtype == np.uint8
    assert out.shape == tiles.shape
    expected = normalize.layer(as_image(tiles), statistics).detach().permute(0, 2, 3, 1) * 255
    np.testing.assert_allclose(out, expected.clamp(0, 255).numpy(), atol=0.501)
    assert np.abs(out.astype(int) - tiles).mean() > 5


def test_levels_are_rounded_not_cut() -> None:
    """Glass is passed through: every level must come back as itself."""
    levels = np.arange(1, 256, dtype=np.uint8)
    tiles = np.broadcast_to(levels[None, :, None, None], (1, 255, 4, 3)).copy()
    statistics = Statistics(slide().mean, slide().std, (1 / 255,) * 3, 100)
    assert (normalizer()(tiles, statistics) == tiles).all()


def test_glass_keeps_its_bytes() -> None:
    tiles = tiles_with_glass()
    out = normalizer()(tiles, slide())
    assert (out[:, :10] == tiles[:, :10]).all()
    assert (out[:, 10:] != tiles[:, 10:]).mean() > 0.9


@pytest.mark.parametrize("preset", [preset for preset in PRESETS if preset != "reference"])
def test_the_engines_agree(preset: str) -> None:
    tiles = np.concatenate([tiles_with_glass(2), blank(), tissue(1, seed=8)])
    kernel, in_torch = normalizer(preset, "kernel"), normalizer(preset, "torch")
    assert (kernel.engine, in_torch.engine) == ("kernel", "torch")
    for statistics in (None, slide()):
        for white in (None, (0.9, 0.95, 0.92)):
            out, usable = kernel.normalize(tiles, statistics, white)
            expected, expected_usable = in_torch.normalize(tiles, statistics, white)
            assert usable.tolist() == expected_usable.tolist()
            assert np.abs(out.astype(int) - expected).max() <= 1
    mask = np.random.default_rng(0).random(tiles.shape[:3]) < 0.5
    for tissue_mask in (None, mask):
        got, expected = (which.measure(tiles, tissue_mask) for which in (kernel, in_torch))
        assert (got.white, got.tissue_pixels) == (expected.white, expected.tissue_pixels)
        for space, mean in expected.mean.items():
            assert got.mean[space] == pytest.approx(mean, rel=1e-5)
            assert got.std[space] == pytest.approx(expected.std[space], rel=1e-5)


@pytest.mark.parametrize("preset", PRESETS)
def test_auto_is_the_kernel_where_there_is_one(preset: str) -> None:
    assert normalizer(preset).engine == ("torch" if preset == "reference" else "kernel")


def test_an_engine_that_cannot_be_is_refused_in_a_line() -> None:
    for preset, engine, remedy in (
        ("reference", "kernel", "engine 'torch'"),
        ("paper", "numba", "auto, kernel, torch"),
    ):
        with pytest.raises(ConfigError, match=remedy) as caught:
            normalizer(preset, engine)
        assert "\n" not in str(caught.value)


CUDA = "cuda:0"


def test_auto_is_the_kernel_on_a_gpu_too() -> None:
    layer = normalizer().layer
    assert module._fused(layer, CUDA, "auto") is not None
    assert module._fused(layer, CUDA, "torch") is None
    assert module._fused(normalizer("reference").layer, CUDA, "auto") is None


def test_without_triton_torch_does_it_on_a_gpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = normalizer().layer
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "triton" else find(name)
    )
    with pytest.warns(RuntimeWarning, match="pip install triton"):
        assert module._fused(layer, CUDA, "auto") is None
    with pytest.raises(ConfigError, match="pip install triton"):
        module._fused(layer, CUDA, "kernel")
    assert module._fused(layer, "cpu", "auto") is not None


def test_without_numba_torch_does_it_and_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = normalizer().layer
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "numba" else find(name)
    )
    with pytest.warns(RuntimeWarning, match="pip install numba") as caught:
        normalize = Normalizer(layer, "cpu")
    assert [warning.filename for warning in caught] == [__file__]
    assert normalize.engine == "torch"
    assert normalize(tissue(1)).shape == (1, 24, 40, 3)
    assert Normalizer(layer, "cpu", engine="torch").engine == "torch"  # asked for: no warning
    assert normalizer("reference").engine == "torch"
    with pytest.raises(ConfigError, match="pip install numba"):
        Normalizer(layer, "cpu", engine="kernel")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("given", [False, True])
def test_no_byte_depends_on_the_batch(preset: str, given: bool) -> None:
    tiles = np.concatenate([tiles_with_glass(3), blank(), tissue(1, seed=8)])
    normalize = normalizer(preset)
    statistics = slide() if given else None
    together = normalize(tiles, statistics)
    alone = np.concatenate([normalize(tile[None], statistics) for tile in tiles])
    halves = np.concatenate([normalize(tiles[:2], statistics), normalize(tiles[2:], statistics)])
    backward = normalize(tiles[::-1].copy(), statistics)[::-1]
    assert (together == alone).all()
    assert (together == halves).all()
    assert (together == backward).all()


def test_a_tile_does_not_depend_on_its_neighbours_even_in_one_pass() -> None:
    """As a GPU works: a whole batch through the layer, to one level."""
    tiles = np.concatenate([tiles_with_glass(2), blank(), tissue(1, seed=8)])
    normalize = normalizer()
    together, usable = on_tensors()._forward(torch.tensor(tiles), None, None)
    assert usable.tolist() == [True, True, False, True]
    assert np.abs(together.numpy().astype(int) - normalize(tiles)).max() <= 1


def test_measure_is_the_mean_and_std_of_the_tissue_of_all_tiles_together() -> None:
    tiles = tiles_with_glass()
    tiles[0, 10:] //= 2
    statistics = normalizer().measure(tiles)
    assert_measured(statistics, tiles[:, 10:])
    assert statistics.tissue_pixels == tiles[:, 10:, :, 0].size
    np.testing.assert_allclose(np.array(statistics.white) * 255, GLASS, rtol=1e-6)


def test_measure_takes_the_white_of_all_tiles_not_of_each() -> None:
    """A pale tile among others is tissue, though by itself it would take itself for glass."""
    noise = np.random.default_rng(0).integers(-2, 3, (1, 24, 40, 3))
    pale = (np.array((200, 150, 190)) + noise).astype(np.uint8)
    tiles = np.concatenate([tiles_with_glass(2), pale])
    statistics = normalizer().measure(tiles)
    assert_measured(statistics, np.concatenate([t.reshape(-1, 3) for t in (tiles[:2, 10:], pale)]))


def test_measure_with_a_white_from_elsewhere() -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (1, 24, 40, 3))
    pale = (np.array((200, 150, 190)) + noise).astype(np.uint8)
    normalize = normalizer()
    with pytest.raises(ValueError, match="no tissue"):
        normalize.measure(pale, None, tuple(pale.reshape(-1, 3).max(axis=0) / 255))
    statistics = normalize.measure(pale, None, (0.95, 0.95, 0.95))
    assert statistics.white == (0.95, 0.95, 0.95)
    assert_measured(statistics, pale)


@pytest.mark.parametrize("preset", ["paper", "single:lab"])
def test_measure_does_not_depend_on_the_layer(preset: str) -> None:
    tiles = tiles_with_glass()
    assert normalizer(preset).measure(tiles) == normalizer("mean").measure(tiles)


def test_a_layer_with_linear_hue_gets_linear_statistics() -> None:
    """The hue of red tissue straddles 0: its plain mean is far from its circular one."""
    tiles = np.random.default_rng(1).normal((190, 80, 80), 8, (2, 40, 40, 3)).astype(np.uint8)
    white = (1.0, 1.0, 1.0)
    linear = normalizer("reference").measure(tiles, None, white)
    circular = normalizer("paper").measure(tiles, None, white)
    hue = color.rgb2hsv(tiles)[..., 0] * 2 * np.pi
    assert linear.mean["hsv"][0] == pytest.approx(hue.mean(), rel=1e-4)
    assert linear.std["hsv"][0] == pytest.approx(hue.std(), rel=1e-4)
    assert abs(circular.mean["hsv"][0] - linear.mean["hsv"][0]) > 1
    assert linear.mean["lab"] == pytest.approx(circular.mean["lab"], rel=1e-5)


def test_measured_statistics_make_the_tissue_what_the_layer_aims_at() -> None:
    """In RGB alone, where neither the floor nor the clip plays a part."""
    tiles = tiles_with_glass()
    template = Template({"rgb": (0.5, 0.45, 0.55)}, {"rgb": (0.05, 0.06, 0.07)})
    normalize = Normalizer(LStainNorm("single:rgb", template=template), device="cpu")
    out = normalize(tiles, normalize.measure(tiles))[:, 10:].reshape(-1, 3) / 255
    np.testing.assert_allclose(out.mean(axis=0), (0.5, 0.45, 0.55), atol=1e-3)
    np.testing.assert_allclose(out.std(axis=0), (0.05, 0.06, 0.07), atol=1e-3)


def test_only_the_tissue_mask_counts() -> None:
    tiles = tiles_with_glass()
    tiles[:, 18:] = (20, 90, 30)  # ink, say
    mask = np.ones(tiles.shape[:3], bool)
    mask[:, 18:] = False
    mask[1] = False
    statistics = normalizer().measure(tiles, mask)
    assert statistics.white == normalizer().measure(tiles).white
    assert_measured(statistics, tiles[[0, 2], 10:18])
    assert statistics.tissue_pixels == 2 * 8 * 40


def test_glass_inside_the_tissue_mask_does_not_count() -> None:
    tiles = tiles_with_glass()
    everything = np.ones(tiles.shape[:3], bool)
    assert normalizer().measure(tiles, everything) == normalizer().measure(tiles)


def test_an_empty_tissue_mask_is_an_error() -> None:
    tiles = tiles_with_glass()
    with pytest.raises(ValueError, match="no tissue"):
        normalizer().measure(tiles, np.zeros(tiles.shape[:3], bool))


@pytest.mark.parametrize("form", ["read-only", "flipped", "strided"])
def test_a_tissue_mask_may_be_any_view(form: str) -> None:
    tiles = tiles_with_glass()
    mask = np.zeros(tiles.shape[:3], bool)
    mask[:, 5:20, 7:] = True
    expected = normalizer().measure(tiles, mask)
    if form == "read-only":
        view = mask.copy()
        view.flags.writeable = False
    elif form == "flipped":
        view = mask[:, ::-1].copy()[:, ::-1]
    else:
        view = np.repeat(mask, 2, axis=2)[:, :, ::2]
    got = normalizer().measure(tiles, view)
    assert got.tissue_pixels == expected.tissue_pixels
    assert got.mean["lab"] == pytest.approx(expected.mean["lab"], rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 24, 40), (3, 24, 20), (3, 1, 40), (24, 40), (3, 24, 40, 1)])
def test_a_tissue_mask_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        normalizer().measure(tiles_with_glass(), np.ones(shape, bool))


def test_nothing_to_measure_is_an_error() -> None:
    for tiles in (blank(2), np.zeros((0, 24, 40, 3), np.uint8)):
        with pytest.raises(ValueError, match="no tissue"):
            normalizer().measure(tiles)


def test_tiles_without_tissue_are_passed_through_and_reported() -> None:
    tiles = np.concatenate([blank(), tiles_with_glass(1), blank()])
    out, usable = normalizer().normalize(tiles)
    assert usable.dtype == np.bool_
    assert usable.tolist() == [False, True, False]
    assert (out[[0, 2]] == tiles[[0, 2]]).all()
    assert (out[1] != tiles[1]).any()


def test_with_slide_statistics_every_tile_is_usable() -> None:
    tiles = np.concatenate([blank(), tiles_with_glass(1)])
    out, usable = normalizer().normalize(tiles, slide())
    assert usable.tolist() == [True, True]
    assert (out[0] == tiles[0]).all()


def test_a_white_from_elsewhere_reaches_the_layer() -> None:
    noise = np.random.default_rng(0).integers(-2, 3, (1, 24, 40, 3))
    pale = (np.array((200, 150, 190)) + noise).astype(np.uint8)
    normalize = normalizer()
    out, usable = normalize.normalize(pale, white=(0.79, 0.6, 0.75))
    assert not usable.any()
    out, usable = normalize.normalize(pale, white=(0.95, 0.95, 0.95))
    assert usable.all()
    assert (out != pale).any(axis=-1).all()


BAD = {
    "float": np.zeros((1, 8, 8, 3), np.float32),
    "uint16": np.zeros((1, 8, 8, 3), np.uint16),
    "bool": np.zeros((1, 8, 8, 3), bool),
    "rgba": np.zeros((1, 8, 8, 4), np.uint8),
    "grey": np.zeros((1, 8, 8), np.uint8),
    "channels first": np.zeros((1, 3, 8, 8), np.uint8),
    "two axes": np.zeros((8, 3), np.uint8),
    "five axes": np.zeros((1, 1, 8, 8, 3), np.uint8),
}


@pytest.mark.parametrize("name", BAD)
def test_other_dtypes_and_shapes_are_refused(name: str) -> None:
    normalize = normalizer()
    with pytest.raises(ValueError, match="uint8"):
        normalize(BAD[name])
    with pytest.raises(ValueError, match="uint8"):
        normalize.measure(BAD[name])


@pytest.mark.parametrize("given", [False, True])
def test_an_empty_batch_gives_an_empty_batch(given: bool) -> None:
    out, usable = normalizer().normalize(
        np.zeros((0, 24, 40, 3), np.uint8), slide() if given else None
    )
    assert out.shape == (0, 24, 40, 3)
    assert out.dtype == np.uint8
    assert usable.shape == (0,)


def test_inputs_are_not_modified_and_the_output_is_another_array() -> None:
    tiles = np.concatenate([tiles_with_glass(), blank()])
    before = tiles.copy()
    normalize = normalizer()
    normalize.measure(tiles)
    out = normalize(tiles)
    assert not np.shares_memory(out, tiles)
    out[:] = 0
    assert (tiles == before).all()
    tiles.flags.writeable = False
    assert normalize(tiles).flags.writeable


@pytest.mark.parametrize("form", ["strided", "transposed", "fortran", "flipped"])
def test_any_view_is_as_good_as_an_array(form: str) -> None:
    tiles = tiles_with_glass()
    view = {
        "strided": tiles[:, ::2, 1::3],
        "transposed": tiles.transpose(0, 2, 1, 3),
        "fortran": np.asfortranarray(tiles),
        "flipped": tiles[:, :, ::-1],
    }[form]
    normalize = normalizer()
    assert (normalize(view) == normalize(np.ascontiguousarray(view))).all()
    got, expected = normalize.measure(view), normalize.measure(np.ascontiguousarray(view))
    assert got.white == expected.white
    for space, mean in expected.mean.items():
        assert got.mean[space] == pytest.approx(mean, rel=1e-6)
        assert got.std[space] == pytest.approx(expected.std[space], rel=1e-6)


def test_it_never_trains() -> None:
    normalize = normalizer()
    assert not normalize.layer.training
    normalize(tiles_with_glass())
    assert all(parameter.grad is None for parameter in normalize.layer.parameters())


def test_the_cpu_is_there_always() -> None:
    assert Normalizer(normalizer().layer, "cpu").device == "cpu"


def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_without_cuda_the_error_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    without_cuda(monkeypatch)
    with pytest.raises(ConfigError, match="--device cpu") as caught:
        Normalizer(normalizer().layer, name)
    assert name in str(caught.value)


def test_auto_without_cuda_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    without_cuda(monkeypatch)
    assert Normalizer(normalizer().layer).device == "cpu"


@pytest.mark.parametrize(
    ("free_gb", "edge", "expected"),
    [
        (8, 256, int(8e9 / 2 / (256 * 256 * BYTES_PER_PIXEL))),
        (8, 1024, int(8e9 / 2 / (1024 * 1024 * BYTES_PER_PIXEL))),
        (0.1, 1024, 1),
        (1000, 64, 256),
    ],
)
def test_a_batch_is_fitted_to_half_the_free_memory(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, edge: int, expected: int
) -> None:
    on_fake_gpu(monkeypatch, int(free_gb * 1e9))
    tiles = np.broadcast_to(np.uint8(0), (1000, edge, edge, 3))
    assert batches(on_tensors(), tiles)[0] == slice(0, expected)


def on_tensors() -> OnTensors:
    return OnTensors(normalizer().layer, "cpu", None, None)


def on_fake_gpu(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, int(80e9)))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda _: SimpleNamespace(synchronize=lambda: None)
    )


def batches(form: OnTensors, tiles: np.ndarray, room: int = 10**6) -> list[slice]:
    """How tiles are divided on a device that has room for so many; nothing is computed."""

    def work(part: slice) -> None:
        if len(tiles[part]) > room:
            raise torch.OutOfMemoryError

    form._device = torch.device(CUDA)
    return [part for part, _ in form._batches(tiles, BYTES_PER_PIXEL, work)]


@pytest.mark.parametrize(("asked", "sizes"), [(None, [4, 3]), (3, [3, 3, 1]), (100, [7])])
def test_batches_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, sizes: list[int]
) -> None:
    """Fitted, with free memory for 4."""
    on_fake_gpu(monkeypatch, 2 * 4 * 24 * 40 * BYTES_PER_PIXEL)
    form = on_tensors()
    form.batch_size = asked
    tiles = tissue(7)
    parts = batches(form, tiles)
    assert [len(tiles[part]) for part in parts] == sizes
    assert (np.concatenate([tiles[part] for part in parts]) == tiles).all()


@pytest.mark.parametrize(
    ("asked", "room", "sizes", "after"),
    [(None, 2, [2, 2, 2, 1], None), (7, 3, [3, 3, 1], 3), (5, 1, [1] * 7, 1)],
)
def test_a_batch_that_does_not_fit_is_halved(
    monkeypatch: pytest.MonkeyPatch,
    asked: int | None,
    room: int,
    sizes: list[int],
    after: int | None,
) -> None:
    on_fake_gpu(monkeypatch, 2 * 4 * 24 * 40 * BYTES_PER_PIXEL)
    form = on_tensors()
    form.batch_size = asked
    tiles = tissue(7)
    parts = batches(form, tiles, room)
    assert [len(tiles[part]) for part in parts] == sizes
    assert (np.concatenate([tiles[part] for part in parts]) == tiles).all()
    assert form.batch_size == after  # what was asked for is not tried again


def test_a_tile_that_does_not_fit_is_an_error_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    on_fake_gpu(monkeypatch, 10**9)
    with pytest.raises(ConfigError, match=r"40 x 24 px does not fit .* --device cpu") as caught:
        batches(on_tensors(), tissue(3), 0)
    assert "\n" not in str(caught.value)


def test_a_cpu_works_tile_by_tile() -> None:
    form = on_tensors()
    form.batch_size = 5
    parts = form._batches(tissue(3), BYTES_PER_PIXEL, lambda part: part)
    assert [part.stop - part.start for part, _ in parts] == [1, 1, 1]


@needs_gpu
@pytest.mark.parametrize("engine", ["auto", "torch"])
@pytest.mark.parametrize("preset", PRESETS)
def test_it_agrees_with_the_cpu_on_a_gpu(preset: str, engine: Engine) -> None:
    tiles = np.concatenate([tiles_with_glass(5), blank()])
    expected, usable = normalizer(preset).normalize(tiles)
    on_gpu = Normalizer(normalizer(preset).layer, "cuda", batch_size=4, engine=engine)
    assert next(on_gpu.layer.parameters()).is_cuda
    assert on_gpu.engine == ("torch" if preset == "reference" else engine.replace("auto", "kernel"))
    out, usable_on_gpu = on_gpu.normalize(tiles)
    assert usable_on_gpu.tolist() == usable.tolist()
    assert np.abs(out.astype(int) - expected).max() <= 1


@needs_gpu
@pytest.mark.parametrize("engine", ["kernel", "torch"])
def test_a_fitted_batch_fits_on_a_gpu(engine: Engine) -> None:
    on_gpu = Normalizer(normalizer().layer, "cuda", engine=engine)
    tiles = np.repeat(tissue(1, 256, 256), 300, axis=0)
    assert on_gpu(tiles, slide()).shape == tiles.shape
