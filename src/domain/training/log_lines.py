"""The lines of ``info.log`` in the form of MindFormers' loss monitor, which people's scripts parse."""

from __future__ import annotations

from datetime import timedelta

from glm3.domain.training.run_events import RunStarted, StepDone

__all__ = ["step_lines"]

_BAR = 50


def step_lines(run: RunStarted, done: StepDone, *, sink: bool) -> tuple[str, str]:
    """Return the two lines of one step: its numbers, then how far the run is.

    Without ``sink`` the loss is printed with its mean over the epoch so far.
    """
    report = done.report
    loss = f"loss: {report.loss:5.3f}" if sink else f"loss:[{report.loss:5.3f}/{done.mean_loss:5.3f}]"
    numbers = (
        f"{{ Epoch:[{done.epoch:3d}/{run.epochs:3d}], step:[{done.epoch_step:5d}/{run.steps_per_epoch:5d}], "
        f"{loss}, per_step_time: {round(done.seconds * 1000)}ms, lr: {report.learning_rate:.7g}, "
        f"overflow cond: {report.overflow}, loss_scale: {float(report.loss_scale)}"
    )
    share = done.step / run.total_steps
    bar = "█" * int(_BAR * share)
    remaining = timedelta(seconds=int(done.remaining))
    progress = f"  {100 * share:4.1f}% |{bar:<{_BAR}}| {done.rows_per_second:.5f} samples/s/p  {remaining} }}"
    return numbers, progress
