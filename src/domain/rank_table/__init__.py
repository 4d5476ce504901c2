"""Rank tables: which device of which server is which rank of a job, as HCCL reads it."""

from glm3.domain.rank_table.device_range import DeviceRange, parse_device_range
from glm3.domain.rank_table.merging import merge_tables, merged_name
from glm3.domain.rank_table.parsing import parse_rank_table, read_rank_table
from glm3.domain.rank_table.records import COMPLETED, Device, Placement, RankTable, Server, SuperPod
from glm3.domain.rank_table.rendering import render

__all__ = [
    "COMPLETED",
    "Device",
    "DeviceRange",
    "Placement",
    "RankTable",
    "Server",
    "SuperPod",
    "merge_tables",
    "merged_name",
    "parse_device_range",
    "parse_rank_table",
    "read_rank_table",
    "render",
]
