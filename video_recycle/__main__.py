"""python -m video_recycle demo | study"""

from __future__ import annotations

import argparse
import sys
from typing import Any


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m video_recycle",
        description="Error-recycling fine-tuning, so that long video stops drifting.",
        epilog="example: python -m video_recycle demo --steps 200",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    from video_recycle import demo
    from video_recycle.study import make

    rooms: dict[str, tuple[Any, str]] = {
        "demo": (demo, "all of it on a small world, in minutes on a CPU"),
        "study": (make, "a repository in which an agent improves error recycling: labtop run"),
    }
    for name, (room, told) in rooms.items():
        room.arguments(commands.add_parser(name, help=told, description=room.__doc__))
    asked = parser.parse_args(argv)
    done: int = rooms[asked.command][0].main(asked)
    return done


if __name__ == "__main__":
    sys.exit(main())
