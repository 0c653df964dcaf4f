"""What a trainer writes: its adapter, checkpoints that are there whole or not at all, and a card for the hub."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import safe_globals
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from hyperdpo.alignment.adapters import TENSORS
from hyperdpo.alignment.hub import model_card, push_checkpoint
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.checksums import named_inside
from hyperdpo.errors import InputError, one_line
from hyperdpo.files import check_space, read_json, read_tensors, write_atomically, writing, written_into
from hyperdpo.processes import is_first_process
from hyperdpo.progress import note
from hyperdpo.runs import check_listed, list_files
from hyperdpo.writing import put

if TYPE_CHECKING:
    from hyperdpo.alignment.training_config import HyperDPOConfig
    from hyperdpo.objectives import Objective

#: Directory of a checkpoint that is being written, beside those that are complete. All processes write into it.
UNFINISHED = ".unfinished"
#: A checkpoint has the adapter and two moments of each of its parameters.
COPIES = 3


class CheckpointTrainer(Trainer):
    """A trainer whose files are an adapter's, and whose checkpoints are complete as soon as they have their name."""

    settings: HyperDPOConfig
    objectives: tuple[Objective, ...]
    _saving: Path | None = None

    @property
    def own_model(self) -> ConditionedLM:
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, ConditionedLM)
        return model

    def check_space(self) -> None:
        """Check that the next checkpoint has room.

        Raises:
            InputError: it has not.
        """
        parameters = [one for one in self.own_model.parameters() if one.requires_grad]
        needed = COPIES * sum(one.numel() * one.element_size() for one in parameters)
        check_space(Path(str(self.settings.output_dir)), needed, "a checkpoint")

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._saving is None else str(self._saving)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        # The trainer's own writes into the checkpoint's directory file by file; so here it is another one meanwhile.
        run = Path(super()._get_output_dir(trial))
        saving, name = run / UNFINISHED, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        with writing(run / name):
            if self.args.should_save:
                self.check_space()
                shutil.rmtree(saving, ignore_errors=True)  # of a process that was killed
            self.accelerator.wait_for_everyone()
            self._saving = saving
            try:
                super()._save_checkpoint(model, trial)
            finally:
                self._saving = None
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                if self.state.best_model_checkpoint == str(saving / name):
                    self.state.best_model_checkpoint = str(run / name)
                    self.state.save_to_json(str(saving / name / TRAINER_STATE_NAME))
                list_files(saving / name)
                put(saving / name, run / name)
                shutil.rmtree(saving, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        if self.state.best_model_checkpoint == str(saving / name):  # in the other processes
            self.state.best_model_checkpoint = str(run / name)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run / name))
        if self.args.should_save:
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Not the trainer's own: it would write the frozen base, and its arguments as a pickle.
        out = Path(str(self.settings.output_dir if output_dir is None else output_dir))
        self.own_model.save_pretrained(out)
        if self.processing_class is not None:
            with written_into(out) as temporary:
                self.processing_class.save_pretrained(temporary)
        write_atomically(out / "training_args.json", self.args.to_json_string().encode())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.own_model.load_adapter_state(read_tensors(Path(resume_from_checkpoint) / TENSORS)[0])

    def _load_best_model(self) -> None:
        # A file of the checkpoint names it: only its own directories count, wherever they were when it was written.
        name = Path(str(self.state.best_model_checkpoint)).name
        self._load_from_checkpoint(str(named_inside(Path(str(self.args.output_dir)), name, TRAINER_STATE_NAME)))

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """A README.md beside the adapter: objectives, base, how to generate.

        Args:
            language, license: for the card's head.
            tags: beside those of every adapter.
            model_name: the card's title.
            finetuned_from: the base's name; None: that of the model, unless it is a directory.
            tasks: the first one is the card's pipeline tag.
            dataset_tags, dataset: names of data sets on the hub.
            dataset_args: not used.
        """
        if not self.is_world_process_zero():
            return
        told: dict[str, Any] = {
            "language": language,
            "license": license,
            "pipeline_tag": tasks[0] if isinstance(tasks, list) and tasks else tasks or None,
            "datasets": dataset_tags or dataset,
            "base_model": finetuned_from,
        }
        place = getattr(self, "hub_model_id", None)
        card = model_card(self.own_model, self.objectives, model_name, tags, place=place, **told)
        write_atomically(Path(str(self.settings.output_dir)) / "README.md", card.encode())

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # Not the trainer's own: it knows other files than the adapter's, and pushes its arguments as a pickle.
        if self._saving is None and self.is_world_process_zero():  # a complete one
            push_checkpoint(self, checkpoint_folder)


def last_checkpoint(directory: Path) -> str | None:
    """The newest checkpoint that can be loaded, or None. Newer ones that cannot are passed over, with a note."""
    found = [path for path in directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name[11:].isdigit()]
    for path in sorted(found, key=lambda one: int(one.name[11:]), reverse=True):
        reason = _why_not_loaded(path)
        if reason is None:
            return str(path)
        if is_first_process():
            note(f"{path}: cannot be loaded ({reason}); passed over")
    return None


def _why_not_loaded(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint; None where all can be read."""
    state, optimizer, scheduler = (checkpoint / one for one in (TRAINER_STATE_NAME, "optimizer.pt", "scheduler.pt"))
    missing = [one for one in (state, checkpoint / TENSORS) if not one.is_file()]
    if optimizer.exists() != scheduler.exists():
        missing += [one for one in (optimizer, scheduler) if not one.exists()]
    if missing:
        return f"{missing[0].name} is missing"
    try:
        check_listed(checkpoint)
    except InputError as error:
        return one_line(str(error).removeprefix(f"{checkpoint}/"))
    for path in sorted(checkpoint.iterdir()):
        try:
            if path.suffix == ".json":
                found = read_json(path)
                if path == state and not isinstance(found["global_step"], int):
                    return f"{path.name} is not the trainer's"
            elif path.suffix == ".safetensors":
                read_tensors(path)
            elif path.suffix in (".pt", ".pth"):
                with safe_globals():
                    torch.load(path, map_location="cpu", weights_only=True)
        except InputError as error:
            return one_line(str(error).removeprefix(f"{checkpoint}/"))
        except Exception as error:  # torch raises its reader's, the archive's and the unpickler's
            return f"{path.name}: {one_line(error) or type(error).__name__}"
    return None
