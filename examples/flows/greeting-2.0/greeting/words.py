"""Version 2.0: friendly."""

from skep.flow import Context, step


@step
async def find(cx: Context[object], name: str) -> str:
    return f"2.0: Hello {name}!"


@step
async def say(cx: Context[object], words: str) -> str:
    return f"{words} (said by 2.0)"
