"""Compare methods on the left atrium: few labels, stock commands, equal numbers of steps.

    python benchmarks/la2018.py run   --raw RAW --work DIR --labeled 4 8 --rows all --seeds 0
    python benchmarks/la2018.py table --work DIR

RAW holds ``Training Set/<case>/{lgemri,laendo}.nrrd`` and ``splits.json`` with the keys labeled,
unlabeled and validation. ``run`` converts, plans at 1.875 mm with 16-32-64-128 features,
preprocesses and trains; it can be stopped and started again. ``--spacing 2.5`` with
``--features 8 16 32 64`` is a fifth of the work. ``table`` prints what is finished.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from nnunet_semisup.evaluation.evaluate import evaluate_folders
from nnunet_semisup.evaluation.report import report_dict
from nnunet_semisup.evaluation.tables import format_table
from nnunet_semisup.training.interruption import Interruption

STEPS_PER_EPOCH = 100


@dataclass(frozen=True)
class Row:
    """Describe a line of the table: a trainer, what it overrides, how many processes make patches.

    With 0 the training process makes them itself. nnU-Net takes 12 by default, and never more than
    there are cores.
    """

    title: str
    trainer: str
    settings: str = ""
    workers: int = 0


ROWS = {
    "supervised": Row("nnUNetTrainer (labeled only)", "nnUNetTrainerSupervised"),
    "supervised_stock_loader": Row(
        "nnUNetTrainer (labeled only), nnU-Net's loader",
        "nnUNetTrainerSupervised",
        "stock_loader=True",
        workers=12,
    ),
    "nsda": Row("nnUNetTrainerNSDA (labeled only)", "nnUNetTrainerNSDA"),
    "home": Row("nnUNetTrainerHoME (labeled only)", "nnUNetTrainerHoME"),
    "arco": Row("nnUNetTrainerARCO", "nnUNetTrainerARCO"),
    "mean_teacher": Row("nnUNetTrainerMeanTeacher", "nnUNetTrainerMeanTeacher"),
    "uamt": Row("nnUNetTrainerUAMT", "nnUNetTrainerUAMT"),
    "cps": Row("nnUNetTrainerCPS", "nnUNetTrainerCPS"),
    "mcnet": Row("nnUNetTrainerMCNet", "nnUNetTrainerMCNet"),
    "mcnet_light": Row("MC-Net, weight 0.1", "nnUNetTrainerMCNet", "unlabeled_weight=0.1"),
    "mcnet_labels": Row("MC-Net, labels alone", "nnUNetTrainerMCNet", "unlabeled_weight=0.0"),
    "mcnet_plus": Row("nnUNetTrainerMCNetPlus", "nnUNetTrainerMCNetPlus"),
    "bcp": Row("nnUNetTrainerBCP", "nnUNetTrainerBCP", "largest_component=True"),
    "pseudo_label": Row("nnUNetTrainerPseudoLabel", "nnUNetTrainerPseudoLabel"),
    "fixmatch": Row("nnUNetTrainerFixMatch", "nnUNetTrainerFixMatch"),
    "unimatch": Row("nnUNetTrainerUniMatch", "nnUNetTrainerUniMatch"),
    "dtc": Row("nnUNetTrainerDTC", "nnUNetTrainerDTC"),
    "ssnet": Row("nnUNetTrainerSSNet", "nnUNetTrainerSSNet"),
    "urpc": Row("nnUNetTrainerURPC", "nnUNetTrainerURPC"),
    "mcf": Row("nnUNetTrainerMCF", "nnUNetTrainerMCF"),
    "bsnet": Row("nnUNetTrainerBSNet", "nnUNetTrainerBSNet"),
    "mlrp": Row("nnUNetTrainerMLRP", "nnUNetTrainerMLRP"),
    "abd": Row("nnUNetTrainerABD", "nnUNetTrainerABD"),
    "vclipseg": Row("nnUNetTrainerVCLIPSeg", "nnUNetTrainerVCLIPSeg", "text_model=features"),
    "vqseg": Row("nnUNetTrainerVQSeg", "nnUNetTrainerVQSeg"),
    "vqseg_weak": Row("VQ-Seg, swaps on the weak view", "nnUNetTrainerVQSeg", "qpm_view=weak"),
    "vqseg_no_swaps": Row("VQ-Seg without perturbation", "nnUNetTrainerVQSeg", "qpm_epsilon=0.0"),
    "vqseg_paper": Row("VQ-Seg, the paper's distances", "nnUNetTrainerVQSeg", "qpm_mode=paper"),
    "vqseg_unfitted": Row("VQ-Seg, codes not fitted", "nnUNetTrainerVQSeg", "codebook_fit=False"),
    "vqseg_uniform": Row("VQ-Seg, uniform perturbation", "nnUNetTrainerVQSeg", "qpm_mode=uniform"),
    "vqseg_no_rec": Row(
        "VQ-Seg without reconstruction", "nnUNetTrainerVQSeg", "reconstruction_weight=0.0"
    ),
    "two_decoders": Row(
        "Text-SemiSeg: cross supervision only",
        "nnUNetTrainerTextSemiSeg",
        "text_model=none,mix_weight=0.0",
    ),
    "two_decoders_mixing": Row(
        "+ exchanged foregrounds (DCA)", "nnUNetTrainerTextSemiSeg", "text_model=none"
    ),
    "textsemiseg": Row(
        "+ text (TMR, CSA), features file", "nnUNetTrainerTextSemiSeg", "text_model=features"
    ),
    "textsemiseg_random": Row(
        "+ random vectors as text", "nnUNetTrainerTextSemiSeg", "text_model=random"
    ),
    "mean_teacher_text": Row(
        "Mean Teacher + text, features file",
        "nnUNetTrainerMeanTeacherText",
        "text_model=features",
    ),
    "uamt_text": Row("UA-MT + text, features file", "nnUNetTrainerUAMTText", "text_model=features"),
    "dtc_text": Row("DTC + text, features file", "nnUNetTrainerDTCText", "text_model=features"),
}


@dataclass(frozen=True)
class Run:
    """Name one training by row, labels, seed, steps and precision, and know its folders."""

    work: Path
    row: str
    labeled: int
    seed: int
    steps: int
    bfloat16: bool
    channels_last: bool = False

    @property
    def dataset(self) -> int:
        return 500 + self.labeled

    @property
    def results(self) -> Path:
        precision = "bf16" if self.bfloat16 else "fp32"
        name = f"{self.row}_labels{self.labeled}_seed{self.seed}_steps{self.steps}_{precision}"
        return self.work / "results" / name

    @property
    def fold(self) -> Path:
        found = sorted(self.results.glob("Dataset*/*/fold_0"))
        return found[0] if found else self.results / "none"

    @property
    def finished(self) -> bool:
        return (self.fold / "validation" / "summary.json").is_file()

    def settings(self, threads: int) -> str:
        epochs = self.steps // STEPS_PER_EPOCH
        parts = [
            f"num_epochs={epochs}",
            f"num_iterations_per_epoch={STEPS_PER_EPOCH}",
            "num_val_iterations_per_epoch=4",
            "save_every=2",
            f"seed={self.seed}",
            f"cpu_bfloat16={self.bfloat16}",
            f"channels_last={self.channels_last}",
            f"cpu_threads={threads}",
            ROWS[self.row].settings,
        ]
        return ",".join(part for part in parts if part)


def environment(work: Path) -> dict[str, str]:
    """Return nnU-Net's variables."""
    return {
        **os.environ,
        "nnUNet_raw": str(work / "raw"),
        "nnUNet_preprocessed": str(work / "preprocessed"),
        "nnUNet_results": str(work / "results"),
        "nnUNet_def_n_proc": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }


def prepare(raw: Path, work: Path, labeled: int, spacing: float, features: list[int]) -> None:
    """Convert, plan and preprocess, skipping what is done."""
    dataset = 500 + labeled
    env = environment(work)
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
    marker = work / f"prepared_{labeled}"
    if marker.is_file():
        return
    if not list((work / "raw").glob(f"Dataset{dataset}_*/dataset.json")):
        call(
            [
                "nnUNetv2_semisup_convert",
                "la",
                str(raw),
                "-d",
                str(dataset),
                "--name",
                f"LA{labeled}",
            ]
            + ["--labeled", str(labeled), "--split", str(raw / "splits.json"), "--allow-partial"],
            env,
        )
    call(
        ["nnUNetv2_plan_and_preprocess", "-d", str(dataset), "-c", "3d_fullres", "--no_pp"]
        + ["-npfp", "2", "-overwrite_target_spacing", *[str(spacing)] * 3],
        env,
    )
    plans_file = next((work / "preprocessed").glob(f"Dataset{dataset}_*")) / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    architecture = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    architecture["features_per_stage"] = features[: architecture["n_stages"]]
    plans_file.write_text(json.dumps(plans, indent=2))
    call(["nnUNetv2_preprocess", "-d", str(dataset), "-c", "3d_fullres", "-np", "2"], env)
    call(["nnUNetv2_semisup_preprocess", "-d", str(dataset), "-c", "3d_fullres", "-np", "2"], env)
    marker.touch()


def call(command: list[str], env: dict[str, str]) -> None:
    """Run a command, printing it first; fail if it fails."""
    print("$", " ".join(command), flush=True)
    subprocess.run(command, env=env, check=True)


