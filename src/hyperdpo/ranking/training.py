"""The training loop: one ranker, on one process or many, resumable to the same weights.

What is trained is decided by three arguments: the ranker (conditioned on w or not), the labels and base scores of the
examples, and the :class:`WeightSampler`. The base ranker, HyperDPO and a model for one fixed w all go through here.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hyperdpo.core.losses import average_counts, hypernet_loss, sum_over_processes
from hyperdpo.core.preferences import stream, weight_grid
from hyperdpo.data.batching import GroupBatch, shuffled_batches
from hyperdpo.errors import InputError
from hyperdpo.files import check_space, read_tensors, with_prefix, without_prefix, write_tensors
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.config import TrainingConfig
from hyperdpo.ranking.draws import Draw, Sampler
from hyperdpo.ranking.evaluation import Front, ReduceArray, evaluate_front, ranker_scores
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.metrics import NdcgSettings
from hyperdpo.ranking.parametrizations import Ranker

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Random streams of a training, beside those of :mod:`hyperdpo.ranking.draws`.
ORDER, VALIDATION = 1, 3
#: Weightings at which the candidates of a ranker are compared.
CHOICE_POINTS = 11


@dataclass
class History:
    """What happened in a training: one entry per evaluation."""

    epochs: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Mean training loss of the last epoch; a mixture's includes the distillation loss, so it is no sum of objectives'
    losses."""
    validation: list[float | None] = field(default_factory=list)
    """What the choice goes by, such as the hypervolume of the validation front; None without a validation split."""
    main: list[float | None] = field(default_factory=list)
    """Mean main metric over the validation front."""
    chosen: dict[str, float] = field(default_factory=dict)
    """Which of the ranker's candidates it answers with."""
    best: int = -1
    """Position of the chosen evaluation; -1 before the first."""
    seconds: float = 0.0
    """Time spent, over all sessions of a resumed run."""
    items: int = 0
    """Items trained on, repeats counted."""


@dataclass(frozen=True)
class Training:
    """One job for :func:`train`.

    Attributes:
        name: for the progress bar and the checkpoint.
        ranker: trained in place; ends with the chosen weights.
        train, validation: examples with base scores; without validation the last epoch is chosen. Validation may have
            other labels than training (and then other weights and temperatures).
        sampler: the weights of each batch.
        betas: temperatures, one per label of ``train``.
        grid: (P, m) weights of the validation front; None: a few spread over the simplex.
        choice: the number, to be maximised, that chooses the epoch, from the validation front.
        validation_betas: temperatures of the validation front, one row or several (whose numbers are averaged);
            None: ``betas``.
        seed: of order; the sampler has its own.
        checkpoint: file to resume from and to write to.
        fingerprint: what must agree for a checkpoint to be used.
        first_step: added to the epochs that trackers are told: they take rising numbers only.
        begin: called with the checkpoint's path before the first epoch, for parts of the ranker that are not trained by
            epochs; returns the seconds that they took.
        settle: called with the chosen weights in place, before candidates are compared; returns what it chose.
    """

    name: str
    ranker: Ranker
    train: Examples
    validation: Examples | None
    sampler: Sampler
    betas: tuple[float, ...]
    config: TrainingConfig
    metric: NdcgSettings
    seed: int
    grid: np.ndarray | None = None
    choice: Callable[[Front], float] = attrgetter("hypervolume")
    validation_betas: tuple[tuple[float, ...], ...] | None = None
    checkpoint: Path | None = None
    fingerprint: str = ""
    first_step: int = 0
    begin: Callable[[Path | None], float] | None = None
    settle: Callable[[torch.device], Mapping[str, float]] | None = None


