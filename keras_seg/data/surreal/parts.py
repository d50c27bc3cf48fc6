"""SURREAL's body parts: names, colours, left and right, and coarser divisions."""

from keras_seg.labels import LabelSpec

LABELS = LabelSpec(
    names=(
        *("background", "hips", "leftUpLeg", "rightUpLeg", "spine"),
        *("leftLeg", "rightLeg", "spine1", "leftFoot", "rightFoot", "spine2"),
        *("leftToeBase", "rightToeBase", "neck", "leftShoulder", "rightShoulder"),
        *("head", "leftArm", "rightArm", "leftForeArm", "rightForeArm"),
        *("leftHand", "rightHand", "leftHandIndex1", "rightHandIndex1"),
    ),
    palette=(
        *((115, 139, 163), (217, 83, 25), (237, 177, 32), (126, 47, 91)),
        *((119, 172, 48), (77, 190, 238), (131, 196, 185), (237, 220, 103)),
        *((177, 173, 203), (157, 196, 106), (119, 165, 196), (235, 167, 91)),
        *((166, 206, 98), (175, 119, 176), (202, 202, 202), (190, 219, 183)),
        *((234, 191, 213), (237, 237, 166), (94, 79, 162), (158, 1, 66)),
        *((243, 212, 167), (254, 210, 123), (50, 131, 189), (152, 214, 164)),
        (226, 157, 137),
    ),
    flip_pairs=(
        *((2, 3), (5, 6), (8, 9), (11, 12), (14, 15)),
        *((17, 18), (19, 20), (21, 22), (23, 24)),
    ),
)
# The groups of BODY's tables 2 and 5, left and right together; a group's accuracy is
# the mean of its members'.
GROUPS = {
    "Background": (0,),
    "Head": (16,),
    "Torso": (1, 4, 7, 10),
    "U.Legs": (2, 3),
    "L.Legs": (5, 6),
    "Neck": (13,),
    "Shoulder": (14, 15),
    "U.Arms": (17, 18),
    "L.Arms": (19, 20),
    "Feets": (8, 9),
    "Hands": (21, 22),
    "Fingers": (23, 24),
    "Toes": (11, 12),
}
# SURREAL's own 14 parts: the new id of each of the 25.
SURREAL14 = (
    *(0, 2, 12, 9, 2, 13, 10, 2, 14, 11, 2, 14, 11),
    *(2, 2, 2, 1, 6, 3, 7, 4, 8, 5, 8, 5),
)
_NAMES14 = (
    *("background", "head", "torso"),
    *("rightUpperArm", "rightLowerArm", "rightHand"),
    *("leftUpperArm", "leftLowerArm", "leftHand"),
    *("rightUpperLeg", "rightLowerLeg", "rightFoot"),
    *("leftUpperLeg", "leftLowerLeg", "leftFoot"),
)
LABELS14 = LabelSpec(
    names=_NAMES14,
    # Each has the colour of the first of its parts.
    palette=tuple(
        LABELS.palette[SURREAL14.index(class_id)] for class_id in range(len(_NAMES14))
    ),
    flip_pairs=((3, 6), (4, 7), (5, 8), (9, 12), (10, 13), (11, 14)),
)
MERGES = {
    "none": (LABELS, tuple(range(LABELS.num_classes))),
    "surreal14": (LABELS14, SURREAL14),
}
