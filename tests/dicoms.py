"""DICOM that the tests write: whole slides level by level, and other objects."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    VLWholeSlideMicroscopyImageStorage,
    generate_uid,
)

TILE = 128
EDGE = 384
MPP_UM = 0.5


def picture(edge: int = EDGE, seed: int = 0) -> np.ndarray:
    """uint8 (edge, edge, 3): pink and violet blobs on glass."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (5, 5), np.uint8)).resize((edge, edge))
    share = np.asarray(blobs, np.float64)[..., None] / 255
    colour = np.array([160.0, 90.0, 150.0]) + 40 * rng.random((edge, edge, 1))
    return np.where(share > 0.5, colour, (243.0, 241.0, 243.0)).round().astype(np.uint8)


def write_slide(
    folder: Path,
    stem: str = "level",
    suffix: str = ".dcm",
    *,
    levels: int = 2,
    seed: int = 0,
    series: str | None = None,
    **elements: Any,
) -> str:
    """Files `<stem>0<suffix>`, `<stem>1<suffix>` ... of one slide; returns its series."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or generate_uid()
    for level in range(levels):
        pixels = np.asarray(Image.fromarray(picture(seed=seed)).reduce(2**level))
        write_image(
            folder / f"{stem}{level}{suffix}", pixels, MPP_UM * 2**level, series, **elements
        )
    return series


def write_image(
    path: Path,
    pixels: np.ndarray,
    mpp_um: float,
    series: str,
    *,
    flavour: str = "VOLUME",
    syntax: str = JPEGBaseline8Bit,
    **elements: Any,
) -> Dataset:
    """One instance of a slide, tiled, as JPEG or uncompressed; `elements` are added or replaced."""
    height, width = pixels.shape[:2]
    frames = _frames(pixels)
    data = _dataset(VLWholeSlideMicroscopyImageStorage, syntax)
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, "1.2", series
    data.Modality, data.InstanceNumber = "SM", 1
    data.ImageType = ["DERIVED", "PRIMARY", flavour, "NONE"]
    data.Rows = data.Columns = TILE
    data.NumberOfFrames = len(frames)
    data.TotalPixelMatrixColumns, data.TotalPixelMatrixRows = width, height
    data.SamplesPerPixel, data.PlanarConfiguration, data.PixelRepresentation = 3, 0, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.DimensionOrganizationType = "TILED_FULL"
    data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
    measures, shared, path_of_light = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [f"{mpp_um / 1000:.8f}"] * 2, 0.001
    shared.PixelMeasuresSequence = [measures]
    data.SharedFunctionalGroupsSequence = [shared]
    path_of_light.OpticalPathIdentifier = "1"
    data.OpticalPathSequence = [path_of_light]
    if syntax == JPEGBaseline8Bit:
        data.PhotometricInterpretation = "YBR_FULL_422"
        data.PixelData = encapsulate([_jpeg(frame) for frame in frames])
        data["PixelData"].is_undefined_length = True
    else:
        data.PhotometricInterpretation = "RGB"
        data.PixelData = b"".join(frame.tobytes() for frame in frames)
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.save_as(path, enforce_file_format=True)
    return data


def write_report(path: Path) -> None:
    """A structured report, as archives keep annotations."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = _dataset(ComprehensiveSRStorage, ExplicitVRLittleEndian)
    data.Modality, data.SeriesInstanceUID = "SR", generate_uid()
    data.save_as(path, enforce_file_format=True)


def _dataset(sop_class: str, syntax: str) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return data


def _frames(pixels: np.ndarray) -> Sequence[np.ndarray]:
    height, width = pixels.shape[:2]
    rows, columns = -(-height // TILE), -(-width // TILE)
    padded = np.full((rows * TILE, columns * TILE, 3), 255, np.uint8)
    padded[:height, :width] = pixels
    return [
        padded[top : top + TILE, left : left + TILE]
        for top in range(0, rows * TILE, TILE)
        for left in range(0, columns * TILE, TILE)
    ]


def _jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=1)
    return buffer.getvalue()
