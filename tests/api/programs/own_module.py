"""A LightningModule with its own data, which resumes from its own checkpoint."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redline

sys.path.insert(0, str(Path(__file__).parent))
import gate

STEPS, CHECKPOINT = 60, "mine.ckpt"


@dataclass(frozen=True)
class OwnModule(redline.Trainable):
    width: int = 8
    preload = ("lightning",)

    @property
    def max_steps(self) -> int:
        return STEPS

    def check(self) -> None:
        if self.width < 1:
            raise redline.UserError(f"width={self.width}: allowed: 1 or more")

    def settings(self) -> dict[str, Any]:
        return {"width": self.width, "steps": STEPS}

    def facts(self) -> redline.Facts:
        return redline.Facts(max_steps=STEPS, parameters=2 * self.width + 1)

    def run(self, trial: redline.Trial) -> redline.Score:
        import lightning as L
        import torch
        from torch import nn
        from torch.utils.data import DataLoader

        torch.set_num_threads(1)
        width = self.width
        L.seed_everything(trial.seed, verbose=False)
        x_TB = torch.linspace(-3, 3, 16 * STEPS).reshape(16, STEPS).T
        # Lightning resumes within an epoch, but its data begin anew: a step's data hang on its number.
        steps = DataLoader(range(STEPS))  # type: ignore[arg-type]

        def error(net, x):
            return (net(x[:, None]).squeeze() - x.sin()).square().mean()

        class Module(L.LightningModule):
            def __init__(self, width):
                super().__init__()
                self.net = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1, bias=False))

            # No annotations here: cloudpickle does not see what a class inside a function names.
            def training_step(self, batch, index):
                loss = error(self.net, x_TB[self.global_step])
                if trial.report(self.global_step, loss.item()):
                    self.trainer.should_stop = True
                return loss

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), lr=trial.value)

        class KeepThenWait(L.Callback):
            def on_train_batch_end(self, trainer, module, *rest):
                if trainer.global_step == STEPS // 10:  # before any diverges
                    trainer.save_checkpoint(trial.directory / CHECKPOINT)
                    gate.pass_or_wait(trial.directory)

        trainer = L.Trainer(
            max_epochs=-1,
            max_steps=STEPS,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            callbacks=[KeepThenWait()],
        )
        module, checkpoint = Module(width), trial.directory / CHECKPOINT
        print(f"resumed: {checkpoint.exists()}")
        if checkpoint.exists():
            gate.pass_or_wait(trial.directory)
        trainer.fit(module, steps, ckpt_path=str(checkpoint) if checkpoint.exists() else None)
        gate.ended()
        with torch.no_grad():
            loss = error(module.net, x_TB.flatten()).item()
        return redline.Score(loss if math.isfinite(loss) else math.inf, steps=trainer.global_step)


if __name__ == "__main__":
    found = redline.find_edge(
        OwnModule(),
        values=[0.01, 0.1, 1, 10, 100, 1000],
        name="module",
        seeds=2,
        workers=2,
        report_timeout=None,
    )
    print(f"edge {found.variants['module'].max_useful_rung}")
