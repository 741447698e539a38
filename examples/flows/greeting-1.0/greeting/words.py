"""Version 1.0: polite."""

from skep.flow import Context, step


@step
async def find(cx: Context[object], name: str) -> str:
    return f"1.0: Good day, {name}."


@step
async def say(cx: Context[object], words: str) -> str:
    return f"{words} (said by 1.0)"
