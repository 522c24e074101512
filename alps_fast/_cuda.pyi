from collections.abc import Callable

layouts: dict[str, tuple[list[str], str, list[str]]]


def conv_has_warpgroups() -> bool: ...
def __getattr__(kernel: str) -> Callable[..., int]: ...