def make_accelerator(
    precision: str = "auto", *, cpu: bool = False, log_with: list[str] | None = None, log_dir: Path | None = None
) -> Accelerator:
    """One accelerator for a whole run; what ``accelerate launch`` set up is taken from the environment.

    CUDA or CPU: metrics are summed in float64, which other devices may not have.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    cpu = cpu or not torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if not cpu and torch.cuda.is_bf16_supported() else "no"
    if AcceleratorState._shared_state and PartialState().num_processes == 1:
        # An earlier fit in this process may have had another precision or device, which accelerate would keep.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=precision, cpu=cpu, log_with=log_with, project_dir=log_dir)


def quality(front: Front) -> float:
    """What epochs and settings of a conditioned ranker are chosen by: the hypervolume, with the main metric where that
    is known."""
    with_main = front.hypervolume_with_main
    return front.hypervolume if with_main is None else with_main


def train(job: Training, accelerator: Accelerator) -> History:
    """Train ``job.ranker``, choose the weights with the best validation front, and report.

    Of a ranker with candidates, the one with the best validation front is taken then.

    A killed training resumes from its last checkpoint and ends at the same weights: order and sampled weights depend
    on (seed, epoch, step) alone, and the checkpoint holds the rest.

    Raises:
        InputError: the loss is not finite, or the checkpoint belongs to another run.
    """
    before = 0.0 if job.begin is None else job.begin(job.checkpoint)
    loop = _Loop(job, accelerator)
    if job.checkpoint is not None:  # current and best weights, and two moments
        check_space(job.checkpoint, 4 * sum(one.nbytes for one in loop.best.values()), "a checkpoint")
    if loop.optimizer is None:
        loop.evaluate(0.0)
    else:
        loop.resume()
        loop.run()
    loop.history.seconds += before
    job.ranker.load_state_dict(loop.best)
    if job.settle is not None:
        loop.history.chosen |= job.settle(accelerator.device)
    loop.choose()
    return loop.history


class _Loop:
    """The state of a training between epochs, and the steps that change it."""

    def __init__(self, job: Training, accelerator: Accelerator):
        config, self.job, self.accelerator = job.config, job, accelerator
        self.history = History()
        self.epoch = 0
        self.best = _state(job.ranker)
        self.device = accelerator.device
        self.model: Any = job.ranker
        self.optimizer: Any = None  # of a ranker without a network
        if parameters := list(job.ranker.parameters()):
            rate, decay = config.learning_rate, config.weight_decay
            optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=decay, fused=True)
            self.model, self.optimizer = accelerator.prepare(job.ranker, optimizer)
        self.reduce = sum_over_processes if accelerator.num_processes > 1 else None
        self.budget = min(
            config.batch_items, max(job.train.num_items // config.min_batches, int(job.train.sizes.max()))
        )
        # The vertices and at least two points inside, so that the choice does not rest on single objectives alone.
        few = weight_grid(len(job.betas), max(config.validation_points, len(job.betas) + 2))
        self.grid = few if job.grid is None else job.grid
        self.counts: torch.Tensor | None = None
        # Epochs after which the validation front is measured: spread evenly, the last one always.
        count = min(config.evaluations, config.epochs)
        self.evaluate_after = {round(config.epochs * (i + 1) / count) for i in range(count)}
        items = max(config.validation_items, job.train.num_items // 10)
        self.measured = None if job.validation is None else _some_groups(job.validation, items, job.seed)
        self.saved_at = time.monotonic()

    def run(self) -> None:
        config, started = self.job.config, time.monotonic()
        spent_before = self.history.seconds
        main_process = self.accelerator.is_main_process
        total = config.epochs * self.job.train.num_items
        with progress_bar(self.job.name, total, "items", show=main_process) as update:
            update(self.epoch * self.job.train.num_items, "")
            while self.epoch < config.epochs and not self._out_of_patience():
                self.epoch += 1
                loss = self._train_epoch(
                    lambda share: update((self.epoch - 1 + share) * self.job.train.num_items, self._words())
                )
                self.history.seconds = spent_before + time.monotonic() - started
                log = {f"{self.job.name}/loss": loss}
                if self.epoch in self.evaluate_after:
                    log |= self.evaluate(loss)
                self.history.seconds = spent_before + time.monotonic() - started
                self.accelerator.log(log, step=self.job.first_step + self.epoch)
                if time.monotonic() - self.saved_at >= config.checkpoint_seconds:
                    self.save()
        self.save()

    def _words(self) -> str:
        best = self.history.validation[self.history.best] if self.history.best >= 0 else None
        return "" if best is None else f"validation {best:.4f}"

    def _out_of_patience(self) -> bool:
        patience, done = self.job.config.patience, len(self.history.validation)
        return bool(patience and self.job.validation and done and done - 1 - self.history.best >= patience)

    def _train_epoch(self, update: Callable[[float], None]) -> float:
        """One pass over the groups; the mean loss."""
        job, config = self.job, self.job.config
        batches = shuffled_batches(job.train.sizes, self.budget, stream(job.seed, ORDER, self.epoch))
        # Batches hold groups of similar size, so many small ones or a few large ones: divided by its own number of
        # groups, a large group would weigh several times as much as a small one.
        self.counts = average_counts(torch.as_tensor(job.train.signal), len(batches)).to(self.device)
        self.model.train()
        losses = []
        for step, group_batch in enumerate(batches):
            rate = learning_rate(config, self.epoch - 1 + step / len(batches))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            losses.append(self._step(step, group_batch))
            if step % 8 == 7:
                update((step + 1) / len(batches))
        self.history.items += job.train.num_items
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            raise InputError(
                f"{job.name}: the loss became {mean} in epoch {self.epoch}; expected a finite number "
                f"(a lower learning_rate than {config.learning_rate:g} may help, or check the base scores' range)"
            )
        return mean

    def _step(self, step: int, group_batch: GroupBatch) -> torch.Tensor:
        job = self.job
        share, draw, idle = share_of_process(
            group_batch, job.sampler(self.epoch, step, len(group_batch.groups)), self.accelerator
        )
        batch = job.train.batch(share, self.device)
        w, betas = _on_device(draw.weights, self.device), job.betas
        conditions, temperatures = w, None
        if w.dim() == 1:
            conditions = w.expand(len(share.groups), -1)
        if draw.temperatures is not None:
            temperatures = _on_device(draw.temperatures, self.device).expand(conditions.shape)
        with self.accelerator.autocast():
            output = self.model(batch, conditions, temperatures)
        losses = job.ranker.losses(output.float(), batch, betas if temperatures is None else temperatures)
        if batch.weights is not None:
            losses = losses * batch.weights
        signal, counts = batch.signal & (not idle), self.counts
        if losses.dim() == 3:  # K draws: K times as many groups
            signal, counts = signal.repeat(len(losses), 1), None if counts is None else counts * len(losses)
            losses, w = losses.flatten(0, 1), w if w.dim() == 1 else w.flatten(0, 1)
        loss = hypernet_loss(losses, signal, w, job.config.penalty, self.reduce, counts)
        # DDP averages gradients over processes; the loss is a sum over all their groups.
        self.accelerator.backward(loss * self.accelerator.num_processes)
        self.accelerator.clip_grad_norm_(self.model.parameters(), job.config.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def evaluate(self, loss: float) -> dict[str, float]:
        """Measure the validation front; keep the weights if it is the best so far."""
        job, history = self.job, self.history
        history.epochs.append(self.epoch)
        history.losses.append(loss)
        best = history.validation[history.best] if history.best >= 0 else None
        value, main, log = None, None, {}
        if job.validation is not None:
            fronts = [
                validation_front(
                    job.ranker, job.validation, self.grid, betas, job.metric, self.accelerator, self.measured
                )
                for betas in job.validation_betas or (job.betas,)
            ]
            value = float(np.mean([job.choice(front) for front in fronts]))
            log = {f"{job.name}/validation_hypervolume": float(np.mean([front.hypervolume for front in fronts]))}
            mains = [front.main for front in fronts if front.main is not None]
            if mains and not np.isnan(mains).all():
                main = float(np.nanmean(mains))
                log[f"{job.name}/validation_main"] = main
        history.validation.append(value)
        history.main.append(main)
        if best is None or value is None or value > best:
            history.best, self.best = len(history.epochs) - 1, _state(job.ranker)
        return log

    def choose(self) -> None:
        """Take the candidate with the best validation front; it is seen at more weightings than an epoch is."""
        job, started = self.job, time.monotonic()
        if job.validation is None or not job.ranker.candidates:
            return
        grid = weight_grid(len(job.betas), max(CHOICE_POINTS, len(job.betas) + 2))
        for candidates in job.ranker.candidates:
            values = []
            for candidate in candidates:
                job.ranker.use(**candidate)
                front = validation_front(
                    job.ranker, job.validation, grid, job.betas, job.metric, self.accelerator, self.measured
                )
                values.append(job.choice(front))
            self.history.chosen |= candidates[int(np.argmax(values))]
            job.ranker.use(**self.history.chosen)
        self.history.seconds += time.monotonic() - started

    def save(self) -> None:
        """Write the checkpoint: everything that the next epoch depends on."""
        self.saved_at = time.monotonic()
        job = self.job
        if job.checkpoint is None or not self.accelerator.is_main_process:
            return
        moments: dict[str, torch.Tensor] = {}
        for index, state in self.optimizer.state_dict()["state"].items():
            moments |= with_prefix(str(index), {k: torch.as_tensor(v) for k, v in state.items()})
        tensors = with_prefix("current", _state(job.ranker)) | with_prefix("best", self.best)
        tensors |= with_prefix("optimizer", moments)
        values = {"fingerprint": job.fingerprint, "epoch": self.epoch, "history": asdict(self.history)}
        write_tensors(job.checkpoint, tensors, values)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        job = self.job
        if job.checkpoint is None or not job.checkpoint.exists():
            return
        try:
            tensors, values = read_tensors(job.checkpoint)
        except InputError as error:
            if self.accelerator.is_main_process:
                warnings.warn(f"{job.name}: {error}; passed over, this training begins again", stacklevel=3)
            return
        if not isinstance(values, dict) or values.get("fingerprint") != job.fingerprint:
            raise InputError(
                f"{job.checkpoint}: a checkpoint of another configuration or of other data; "
                "expected one of this run (remove the directory, or choose another)"
            )
        try:
            job.ranker.load_state_dict(without_prefix("current", tensors))
            self.best = without_prefix("best", tensors)
            full = self.optimizer.state_dict()
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for name, tensor in without_prefix("optimizer", tensors).items():
                index, key = name.split(".", 1)
                moments.setdefault(int(index), {})[key] = tensor
            self.optimizer.load_state_dict({**full, "state": moments})
            self.epoch = int(values["epoch"])
            self.history = History(**values["history"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"{job.checkpoint}: not a checkpoint of this run ({str(error).splitlines()[0]})") from None
        if self.accelerator.is_main_process and self.epoch:
            warnings.warn(f"{job.name}: resumed after epoch {self.epoch} from {job.checkpoint}", stacklevel=3)


def learning_rate(config: TrainingConfig, epoch: float) -> float:
    """Linear warm-up, then a cosine to 0, of the part of the epochs that is done."""
    done = epoch / config.epochs
    if done < config.warmup:
        # Not 0 in the very first step, which would be lost.
        return config.learning_rate * max(done / config.warmup, 0.01)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (done - config.warmup) / (1 - config.warmup)))


def validation_front(
    ranker: Ranker,
    examples: Examples,
    grid: np.ndarray,
    betas: tuple[float, ...],
    metric: NdcgSettings,
    accelerator: Accelerator,
    batches: list[GroupBatch] | None = None,
) -> Front:
    """The front at the (P, m) grid of weights; each process measures its share of the groups.

    Args:
        batches: only these groups.
    """
    batches = examples.batches() if batches is None else batches
    ranker.eval()
    # In float32, also where training is not: half precision would tie scores of a long list.
    return evaluate_front(
        ranker_scores(ranker, grid, betas, accelerator.device),
        examples,
        grid,
        [1.0],
        betas,
        metric,
        device=accelerator.device,
        batches=batches[accelerator.process_index :: accelerator.num_processes],
        reduce=array_sum(accelerator),
        with_losses=False,
    )


def array_sum(accelerator: Accelerator) -> ReduceArray | None:
    """Sums arrays over processes; None where there is only one."""
    if accelerator.num_processes == 1:
        return None
    return lambda values: accelerator.reduce(torch.from_numpy(values).to(accelerator.device), "sum").cpu().numpy()


def share_of_process(group_batch: GroupBatch, draw: Draw, accelerator: Accelerator) -> tuple[GroupBatch, Draw, bool]:
    """The whole groups of a batch that this process trains on, their draw, and whether it idles.

    Groups stand in order of size: every n-th one gives each process about the same work. A batch with fewer groups
    than processes leaves some idle: they run on one group whose loss does not count, because all must take part
    in the exchange of gradients.
    """
    rank, world = accelerator.process_index, accelerator.num_processes
    if world == 1:
        return group_batch, draw, False
    idle = rank >= len(group_batch.groups)
    chosen = slice(0, 1) if idle else slice(rank, None, world)
    share = GroupBatch(group_batch.groups[chosen], group_batch.length)

    def own(values: np.ndarray | None) -> np.ndarray | None:
        return values if values is None or values.ndim == 1 else values[..., chosen, :]

    weights = own(draw.weights)
    assert weights is not None
    return share, Draw(weights, own(draw.temperatures)), idle


def _on_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float32)).to(device)


def _some_groups(examples: Examples, items: int, seed: int) -> list[GroupBatch]:
    """Groups of at most ``items`` items in all (at least one group), drawn with the seed."""
    order = stream(seed, VALIDATION).permutation(len(examples.sizes))
    count = max(int((np.cumsum(examples.sizes[order]) <= items).sum()), 1)
    return examples.batches(np.sort(order[:count]))


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
