"""Why what a person asks can do nothing now, in a sentence that says what would; None where it can. Pure.

The engine answers with them, and the cockpit greys its keys by them.
"""

from __future__ import annotations

from loop.state import BASELINE, StudyState


def reject(state: StudyState, number: int | None) -> str | None:
    """Why experiment `number`, or whatever is under way, cannot be rejected."""
    current = state.current
    if number is not None and (current is None or current.number != number):
        return f"{number:04d} was decided meanwhile; nothing is rejected"
    if current is None:
        if (measured := state.measuring) is not None:
            return f"{measured.number:04d} is the incumbent, measured again; only a proposal can be rejected"
        return "nothing is under way that could be rejected"
    if current.agent == BASELINE:
        return "everything is compared with the baseline, which is being measured; `labtop stop --now` ends the engine"
    return None


def keep(state: StudyState, number: int | None) -> str | None:
    """Why experiment `number` cannot be kept by hand."""
    if number is None or not 0 <= number < len(state.experiments):
        which = "no experiment" if number is None else f"no experiment {number:04d}"
        return f"{which} has a measured value; only what was measured can be kept"
    chosen, best, current = state.experiments[number], state.best, state.current
    if chosen.mean is None:
        if chosen.colour == "red":
            return f"the audit of {number:04d} is red; what does not count cannot be kept"
        return f"{number:04d} has no measured value; only what was measured can be kept"
    if best is None or best.value is None:
        return "there is no baseline yet; everything else is compared with it"
    if chosen is best:
        return f"{number:04d} is the incumbent already"
    if chosen.base != best.commit:
        return (
            f"{number:04d} was made against another commit than the incumbent {best.number:04d}; "
            f"its patch is at refs/{state.branch}/{number:04d} and can be proposed again"
        )
    if current is not None and current is not chosen and current.stage != "proposing":
        return (
            f"{current.number:04d} is being measured against {best.number:04d}; "
            f"reject it or wait for its verdict, then keep {number:04d}"
        )
    return None


def undo(state: StudyState, number: int | None) -> str | None:
    """Why the latest verdict, on experiment `number` or whichever it is on, cannot be undone."""
    before, current, best = state.before, state.current, state.best
    if number is not None and (before is None or before.number != number):
        return f"the verdict on {number:04d} is not the latest any more; nothing is undone"
    if before is None:
        return "there is no verdict to undo; one can be undone until the next one, and once"
    number = before.number
    if before.agent == BASELINE:
        return "everything is compared with the baseline; another study starts from another one (--tag)"
    if state.experiments[number].verdict == "keep":
        return None
    if current is not None and current.stage != "proposing":
        return (
            f"{number:04d} would be run again, and {current.number:04d} is under way; "
            f"reject that or wait for its verdict, then propose the patch at refs/{state.branch}/{number:04d} again"
        )
    if best is not None and before.base != best.commit:
        return f"{number:04d} was made against another commit than the incumbent {best.number:04d}"
    return None


def approve(state: StudyState, number: int | None) -> str | None:
    """Why experiment `number`, or whatever waits, cannot be approved or amended."""
    waiting = state.awaiting
    if waiting is None:
        if not state.approving:
            return "proposals train without approval; `labtop gate on` lets each wait for a person"
        return "no proposal waits for approval"
    if number is not None and number != waiting.number:
        return f"it is {waiting.number:04d} that waits for approval, not {number:04d}"
    return None


def permit(state: StudyState, what: str) -> str | None:
    """Why what an agent asks for, `what` or whatever it is, cannot be answered."""
    if not state.asked:
        return "no agent asks for anything; they do in approve mode, where their policy does not say yes"
    if what and what != state.asked:
        return f"it asks for something else by now: {state.asked}"
    return None


def step(state: StudyState) -> str | None:
    """Why no gate can be passed."""
    if (waiting := state.awaiting) is not None:
        return f"{waiting.number:04d} waits for approval; `labtop approve` lets it train"
    return None
