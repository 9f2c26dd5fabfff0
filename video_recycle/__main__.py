"""python -m video_recycle demo | study | train | rollout"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

Act = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m video_recycle",
        description="Error-recycling fine-tuning, so that long video stops drifting.",
        epilog="example: python -m video_recycle demo --steps 200",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    from video_recycle import demo, wan_commands
    from video_recycle.bank import BankError
    from video_recycle.clips import ClipError
    from video_recycle.study import make
    from video_recycle.train import TrainingError
    from video_recycle.wan import WanError

    rooms: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Act, str]] = {
        "demo": (demo.arguments, demo.main, "all of it on a small world, in minutes on a CPU"),
        "study": (make.arguments, make.main, "a repository in which an agent improves error recycling: labtop run"),
        "train": (wan_commands.train_arguments, wan_commands.train, "fine-tune Wan on your clips"),
        "rollout": (wan_commands.rollout_arguments, wan_commands.rollout, "a long video of Wan's, from an image"),
    }
    for name, (arguments, act, told) in rooms.items():
        room = commands.add_parser(name, help=told, description=told)
        room.set_defaults(act=act)
        arguments(room)
    asked = parser.parse_args(argv)
    chosen: Act = asked.act
    try:
        return chosen(asked)
    except (BankError, ClipError, TrainingError, WanError, OSError) as error:
        print(f"{parser.prog} {asked.command}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
