"""``POST /rank``: lists in, scores and rankings out, each list at a point of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response

from hyperdpo.core.point import Point, PointReader, even_weights
from hyperdpo.serving.server.app import Server, body_of, build_app, check_json, error_responses, possible_errors
from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.rank_engine import RankEngine
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import (
    Info,
    Problem,
    RankAnswer,
    RankBatch,
    RankGroup,
    RankLimits,
    read_groups,
    written,
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
        request_models=[RankBatch, RankGroup],
    )
    example = {
        "features": [[0.0] * len(model.features), [1.0] * len(model.features)],
        "weights": even_weights(len(model.objectives)),
    }
    extra = body_of(RankBatch, {"two items": {"groups": [example]}, "one group": example})
    content = extra["requestBody"]["content"]["application/json"]
    content["schema"] = {"anyOf": [content["schema"], {"$ref": "#/components/schemas/RankGroup"}]}

    @app.post(
        "/rank",
        summary="Rank one or many lists",
        description='A body is either `{"groups": [...]}` or one group.',
        response_model=RankAnswer,
        responses=error_responses(Problem, ERRORS),
        openapi_extra=extra,
        tags=["ranking"],
    )
    async def rank(request: Request) -> Response:
        check_json(request)
        engine.check_room()
        asked = read_groups(await request.body(), model, points, limits)
        scores = await engine.submit([group.work for group in asked])
        for number, row in enumerate(scores):
            if not np.isfinite(row).all():  # JSON has no words for it
                raise Refusal(422, f"group {number}: scores beyond single precision; expected smaller numbers")
        return Response(written(asked, scores, model.objectives), media_type="application/json")

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
        )

    return app


def _described(points: PointReader) -> dict[str, Any] | None:
    """The server's own point for JSON; None where requests have to bring weights."""
    own = points.default
    if not own.weights:
        return None
    betas = {"temperatures": list(own.temperatures)} if own.temperatures else {}
    return own.to_dict(points.names) | betas
