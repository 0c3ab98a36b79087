"""Headers drawn from what standards allow: written values and mm are theirs, or a fault says why.

No damage is drawn here; a file may be refused for one of the reasons that are written down with it.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunet_semisup.dataset_conversion.generic.readers import read_any_image
from nnunet_semisup.dataset_conversion.reading.pictures import read_as_nnunet
from nnunet_semisup.dataset_conversion.reading.scans import TrustingAffine
from nnunet_semisup.dataset_conversion.volume import UnreadableFileError, UnusableFileError
from nnunet_semisup.dataset_conversion.writing.volume_files import write_volume
from tests.formats import rows_nifti, rows_pictures, rows_text_headers
from tests.formats.standard import read_nifti, rotation

SHAPE = (3, 4, 5)
STEP = st.floats(0.05, 20)
STEPS = st.tuples(STEP, STEP, STEP)
FROM_RAS = np.array([-1.0, -1.0, 1.0])


def seeded(examples):
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def values(dtype, shape=SHAPE):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def converted(path, allowed):
    """What convert writes, read by the standard; ``None`` if it refuses for an allowed reason."""
    volume, refusal = None, ""
    try:
        volume = read_any_image(path)
    except UnreadableFileError as error:
        refusal = str(error)
    if volume is None:
        assert any(word in refusal for word in allowed), refusal
        return None
    assert not allowed, f"read although {allowed}"
    target = path.with_name("written.nii.gz")
    write_volume(volume, target)
    return read_nifti(target)


def check(found, wanted_values, spacing, direction=None):
    np.testing.assert_allclose(found.spacing, spacing, rtol=1e-4)
    np.testing.assert_allclose(found.values, wanted_values, rtol=1e-5, atol=1e-4)
    if direction is not None:
        np.testing.assert_allclose(found.direction, direction, atol=1e-3)


@st.composite
def quaternions(draw):
    """Three numbers of norm 1 at most, in which rounding may leave a little more."""
    angles = [draw(st.floats(-1, 1)) for _ in range(4)]
    full = np.array(angles) if np.linalg.norm(angles) > 0.1 else np.array([1.0, 0, 0, 0])
    full = full / np.linalg.norm(full) * (1 if full[0] >= 0 else -1)
    stretch = draw(st.sampled_from([1.0, 1.0, 1.0001])) if abs(full[0]) < 1e-3 else 1.0
    return tuple(float(v) for v in full[1:] * stretch)


@seeded(150)
@given(
    source=st.sampled_from(["none", "qform", "sform", "both"]),
    quaternion=quaternions(),
    steps=STEPS,
    lie=st.sampled_from([1.0, 1.0, 1.0, 1.5]),
    shear=st.sampled_from([0.0, 0.0, 0.0, 0.4]),
    qfac=st.sampled_from([1, -1, 0]),
    unit=st.sampled_from([0, 1, 2, 3, 2 | 8, 3 | 16]),
    scaling=st.tuples(st.sampled_from([0, 1, 2, -0.5, np.nan]), st.sampled_from([0, 7, -1024])),
    dtype=st.sampled_from([np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32]),
    order=st.sampled_from("<>"),
)
def test_nifti(tmp_path, source, quaternion, steps, lie, shear, qfac, unit, scaling, dtype, order):
    matrix = rotation(quaternion) * ([1, 1, -1] if qfac < 0 else [1, 1, 1])
    affine = matrix * steps
    affine[:, 1] += shear * matrix[:, 0] * steps[0] if source == "sform" else 0
    lengths = np.linalg.norm(affine, axis=0)
    pixdim = lengths * (lie if source == "sform" else 1)
    path = tmp_path / "x.nii"
    fields = {"quaternion": quaternion} if source in ("qform", "both") else {}
    fields |= {"sform": affine} if source in ("sform", "both") else {}
    stored = values(dtype)
    rows_nifti.write(
        path, stored, pixdim=pixdim, qfac=qfac, unit=unit, scaling=scaling, order=order, **fields
    )
    allowed = ["--trust-affine"] if source == "sform" and lie != 1 else []
    allowed += ["orthonormal"] if source == "sform" and shear else []
    allowed += ["scl_slope"] if not (scaling[0] and np.isfinite(scaling[0])) and scaling[1] else []
    found = converted(path, allowed)
    if found is not None:
        truth = read_nifti(path)
        check(found, truth.values, truth.spacing, truth.direction)
        if truth.origin is not None:
            np.testing.assert_allclose(found.origin, truth.origin, rtol=1e-4)


@seeded(80)
@given(quaternion=quaternions(), steps=STEPS, unit=st.sampled_from([0, 1, 2, 3]))
def test_affine_that_is_trusted(tmp_path, quaternion, steps, unit):
    path = tmp_path / "x.nii"
    affine = rotation(quaternion) * steps
    rows_nifti.write(path, values(np.int16), sform=affine, pixdim=(25, 25, 25), unit=unit)
    target = tmp_path / "written.nii.gz"
    write_volume(TrustingAffine(read_any_image)(path), target)
    truth, found = read_nifti(path), read_nifti(target)
    check(found, truth.values, truth.spacing, truth.direction)


SPACES = {"left-posterior-superior": (1, 1, 1), "LPS": (1, 1, 1), "right-anterior-superior":
          (-1, -1, 1), "RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1)}  # fmt: skip


@seeded(120)
@given(
    space=st.sampled_from(sorted(SPACES)),
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
    steps=STEPS,
    source=st.sampled_from(["directions", "directions", "spacings", "nothing", "nan", "mins"]),
    unit=st.sampled_from(["", "mm", "um", "m", "cm"]),
    encoding=st.sampled_from(["raw", "gzip"]),
    extra=st.sampled_from([[], ["kinds: domain domain domain"], ["units:=m", "x y:=spacings: 9"]]),
)
def test_nrrd(tmp_path, space, order, signs, steps, source, unit, encoding, extra):
    axes = np.zeros((3, 3))
    for axis, (row, sign) in enumerate(zip(order, signs, strict=True)):
        axes[row, axis] = sign
    vectors = " ".join(str(tuple(float(v) for v in axes[:, i] * steps[i])) for i in range(3))
    lines = {
        "directions": [f"space: {space}", f"space directions: {vectors}"],
        "spacings": ["spacings: " + " ".join(map(str, steps))],
        "nothing": [],
        "nan": [f"spacings: {steps[0]} nan {steps[2]}"],
        "mins": ["axis mins: 0 0 0", f"axis maxs: {steps[0]} {steps[1]} {steps[2]}"],
    }[source]
    declared = " ".join([f'"{unit}"'] * 3)
    if unit:
        field = "space units" if source == "directions" else "units"
        lines = [*lines, f"{field}: {declared}"]
    path = tmp_path / "x.nrrd"
    rows_text_headers.write_nrrd(path, values(np.int16), [*lines, *extra], encoding=encoding)
    allowed = ["space units"] if unit not in ("", "mm") else []
    allowed += ["gives no voxel size"] if source in ("nothing", "nan", "mins") else []
    found = converted(path, allowed)
    if found is not None:
        turned = np.array(SPACES[space])[:, None] * axes if source == "directions" else None
        check(found, values(np.int16), steps, turned)


PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="))
LATIN = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]))


@seeded(120)
@given(
    copied=st.lists(st.tuples(PRINTABLE.filter(bool), LATIN), max_size=5),
    steps=STEPS,
    name=st.sampled_from(["ElementSpacing", "ElementSpacing", "ElementSize", None]),
    unit=st.sampled_from([None, None, "mm", "um"]),
    compressed=st.booleans(),
    big=st.booleans(),
)
def test_meta(tmp_path, copied, steps, name, unit, compressed, big):
    lines = [] if name is None else [f"{name} = {' '.join(map(str, steps))}"]
    lines += [] if unit is None else [f"DistanceUnits = {unit}"]
    lines += [f"copied_{key} = {value}" for key, value in copied]
    path = tmp_path / "x.mha"
    rows_text_headers.write_meta(path, values(np.int16), lines, compressed=compressed, big=big)
    allowed = ["gives no voxel size"] if name is None else []
    allowed += ["DistanceUnits"] if unit == "um" else []
    found = converted(path, allowed)
    if found is not None:
        check(found, values(np.int16), steps)


@seeded(100)
@given(
    photometric=st.sampled_from(["minisblack", "miniswhite", "palette"]),
    orientation=st.sampled_from([0, 0, 1, 1, 3, 6, 8]),
    palette=st.sampled_from([rows_pictures.GREYS, rows_pictures.REVERSED, rows_pictures.REDS]),
    dtype=st.sampled_from([bool, np.uint8, np.uint16]),
)
def test_tif(tmp_path, photometric, orientation, palette, dtype):
    path = tmp_path / "x.tif"
    stored = values(np.uint8, (9, 11)) > 50 if dtype is bool else values(dtype, (9, 11))
    options = {"photometric": photometric}
    shown = stored
    if photometric == "palette":
        stored = values(np.uint8, (9, 11))
        options, shown = {"palette": palette}, palette[stored]
        shown = shown[..., 0] if (shown == shown[..., :1]).all() else shown
    elif photometric == "miniswhite":
        shown = ~stored if stored.dtype == bool else np.iinfo(stored.dtype).max - stored
    rows_pictures.write_tif(path, stored, orientation=orientation, **options)
    if orientation > 1:
        with pytest.raises(UnusableFileError, match="stored rotated"):
            read_any_image(path)
        return
    np.testing.assert_array_equal(read_any_image(path).array, shown)
    if shown.shape == stored.shape and (shown == stored).all():
        np.testing.assert_array_equal(read_as_nnunet(path).array, stored)
    else:
        with pytest.raises(UnusableFileError):
            read_as_nnunet(path)


@seeded(60)
@given(
    bits=st.sampled_from([1, 2, 4, 8, 16]),
    colours=st.booleans(),
    orientation=st.sampled_from([0, 1, 3, 6]),
)
def test_png(tmp_path, bits, colours, orientation):
    path = tmp_path / "x.png"
    colours = colours and bits >= 8
    rng = np.random.default_rng(bits)
    stored = rng.integers(0, 1 << bits, (9, 11, 3) if colours else (9, 11))
    rows_pictures.write_png(path, stored.astype(np.uint16), bits, orientation=orientation)
    if orientation > 1 or (colours and bits == 16):
        with pytest.raises(UnusableFileError, match=r"stored rotated|16 bits a colour"):
            read_any_image(path)
        return
    spread = {2: 85, 4: 17}.get(bits, 1)
    np.testing.assert_array_equal(read_any_image(path).array, stored * spread)
