"""How much of anything a request may hold.

No honest request comes near these; they bound the time that reading one takes from all others.
"""

__all__ = [
    "MOST_CHOICES",
    "MOST_LOGPROBS",
    "MOST_MESSAGES",
    "MOST_STOPS",
    "MOST_TOKENS",
    "MOST_TOOLS",
    "SEEDS",
]

MOST_CHOICES = 128
MOST_LOGPROBS = 20
MOST_MESSAGES = 10_000  # two tokens each at least, of a context of 32,768
MOST_STOPS = 128
MOST_TOKENS = 1_000_000
MOST_TOOLS = 128  # as many as OpenAI's API takes
SEEDS = 2**63  # seeds are 64-bit numbers with a sign
