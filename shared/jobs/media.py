"""Register a media asset, so that posts can name it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from shared.domain.media import MediaAsset
from shared.runtime import Runtime


def register(asset_id: str, asset: Callable[[datetime], MediaAsset], rt: Runtime) -> dict[str, Any]:
    kept = rt.store.media_assets.register(asset_id, asset)
    rt.log.event("media.registered", mediaAssetId=asset_id, companyId=kept.company_id)
    return {
        "success": True,
        "mediaAssetId": asset_id,
        **kept.item(asset_id).model_dump(by_alias=True, exclude={"id"}),
    }
