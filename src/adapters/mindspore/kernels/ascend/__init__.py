"""MindSpore's fused Ascend operators behind the kernel seam, with their rules, versions and references."""
