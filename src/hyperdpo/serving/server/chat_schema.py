"""Requests and answers of OpenAI's API, as far as they are supported, with weights and scale beside them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from hyperdpo.errors import brief
from hyperdpo.serving.server.errors import Refusal

#: Settings of OpenAI's that are accepted where they ask for nothing, and the values that do so. None always does.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "reasoning_effort": (),
    "prediction": (),
    "audio": (),
}

#: What a caller may say about itself; it changes nothing.
IGNORED = ("user", "metadata", "safety_identifier", "prompt_cache_key")


class StreamOptions(BaseModel):
    """What a streamed answer is to contain."""

    include_usage: bool | None = Field(None, description="Count the tokens in one more chunk at the end.")
    include_obfuscation: bool | None = Field(None, description="Accepted, and ignored.")


class TextPart(BaseModel):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A turn of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart] | None = Field(None, description="Of the assistant it may be null.")

    @model_validator(mode="after")
    def _check_content(self) -> Message:
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("missing", "Field required: content")
        return self

    @property
    def text(self) -> str:
        """The content as one text."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)


class Sampling(BaseModel):
    """What chats and completions have in common."""

    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = Field(None, description="The model's name, as /v1/models says; may be left out.")
    weights: list[float] | dict[str, float] | None = Field(
        None,
        description="One number >= 0 per objective, sum 1, in order or by name (what is not named counts 0). "
        "The server's own point if left out, if it has one.",
        examples=[[0.3, 0.7]],
    )
    scale: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="c: above 1 is nearer to the base model.", examples=[1.0]
    )
    temperature: float | None = Field(None, ge=0, le=2, description="Of the sampling; 0 is greedy. 1 if left out.")
    top_p: float | None = Field(
        None, gt=0, le=1, description="Draw from the most likely tokens that make up this much. 1 if left out."
    )
    max_tokens: int | None = Field(None, ge=1, description="Tokens of an answer, at most.")
    n: int | None = Field(None, ge=1, description="Answers. 1 if left out.")
    stop: str | list[str] | None = Field(None, description="Up to 4 texts that end an answer, not part of it.")
    seed: int | None = Field(None, ge=-(2**63), lt=2**63, description="The same seed draws the same answer.")
    stream: bool | None = Field(None, description="Server-sent events instead of one answer.")
    stream_options: StreamOptions | None = None


class ChatRequest(Sampling):
    """A conversation that is to go on."""

    messages: list[Message] = Field(min_length=1, examples=[[{"role": "user", "content": "Once upon a time"}]])
    max_completion_tokens: int | None = Field(None, ge=1, description="The same as max_tokens, its newer name.")


class CompletionRequest(Sampling):
    """Texts that are to be continued."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(
        description="A text, several, or their token ids.", examples=["Once upon a time"]
    )


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]


class TextChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]


class Answer(BaseModel):
    """What all answers have."""

    id: str
    created: int
    model: str
    usage: Usage
    weights: dict[str, float] | None = Field(None, description="The weights that were used.")
    scale: float = Field(description="The scale that was used.")


class ChatAnswer(Answer):
    """The answers to a conversation."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class CompletionAnswer(Answer):
    """Continuations."""

    object: Literal["text_completion"] = "text_completion"
    choices: list[TextChoice]


class ModelEntry(BaseModel):
    """The model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "hyperdpo"
    objectives: list[str] = Field(description="In the order of the weights.")
    max_context: int | None = Field(None, description="Tokens of a prompt and its answer together.")
    base_fingerprint: str = Field(description="A hash of the base model, as dial.json has it.")


class ModelList(BaseModel):
    """All models: one."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """OpenAI's shape of an error."""

    error: ErrorDetail


def parse_request(kind: type[Sampling], body: bytes) -> Any:
    """A request from its body.

    Raises:
        Refusal: 400, with one line about the first thing that is wrong.
    """
    try:
        request = kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        names = [str(part) for part in first["loc"]]
        place = ".".join(names)
        found = "" if first["type"] in ("missing", "json_invalid") else f"; found {brief(first['input'])}"
        where = f"{place}: " if place else "the body: "
        raise Refusal(400, f"{where}{first['msg']}{found}", parameter=names[0] if names else None) from None
    for name, value in (request.model_extra or {}).items():
        if name in IGNORED or value is None:
            continue
        if name not in NEUTRAL:
            raise Refusal(400, f"{name[:60]!r}: not a parameter that is known here", parameter=name[:60])
        if not any(type(value) is type(plain) and value == plain for plain in _forms(NEUTRAL[name])):
            raise Refusal(400, f"{name}: not supported; found {brief(value)}; leave it out", parameter=name)
    return request


def _forms(plain: tuple[Any, ...]) -> tuple[Any, ...]:
    """0 may come as 0.0."""
    return plain + tuple(float(value) for value in plain if type(value) is int)