def train(run: Run, threads: int, interruption: Interruption) -> None:
    """Train one row with the stock command, continuing where it was stopped."""
    if run.finished or interruption.signal_number is not None:
        return
    run.results.mkdir(parents=True, exist_ok=True)
    env = environment(run.work)
    env["nnUNet_results"] = str(run.results)
    env["nnUNet_semisup_set"] = run.settings(threads)
    env["nnUNet_n_proc_DA"] = str(ROWS[run.row].workers)
    command = ["nnUNetv2_train", str(run.dataset), "3d_fullres", "0", "-device", "cpu"]
    command += ["-tr", ROWS[run.row].trainer]
    if list(run.results.glob("Dataset*/*/fold_0/checkpoint_*.pth")):
        command.append("--c")
    started = time.time()
    with open(run.results / "log.txt", "a", encoding="utf-8") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None and interruption.signal_number is None:
            time.sleep(1)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        code = process.wait()
    print(f"{run.results.name}: code {code}, {time.time() - started:.0f} s", flush=True)


def seconds_per_step(run: Run) -> float:
    """Return the median epoch time over the steps of an epoch, from nnU-Net's log."""
    times: list[float] = []
    for log in run.fold.glob("training_log_*.txt"):
        times += [
            float(t) for t in re.findall(r"Epoch time: ([\d.]+) s", log.read_text(encoding="utf-8"))
        ]
    times.sort()
    return times[len(times) // 2] / STEPS_PER_EPOCH if times else float("nan")


def table_row(run: Run) -> list[str]:
    """Return Dice, Jaccard, HD95, ASD, worst Dice and seconds a step of one finished run."""
    dataset = next((run.work / "preprocessed").glob(f"Dataset{run.dataset}_*"))
    evaluation = evaluate_folders(
        dataset / "gt_segmentations",
        run.fold / "validation",
        dataset_json=dataset / "dataset.json",
        allow_missing=True,
    )
    (run.results / "evaluation.json").write_text(json.dumps(report_dict(evaluation), default=str))
    name = evaluation.classes[0].name
    values = {
        m: [case.classes[name].values[m] for case in evaluation.cases]
        for m in ("Dice", "Jaccard", "HD95", "ASD")
    }
    means = {m: sum(v) / len(v) for m, v in values.items()}
    return [
        ROWS[run.row].title,
        str(run.labeled),
        str(run.seed),
        str(run.steps),
        "bf16" if run.bfloat16 else "fp32",
        f"{means['Dice']:.4f}",
        f"{means['Jaccard']:.4f}",
        f"{means['HD95']:.2f}",
        f"{means['ASD']:.2f}",
        f"{min(values['Dice']):.3f}",
        f"{seconds_per_step(run):.2f}",
    ]


HEADER = ["row", "labels", "seed", "steps", "precision", "Dice", "Jaccard", "HD95 mm", "ASD mm"]
HEADER += ["worst Dice", "s/step"]


def print_table(work: Path, markdown: bool) -> None:
    """Print every finished run, ordered by labels, steps and row."""
    pattern = re.compile(r"(\w+)_labels(\d+)_seed(\d+)_steps(\d+)_(bf16|fp32)$")
    runs = []
    for folder in (work / "results").glob("*_labels*"):
        match = pattern.match(folder.name)
        if match and match[1] in ROWS:
            row, labeled, seed, steps, precision = match.groups()
            run = Run(work, row, int(labeled), int(seed), int(steps), precision == "bf16")
            if run.finished:
                runs.append(run)
    order = list(ROWS)
    runs.sort(key=lambda r: (r.labeled, r.bfloat16, r.steps, order.index(r.row), r.seed))
    print(format_table(HEADER, [table_row(run) for run in runs], markdown=markdown))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("--raw", type=Path, required=True)
    run.add_argument("--labeled", type=int, nargs="+", default=[4])
    run.add_argument("--rows", nargs="+", default=["all"], choices=["all", *ROWS])
    run.add_argument("--seeds", type=int, nargs="+", default=[0])
    run.add_argument("--steps", type=int, default=2000, help="a multiple of 100")
    run.add_argument("--spacing", type=float, default=1.875, help="mm; one a working folder")
    run.add_argument("--features", type=int, nargs="+", default=[16, 32, 64, 128])
    run.add_argument("--lanes", type=int, default=1, help="trainings at a time")
    run.add_argument("--threads", type=int, default=os.cpu_count(), help="of each training")
    run.add_argument("--bfloat16", action="store_true", help="mixed precision on the CPU, all rows")
    run.add_argument("--channels-last", action="store_true", help="another order in memory")
    table = commands.add_parser("table")
    table.add_argument("--markdown", action="store_true")
    for command in (run, table):
        command.add_argument("--work", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    """Run or print the comparison."""
    args = arguments()
    if args.command == "table":
        print_table(args.work, args.markdown)
        return
    rows = list(ROWS) if "all" in args.rows else args.rows
    for labeled in args.labeled:
        prepare(args.raw, args.work, labeled, args.spacing, args.features)
    runs = [
        Run(args.work, row, labeled, seed, args.steps, args.bfloat16, args.channels_last)
        for labeled in args.labeled
        for seed in args.seeds
        for row in rows
    ]
    with Interruption() as interruption, ThreadPoolExecutor(args.lanes) as pool:
        list(pool.map(lambda run: train(run, args.threads, interruption), runs))
    print_table(args.work, False)


if __name__ == "__main__":
    main()
