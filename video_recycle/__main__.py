"""python -m video_recycle demo"""

from __future__ import annotations

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m video_recycle",
        description="Error-recycling fine-tuning, so that long video stops drifting.",
        epilog="example: python -m video_recycle demo --steps 200",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    from video_recycle import demo

    demo.arguments(commands.add_parser("demo", help="all of it on a small world, in minutes on a CPU"))
    asked = parser.parse_args(argv)
    return demo.main(asked)


if __name__ == "__main__":
    sys.exit(main())
