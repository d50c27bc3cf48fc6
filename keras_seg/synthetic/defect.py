"""SURREAL's head-label defect: specks on chest and groin that are labelled head.

In SURREAL's label images two small S-shaped specks on the chest and flecks at the
groin have the id of the head. They belong to faces of the mesh and are the same in
every frame. The dataset's preparation repairs them; the generator reproduces them so
that the repair can be tested against the clean labels.
"""

import numpy as np

from keras_seg.synthetic import body

HEAD_PART = body.HEAD + 1
CHEST_PART, HIPS_PART = 10, 1


def defective_parts(template: body.Template) -> np.ndarray:
    """uint8 [F]: the part of every face as SURREAL's renderer would label it.

    On the mean body: S curves 7.5 cm to the left and right of the breastbone, 8 cm
    high and 2.2 cm wide, and a bar at the groin, 2.4 cm high and 9 cm wide. Each is
    within one part, so that the clean label of every pixel is certain.
    """
    centres = template.mean[template.faces].mean(axis=1)
    x, y, z = centres.T
    joints = template.joints
    front = z > joints[body.SPINE3, 2]
    dy = y - (joints[body.SPINE3, 1] + 0.12)
    curve = 0.012 * np.sin(np.pi * dy / 0.05)
    chest = (template.face_part == CHEST_PART) & front & (np.abs(dy) < 0.04)
    chest &= (np.abs(x - 0.075 - curve) < 0.011) | (np.abs(x + 0.075 - curve) < 0.011)
    level = joints[body.LEFT_HIP, 1] + 0.02  # the legs' parts reach up to the hips
    groin = (template.face_part == HIPS_PART) & front & (np.abs(y - level) < 0.012)
    groin &= np.abs(x + 0.05) < 0.045
    return np.where(chest | groin, HEAD_PART, template.face_part).astype(np.uint8)
