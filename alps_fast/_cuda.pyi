from collections.abc import Callable

layouts: dict[str, list[tuple[str, str]]]


def conv_has_warpgroups() -> bool: ...
def __getattr__(kernel: str) -> Callable[..., int]: ...
