"""The domain probe: how well scanners (or laboratories) can still be told apart.

A linear classifier is trained to tell the domain of an image from cheap features of it. The less
it succeeds after normalisation, the less of the domain is left. Chance is 1 / domains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import feature
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from wsi_norm.colorspace import CONVERSIONS
from wsi_norm.evaluation.quality import Floats, cielab, gradient_magnitude

# scikit-image leaves it unannotated.
_local_binary_pattern: Callable[..., Floats] = feature.local_binary_pattern

LAB_RANGES = ((0.0, 100.0), (-20.0, 60.0), (-50.0, 30.0))
"""Of the histograms: L*, and the a* and b* of H&E; what lies beyond counts in the outer bins."""
LAB_BINS = 16
NEIGHBOURS = 8
BANDS = 8
MIN_SIDE = 16
"""px; from there on, every band of the power spectrum holds a frequency."""
MAX_ITERATIONS = 5000
MIN_GROUPS = 2


def colour_features(images: Tensor) -> Floats:
    """Mean and std of L*, a*, b* of each image, over all its pixels.

    Parameters
    ----------
    images
        float (B, 3, H, W), RGB in [0, 1].

    Returns
    -------
    float64 (B, 6): three means, then three (population) standard deviations, in CIELAB units.

    Raises
    ------
    ValueError
        images has another shape or is not float.
    """
    lab = cielab(images)
    return np.concatenate([lab.mean(axis=(1, 2)), lab.std(axis=(1, 2))], axis=1)


def rich_features(images: Tensor) -> Floats:
    """Colour and texture of each image, without a network.

    Parameters
    ----------
    images
        float (B, 3, H, W), RGB in [0, 1], H and W at least 16 px. Sharpness counts in px: compare
        images of one resolution.

    Returns
    -------
    float64 (B, 79), in this order:

    - 48: histograms of L*, a*, b*, 16 bins each, as shares of the pixels (LAB_RANGES);
    - 9: mean, std, skewness of haematoxylin, eosin and DAB densities, stain by stain;
    - 4: mean, std, 90th and 99th percentile of the Sobel gradient of L* / 100;
    - 10: shares of the uniform local binary patterns (8 neighbours at 1 px) of L*;
    - 8: log10 of the mean power of L* / 100 in rings of equal width from 0 to 0.5 cycles per px.

    Raises
    ------
    ValueError
        images has another shape, is not float, or is smaller than 16 px.

    Notes
    -----
    Local binary patterns: Ojala, Pietikainen and Maenpaa, IEEE PAMI 24:971-987, 2002.
    """
    lab = cielab(images)
    if min(lab.shape[1:3]) < MIN_SIDE:
        raise ValueError(f"images must be at least {MIN_SIDE} px each way, not {lab.shape[1:3]}")
    hed = CONVERSIONS["hed"].from_rgb(images.detach().cpu().double()).numpy()
    rows = []
    for pixels, stains in zip(lab, hed, strict=True):
        luminance = pixels[..., 0] / 100
        parts = (
            _histograms(pixels),
            _moments(stains),
            _gradients(luminance),
            _patterns(luminance),
            _power(luminance),
        )
        rows.append(np.concatenate(parts))
    return np.array(rows, dtype=np.float64)


def domain_probe(
    features: npt.ArrayLike,
    domain: npt.ArrayLike,
    group: npt.ArrayLike,
    seed: int = 0,
    folds: int = 5,
) -> float:
    """How well the domains can be told apart: cross-validated balanced accuracy.

    Logistic regression (L2, C = 1, domains weighted equally) on standardised features. No group is
    in training and test at once. Predictions of all folds are pooled before they are scored.

    Parameters
    ----------
    features
        (N, F), finite.
    domain
        (N,): the label to tell, such as the scanner.
    group
        (N,): the case (patient, slide). It may lie in one domain or in several.
    seed
        Of the assignment of groups to folds.
    folds
        At least 2. A domain with fewer groups than that reduces it to its number of groups, so
        that every fold can test every domain.

    Returns
    -------
    In [0, 1]. Chance is 1 / domains; with few groups, it can come out well below.

    Raises
    ------
    ValueError
        Lengths differ; features are not (N, F) or not finite; folds is below 2; there are fewer
        than two domains, or fewer than two groups in one; very uneven groups put all of a domain
        into one fold.
    """
    x, y, groups = np.asarray(features, dtype=np.float64), np.asarray(domain), np.asarray(group)
    _check(x, y, groups)
    splits = _splits(y, groups, folds)
    splitter = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
    predicted = np.empty_like(y)
    for train, test in splitter.split(x, y, groups):
        if len(np.unique(y[train])) < len(np.unique(y)):  # rare: very uneven groups
            raise ValueError("a fold has all groups of a domain: use another seed or fewer folds")
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=MAX_ITERATIONS)
        )
        predicted[test] = classifier.fit(x[train], y[train]).predict(x[test])
    return float(balanced_accuracy_score(y, predicted))


def _check(x: Floats, y: npt.NDArray[Any], groups: npt.NDArray[Any]) -> None:
    if x.ndim != 2 or y.shape != (len(x),) or groups.shape != (len(x),):
        raise ValueError(
            f"expected features (N, F), domain (N,), group (N,), not {x.shape}, {y.shape}, "
            f"{groups.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError("features hold NaN or infinity")


def _splits(y: npt.NDArray[Any], groups: npt.NDArray[Any], folds: int) -> int:
    """How many folds are possible: at most the number of groups of each domain."""
    if folds < MIN_GROUPS:
        raise ValueError(f"folds must be at least {MIN_GROUPS}, not {folds}")
    counts = {name: len(np.unique(groups[y == name])) for name in np.unique(y)}
    if len(counts) < 2:
        raise ValueError("there must be at least two domains to tell apart")
    fewest = min(counts, key=lambda name: counts[name])
    if counts[fewest] < MIN_GROUPS:
        raise ValueError(
            f"domain {fewest} has {counts[fewest]} group; at least {MIN_GROUPS} are needed, one to "
            "train and one to test"
        )
    return min(folds, counts[fewest])


def _histograms(lab: Floats) -> Floats:
    shares = [
        np.histogram(channel.clip(*limits), LAB_BINS, limits)[0] / channel.size
        for channel, limits in zip(np.moveaxis(lab, -1, 0), LAB_RANGES, strict=True)
    ]
    return np.concatenate(shares)


def _moments(stains: Floats) -> Floats:
    """Mean, std, skewness of each channel of (C, H, W); a constant one has skewness 0."""
    flat = stains.reshape(len(stains), -1)
    mean, std = flat.mean(axis=1), flat.std(axis=1)
    third = ((flat - mean[:, None]) ** 3).mean(axis=1)
    skewness = np.divide(third, std**3, out=np.zeros_like(std), where=std > 1e-9)
    return np.stack([mean, std, skewness], axis=1).ravel()


def _gradients(luminance: Floats) -> Floats:
    magnitude = gradient_magnitude(luminance)
    return np.array([magnitude.mean(), magnitude.std(), *np.percentile(magnitude, (90, 99))])


def _patterns(luminance: Floats) -> Floats:
    # in whole levels: patterns of finer differences would be rounding
    levels = np.rint(255 * luminance).astype(np.uint8)
    codes = _local_binary_pattern(levels, P=NEIGHBOURS, R=1, method="uniform").astype(np.intp)
    return np.bincount(codes.ravel(), minlength=NEIGHBOURS + 2) / codes.size


def _power(luminance: Floats) -> Floats:
    # Hann's window: the jump from one edge of the image to the other is no detail of it
    window = np.outer(*(np.hanning(side) for side in luminance.shape))
    power = np.abs(np.fft.fft2((luminance - luminance.mean()) * window)) ** 2 / np.sum(window**2)
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in power.shape), indexing="ij"))
    ring = (frequency * (2 * BANDS)).astype(np.intp).ravel()  # the corners beyond 0.5 are left out
    counts = np.bincount(ring, minlength=BANDS)[:BANDS]
    return np.asarray(np.log10(np.bincount(ring, power.ravel())[:BANDS] / counts + 1e-12))
