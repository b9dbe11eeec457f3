# pyarrow carries no types, and the published stubs refuse calls that it takes: everything in it is Any.
from typing import Any

def __getattr__(name: str) -> Any: ...
