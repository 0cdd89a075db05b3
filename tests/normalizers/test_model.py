"""Model: what travels in place of weights."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import dicoms
from tests.profiles import by_imagecms, matrix_profile
from wsi_norm.errors import CheckpointError, ConfigError
from wsi_norm.lstainnorm import load_checkpoint, save_checkpoint
from wsi_norm.lstainnorm.checkpoint import PACKAGED
from wsi_norm.normalizers.model import Model


def test_the_digest_is_that_of_the_file() -> None:
    model = Model()
    fixed = model.fixed(model.load("cpu"))
    assert fixed.sha256 == hashlib.sha256(PACKAGED["density"].read_bytes()).hexdigest()
    assert pickle.loads(pickle.dumps(fixed)) == fixed
    assert fixed.load("cpu").digest == fixed.sha256


def test_a_file_that_changes_during_a_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_checkpoint(load_checkpoint(), path)
    model = Model(path=path)
    fixed = model.fixed(model.load("cpu"))
    save_checkpoint(load_checkpoint(), path, {"other": "provenance"})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: it changed during the run"):
        fixed.load("cpu")


def test_a_checkpoint_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer and digest come from the same bytes, so no other file can slip in between."""
    path = tmp_path / "model.safetensors"
    save_checkpoint(load_checkpoint(), path)
    reads: list[Path] = []
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *how: reads.append(self) or opened(self, *how))
    Model(path=path).load("cpu")
    assert reads == [path]


def test_settings_that_do_not_fit_name_the_file() -> None:
    with pytest.raises(ConfigError, match="device"):
        Model().load("tpu")


def test_a_targets_profile_is_applied_as_to_the_slides(tmp_path: Path) -> None:
    path, profile, pixels = tmp_path / "target.png", matrix_profile(), dicoms.picture(64)
    Image.fromarray(pixels).save(path, icc_profile=profile)
    applied = Model("macenko", target=path, icc="apply").target_pixels()
    np.testing.assert_array_equal(applied, by_imagecms(pixels, profile))
    np.testing.assert_array_equal(Model("macenko", target=path).target_pixels(), pixels)
