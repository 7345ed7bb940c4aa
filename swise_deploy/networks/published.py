"""Parameters and Mult-Adds as the papers print them. Nothing here was measured by this project.

Rows of "SwiseNet: Lightweight Image Super-Resolution with Scale-wise Network" (BMVC 2023, Table 1),
and for systems that its figure shows without numbers: FSRCNN, VDSR, DRCN and CARN-M as the table of
CARN (Ahn et al., ECCV 2018) has them (assets/table.png of github.com/nmhkahn/CARN-pytorch at
40d3514; the first three also Zhang et al., "Aligned Structured Sparsity Learning for Efficient
Image Super-Resolution", NeurIPS 2021, Table 3), and LBNet-T as the authors' read-me has it
(github.com/wzx0826/LBNet).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedCounts:
    """Counts that a paper states for one scale, at a 1280x720 output."""

    params_k: float
    mult_adds_g: float


COUNTS: dict[str, dict[int, PublishedCounts]] = {
    "srcnn": {
        2: PublishedCounts(57, 52.7),
        3: PublishedCounts(57, 52.7),
        4: PublishedCounts(57, 52.7),
    },
    "fsrcnn": {
        2: PublishedCounts(12, 6.0),
        3: PublishedCounts(12, 5.0),
        4: PublishedCounts(12, 4.6),
    },
    "vdsr": {
        2: PublishedCounts(665, 612.6),
        3: PublishedCounts(665, 612.6),
        4: PublishedCounts(665, 612.6),
    },
    "drcn": {
        2: PublishedCounts(1774, 17974.3),
        3: PublishedCounts(1774, 17974.3),
        4: PublishedCounts(1774, 17974.3),
    },
    "carn": {
        2: PublishedCounts(1592, 222.8),
        3: PublishedCounts(1592, 118.8),
        4: PublishedCounts(1592, 90.9),
    },
    "carn_m": {
        2: PublishedCounts(412, 91.2),
        3: PublishedCounts(412, 46.1),
        4: PublishedCounts(412, 32.5),
    },
    "smsr": {
        2: PublishedCounts(985, 224.1),
        3: PublishedCounts(993, 100.5),
        4: PublishedCounts(1006, 57.2),
    },
    "lbnet": {
        2: PublishedCounts(731, 153.2),
        3: PublishedCounts(736, 68.4),
        4: PublishedCounts(742, 38.9),
    },
    "lbnet_t": {
        2: PublishedCounts(404, 49.0),
        3: PublishedCounts(407, 22.0),
        4: PublishedCounts(410, 12.6),
    },
    "fmen": {
        2: PublishedCounts(748, 172.0),
        3: PublishedCounts(757, 77.2),
        4: PublishedCounts(769, 44.2),
    },
    "swinir_light": {
        2: PublishedCounts(878, 195.6),
        3: PublishedCounts(886, 87.2),
        4: PublishedCounts(897, 49.6),
    },
    "swisenet": {
        2: PublishedCounts(1077, 236.5),
        3: PublishedCounts(1068, 128.0),
        4: PublishedCounts(1227, 88.6),
    },
    "swisenet_no_sum": {
        2: PublishedCounts(1035, 212.7),
        3: PublishedCounts(1044, 112.8),
        4: PublishedCounts(1056, 75.3),
    },
}
"""By key of NETWORKS and scale; and "swisenet_updated", the authors' corrected row."""

COUNTS["swisenet_updated"] = COUNTS["swisenet"]  # other scores, the same network
