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


def torchrun(*machines: str) -> list[str]:
    """Return the arguments of torchrun up to those of the training."""
    meeting = ["--master_addr", "localhost", "--master_port", str(find_free_network_port())]
    return [*machines, *meeting, "-m", "nnunet_semisup.cli.train", *train_arguments(TRAINER)]


def test_machines_stop_together_and_one_goes_on(workspace: Workspace, tmp_path: Path) -> None:
    """SIGTERM to one of two; then both processes on one machine, to the end and validated."""
    here = workspace.where(
        **hyperparameters(num_epochs=1, num_iterations_per_epoch=10_000),
        nnUNet_results=tmp_path / "results",
    )
    arguments = torchrun("--nnodes", "2", "--nproc_per_node", "1")
    with ExitStack() as stack:
        agents: list[Running] = [
            stack.enter_context(
                here.start(
                    "torchrun", "--node_rank", str(rank), *arguments, log=tmp_path / f"{rank}.log"
                )
            )
            for rank in range(2)
        ]
        for agent in agents:
            agent.wait_for("Current learning rate")
        agents[1].process.send_signal(signal.SIGTERM)
        assert [agent.wait() for agent in agents] == [1, 1], "as torchrun says it"
    assert "Stopped and saved" in agents[0].output
    folder = here.fold_folder(TRAINER)
    saved = torch.load(folder / "checkpoint_latest.pth", weights_only=False)
    steps = saved["nnunet_semisup"]["iteration"]
    assert saved["current_epoch"] == 0

    here = here.where(**hyperparameters(num_epochs=1, num_iterations_per_epoch=steps + 2))
    alone = torchrun("--nproc_per_node", "2")
    done = here.call(SCRIPTS / "torchrun", *alone, "--c").succeeded()
    assert f"num_iterations_per_epoch was 10000 and is now {steps + 2}" in done.output
    assert (folder / "checkpoint_final.pth").exists()
    assert not (folder / "checkpoint_latest.pth").exists()
    assert (folder / "validation" / "summary.json").exists()
    assert len(list(folder.glob("checkpoint_*.pth"))) == 2
