"""Shorthands of the tests of preprocessing and its restart."""

import json

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semisup.preparation.fold_cases import check_preprocessed
from nnunet_semisup.preparation.preprocessing import preprocess_unlabeled

IDS = ["unl_000", "unl_001", "unl_002"]


def run(configurations=("3d_fullres",), **options):
    return preprocess_unlabeled(
        501, configurations, num_processes=[0], show_progress=False, **options
    )


def plans_of(planned):
    return PlansManager(str(planned.preprocessed / "nnUNetPlans.json"))


def folder_of(planned, configuration="3d_fullres"):
    return planned.preprocessed / f"nnUNetPlans_{configuration}_unlabeled"


def stamp_of(planned, configuration="3d_fullres"):
    return planned.preprocessed / f"nnUNetPlans_{configuration}_unlabeled.json"


def check(planned, configuration="3d_fullres"):
    return check_preprocessed(planned.preprocessed, plans_of(planned), configuration)


def change_plans(planned, change):
    path = planned.preprocessed / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    change(plans)
    path.write_text(json.dumps(plans))


def other_spacing(plans):
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 2.0, 2.0]
