"""``nnUNetv2_semisup_train`` under the real torchrun; each agent stands for a machine."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

import torch
from nnunetv2.run.run_training import find_free_network_port

from tests.integration.workspace import (
    SCRIPTS,
    Running,
    Workspace,
    hyperparameters,
    train_arguments,
)

TRAINER = "nnUNetTrainerMeanTeacher"


def torchrun(machines: int, processes: int) -> list[str]:
    """Return the arguments of torchrun on each machine, and of the training."""
    meeting = ["--rdzv_backend", "c10d", "--rdzv_id", "7"]
    meeting += ["--rdzv_endpoint", f"localhost:{find_free_network_port()}"]
    shared = ["--nnodes", str(machines), "--nproc_per_node", str(processes), *meeting]
    return [*shared, "-m", "nnunet_semisup.cli.train", *train_arguments(TRAINER)]


def test_machines_stop_together_and_one_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    """SIGTERM to one of two; then both processes on one machine, to the end and validated."""
    here = workspace.where(
        **hyperparameters(num_epochs=1, num_iterations_per_epoch=10_000),
        nnUNet_results=tmp_path / "results",
    )
    arguments = torchrun(machines=2, processes=1)
    with ExitStack() as stack:
        agents: list[Running] = [
            stack.enter_context(here.start("torchrun", *arguments, log=tmp_path / f"{n}.log"))
            for n in range(2)
        ]
        for agent in agents:
            agent.wait_for("Current learning rate")
        agents[1].process.send_signal(signal.SIGTERM)
        assert [agent.wait() for agent in agents] == [1, 1], "as torchrun says it"
    assert sum("Stopped and saved" in agent.output for agent in agents) == 1
    folder = here.fold_folder(TRAINER)
    saved = torch.load(folder / "checkpoint_latest.pth", weights_only=False)
    steps = saved["nnunet_semisup"]["iteration"]
    assert saved["current_epoch"] == 0

    here = here.where(**hyperparameters(num_epochs=1, num_iterations_per_epoch=steps + 2))
    done = here.call(SCRIPTS / "torchrun", *torchrun(1, 2), "--c").succeeded()
    assert f"num_iterations_per_epoch was 10000 and is now {steps + 2}" in done.output
    assert (folder / "checkpoint_final.pth").exists()
    assert not (folder / "checkpoint_latest.pth").exists()
    assert (folder / "validation" / "summary.json").exists()
    assert len(list(folder.glob("checkpoint_*.pth"))) == 2
