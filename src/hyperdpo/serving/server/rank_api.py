"""``POST /rank``: lists in, scores and rankings out, each list at a point of its own. ``POST /components``: the columns
whose weighted sum ranks a list at any weights."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from hyperdpo.core.point import Point, PointReader, even_weights
from hyperdpo.serving.server.app import Server, body_of, build_app, check_json, error_responses, possible_errors
from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.rank_engine import RankEngine
from hyperdpo.serving.server.rank_explained import explanations
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import (
    AskedGroup,
    ComponentsAnswer,
    ComponentsBatch,
    ComponentsGroup,
    Info,
    Problem,
    RankAnswer,
    RankBatch,
    RankGroup,
    RankLimits,
    read_groups,
    written,
    written_components,
)

ERRORS = possible_errors(422, "Scoring failed.")


def error_body(refusal: Refusal) -> dict[str, Any]:
    """FastAPI's own shape, with one line."""
    return {"detail": refusal.message}


def rank_app(model: RankModel, server: Server, limits: RankLimits, default: Point | None = None) -> FastAPI:
    """The app; its engine starts and ends with it.

    Args:
        default: the point of lists that name none.
    """
    engine = RankEngine(model.score, server.metrics, max_batch=limits.max_batch, max_queue=limits.max_queue)
    points = PointReader(model.objectives, default or Point())

    app = build_app(
        server,
        title=f"HyperDPO: {model.name}",
        description=f"A ranker at any weights of {', '.join(model.objectives)}.",
        error_body=error_body,
        engine=engine,
        request_models=[RankBatch, RankGroup, ComponentsBatch, ComponentsGroup],
    )
    example: dict[str, Any] = {"features": [[0.0] * len(model.features), [1.0] * len(model.features)]}
    if not model.own_base:
        example["base_scores"] = [0.0, 1.0]
    at_weights = {**example, "weights": even_weights(len(model.objectives))}

    async def answer(request: Request, kind: type[ComponentsGroup]) -> tuple[list[AskedGroup], list[np.ndarray]]:
        """The lists of a request, and their scores or components; then components for explanations."""
        check_json(request)
        engine.check_room()
        asked = read_groups(await request.body(), model, points, limits, kind)
        columns = [group.columns for group in asked if group.columns is not None]
        found = await engine.submit([*(group.work for group in asked), *columns])
        for number, values in enumerate(found):
            if not np.isfinite(values).all():  # JSON has no words for it
                raise Refusal(422, f"group {number}: scores beyond single precision; expected smaller numbers")
        return asked, found

    @app.post(
        "/rank",
        summary="Rank one or many lists",
        description='A body is either `{"groups": [...]}` or one group.',
        response_model=RankAnswer,
        responses=error_responses(Problem, ERRORS),
        openapi_extra=_body(RankBatch, RankGroup, at_weights),
        tags=["ranking"],
    )
    async def rank(request: Request) -> Response:
        asked, found = await answer(request, RankGroup)
        scores, columns = found[: len(asked)], found[len(asked) :]
        if columns and model.trees is not None:  # TreeSHAP takes longer than a list: others are answered meanwhile
            why = await asyncio.to_thread(explanations, asked, columns, model)
        else:
            why = explanations(asked, columns, model)
        return Response(written(asked, scores, model.objectives, why), media_type="application/json")

    @app.post(
        "/components",
        summary="Columns that rank one or many lists at any weights",
        description="A body is as that of /rank, without weights, temperatures and main_share.",
        response_model=ComponentsAnswer,
        responses=error_responses(Problem, ERRORS),
        openapi_extra=_body(ComponentsBatch, ComponentsGroup, example),
        include_in_schema=bool(model.columns),
        tags=["ranking"],
    )
    async def components(request: Request) -> Response:
        asked, found = await answer(request, ComponentsGroup)
        return Response(written_components(asked, found, model.columns), media_type="application/json")

    @app.get(
        "/info",
        summary="Objectives and features",
        response_model=Info,
        responses=error_responses(Problem, {401: ERRORS[401]}),
        tags=["ranking"],
    )
    async def info() -> Info:
        return Info(
            name=model.name,
            objectives=list(model.objectives),
            features=list(model.features),
            feature_type=model.feature_type.name,
            needs_base_scores=not model.own_base,
            point=_described(points),
            backend=model.backend,
            components=list(model.columns),
        )

    return app


def _body(batch: type[BaseModel], group: type[BaseModel], example: Mapping[str, Any]) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes several groups, or one by itself."""
    extra = body_of(batch, {"two items": {"groups": [example]}, "one group": example})
    content = extra["requestBody"]["content"]["application/json"]
    content["schema"] = {"anyOf": [content["schema"], {"$ref": f"#/components/schemas/{group.__name__}"}]}
    return extra


def _described(points: PointReader) -> dict[str, Any] | None:
    """The server's own point for JSON; None where requests have to bring weights."""
    own = points.default
    if not own.weights:
        return None
    betas = {"temperatures": list(own.temperatures)} if own.temperatures else {}
    return own.to_dict(points.names) | betas
