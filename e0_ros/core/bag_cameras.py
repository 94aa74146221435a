"""The cameras of a bag: its views' `CameraInfo` and /tf_static, as models on the base or on the flange."""

from __future__ import annotations

from typing import Any

from e0_policy.embodiment import Embodiment
from e0_ros.core.bag_reader import Bag
from e0_ros.core.camera_model import CameraModel, camera_model, transforms_of
from e0_ros.interfaces import TF_STATIC, camera_info_topic


def camera_models(bag: Bag, views: tuple[str, ...], arm: Embodiment) -> dict[str, CameraModel]:
    """Models of the views that are calibrated in the bag; the others are left out.

    A view's first `CameraInfo` counts, and of each transform the last. Bags may lack either: then the map is empty.

    Raises:
        BagReadError: damage, unless the bag was opened to be salvaged.

    """
    topics = {camera_info_topic(view).name: view for view in views}
    infos: dict[str, Any] = {}
    for message in bag.messages([topic for topic in topics if topic in bag.topics]):
        if topics[message.topic] not in infos:
            infos[topics[message.topic]] = bag.decode(message)
        if len(infos) == len(topics):
            break
    known = [TF_STATIC.name] if TF_STATIC.name in bag.topics else []
    transforms = transforms_of(bag.decode(message) for message in bag.messages(known))
    models = {view: camera_model(info, transforms, arm.base_frame) for view, info in infos.items()}
    return {view: model for view, model in models.items() if model is not None}
