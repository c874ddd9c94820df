"""Tables 1, 2 and 3 of the Guided AbsoluteGrad paper, digit for digit.

Used to print a reproduction beside what was published; nothing is computed from these figures.
"""

from __future__ import annotations

from gag_fast._errors import GagFastError

# Every table has the same eleven columns, in this order.
COLUMNS: tuple[tuple[str, str], ...] = (
    ("imagenet-s", "log_cosh_dice"),
    ("imagenet-s", "mae"),
    ("imagenet-s", "rcap"),
    ("imagenet-s", "dauc"),
    ("imagenet-s", "iauc"),
    ("isic", "rcap"),
    ("isic", "dauc"),
    ("isic", "iauc"),
    ("places365", "rcap"),
    ("places365", "dauc"),
    ("places365", "iauc"),
)

# Images behind the means (Section 5).
IMAGES = {"imagenet-s": 3976, "isic": 3000, "places365": 5432}

# Ablation of p (Section 5.1).
_TABLE1 = """
GAG-0  .2462 .5092 .3090 .1075 .6843 .3775 .4505 .7543 .1083 .1819 .5149
GAG-15 .2421 .5103 .3086 .1074 .6841 .3742 .4520 .7540 .1085 .1823 .5121
GAG-25 .2402 .5059 .3223 .1073 .6838 .3920 .4553 .7541 .1133 .1830 .5099
GAG-35 .2391 .5006 .3379 .1071 .6839 .4118 .4581 .7538 .1184 .1838 .5070
GAG-45 .2378 .4948 .3577 .1069 .6836 .4372 .4616 .7533 .1263 .1840 .5043
GAG-55 .2379 .4889 .3815 .1069 .6825 .4665 .4634 .7535 .1348 .1843 .5020
GAG-65 .2407 .4828 .4042 .1061 .6829 .5002 .4643 .7531 .1449 .1841 .5014
GAG-75 .2479 .4775 .4225 .1053 .6825 .5364 .4636 .7531 .1517 .1834 .5009
GAG-85 .2679 .4748 .4377 .1042 .6815 .5714 .4620 .7527 .1562 .1835 .5018
"""

# Methods, and five of them reversed, "^R" (Section 6.1).
_TABLE2 = """
Grad-CAM    .1348 .5333 .4059 .1493 .6907 .6410 .6177 .7897 .2708 .2935 .5956
GAG         .2679 .4748 .4377 .1042 .6815 .5714 .4620 .7527 .1562 .1835 .5018
VarGrad     .3431 .4872 .3809 .1037 .6813 .5079 .4638 .7533 .1230 .1842 .4947
SG          .3307 .4990 .1067 .0776 .6047 .3644 .4904 .7441 .0480 .1477 .4743
IG          .3382 .5065 .0449 .0855 .5120 .3441 .5042 .7400 .0250 .1558 .4049
GB          .3826 .4891 .1721 .0743 .6503 .3237 .5000 .7412 .1116 .1603 .5861
Guided IG   .3558 .4904 .0897 .0690 .5982 .3567 .4936 .7471 .0301 .1391 .4435
BlurIG      .3734 .4955 .0853 .0811 .5563 .4097 .4790 .7638 .0602 .1677 .4886
VG          .3459 .5040 .0340 .1292 .4511 .3237 .5000 .7412 .0132 .2569 .3098
SG^R        .3498 .5069 .0156 .0990 .3789 .3276 .5481 .6847 .0130 .1695 .3676
IG^R        .3522 .5123 .0061 .1150 .3056 .3443 .5602 .6904 .0106 .1665 .3465
GB^R        .3974 .4938 .0193 .1431 .3386 .3257 .5501 .6853 .0233 .2121 .3858
Guided IG^R .3679 .4949 .0101 .0969 .3510 .3406 .5435 .6785 .0119 .1745 .3442
BlurIG^R    .3835 .4990 .0078 .1112 .3158 .3839 .5150 .6879 .0169 .1937 .3473
"""

# A variant's metric over its method's own, averaged over SG, IG, GB, Guided IG and BlurIG
# (Section 6.2).
_TABLE3 = """
+  1.01 1.00 1.71 0.94 1.05 1.00 0.96 1.00 2.26 0.89 1.10
-  1.01 1.00 1.34 1.08 0.98 0.98 1.02 0.98 1.73 1.11 0.98
A  0.91 1.01 2.00 1.05 1.11 0.98 0.98 1.01 1.64 1.03 1.12
G  1.06 0.98 2.62 0.96 1.13 1.35 0.99 1.00 3.20 0.97 1.20
GA 0.97 0.97 2.86 0.99 1.15 1.35 0.98 1.00 3.32 1.01 1.21
"""


def _rows(text: str) -> dict[str, tuple[float, ...]]:
    rows = {}
    for line in text.strip().splitlines():
        label, *figures = line.rsplit(maxsplit=len(COLUMNS))
        rows[label] = tuple(float(figure) for figure in figures)
    return rows


TABLE1, TABLE2, TABLE3 = _rows(_TABLE1), _rows(_TABLE2), _rows(_TABLE3)
TABLES = {"table1": TABLE1, "table2": TABLE2, "table3": TABLE3}


def published(table: str, case: str) -> dict[str, dict[str, float]]:
    """The published rows of one table for one case.

    Args:
        table: "table1", "table2" or "table3".
        case: "imagenet-s", "isic" or "places365".

    Returns:
        row label -> metric name -> figure; the metrics are those the paper gives for that case.

    Raises:
        KeyError: an unknown table.
        ValueError: an unknown case.
    """
    columns = [(i, metric) for i, (owner, metric) in enumerate(COLUMNS) if owner == case]
    if not columns:
        raise GagFastError(f"no published figures for {case!r}; cases: {', '.join(IMAGES)}")
    return {
        row: {metric: figures[i] for i, metric in columns} for row, figures in TABLES[table].items()
    }
