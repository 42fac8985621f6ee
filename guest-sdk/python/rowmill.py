"""Checks what a processor returns and raises, so that a mistake names its field and its line.

`import rowmill` in a processor is all that it takes:

- A value of a wrong type in an `Outcome`, a `Message`, a `Piece` or a `Failure_…` is a `TypeError` in the line
  that makes the value. Without the check the conversion to WIT fails after the function has returned.
- `raise Err("text")` in `begin`, `process_row`, `run` and `mark_done` is a permanent failure with this text.
- A function that returns something else than its contract says is a `TypeError` that names the function and its line.

It is plain Python and works in unit tests, too.
"""

import functools

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import types

_U32_MAX = 2**32 - 1
_CASES = (types.Failure_Permanent, types.Failure_Retry, types.Failure_AbortBatch)


def _is_u32(value):
    return type(value) is int and 0 <= value <= _U32_MAX


def _is_list_of(kind):
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is(kind):
    return lambda value: isinstance(value, kind)


def _may_be_json(value):
    """Whether a text begins like JSON, or is empty. The runtime reads all of it."""
    return isinstance(value, str) and (not value or value.lstrip()[:1] in set('{["-0123456789tfn'))


def _is_text_or_none(value):
    return value is None or isinstance(value, str)


def _is_number_or_none(value):
    return value is None or (type(value) is int and value >= 0)


# Of each class its fields, with what they should be.
_FIELDS = {
    types.Outcome: {
        "status": ("a RowStatus", _is(types.RowStatus)),
        "output": ("a str of JSON, as json.dumps makes it", _may_be_json),
        "messages": ("a list of Message", _is_list_of(types.Message)),
        "pieces": ("a list of Piece", _is_list_of(types.Piece)),
    },
    types.Message: {
        "id": ("an int, 0 or more", _is_u32),
        "code": ("a str", _is(str)),
        "field": ("a str or None", _is_text_or_none),
        "values": ("a list of str", _is_list_of(str)),
    },
    types.Piece: {"file": ("a str", _is(str)), "text": ("a str", _is(str))},
    types.RetryHint: {"reason": ("a str", _is(str)), "after_ms": ("an int or None", _is_number_or_none)},
    types.Failure_Permanent: {"value": ("a str", _is(str))},
    types.Failure_Retry: {"value": ("a RetryHint", _is(types.RetryHint))},
    types.Failure_AbortBatch: {"value": ("a str", _is(str))},
}


def _shown(value):
    kind = type(value).__name__
    if isinstance(value, list):
        kinds = sorted({type(item).__name__ for item in value})
        return "a list of " + ", ".join(kinds) if kinds else "an empty list"
    return "None" if value is None else f"{kind} {str(value)[:60]!r}"


def _check_fields(kind, fields):
    make = kind.__init__

    @functools.wraps(make)
    def checked(self, *arguments, **named):
        make(self, *arguments, **named)
        for field, (wanted, is_right) in fields.items():
            value = getattr(self, field)
            if not is_right(value):
                raise TypeError(f"{kind.__name__}.{field} should be {wanted}, and is {_shown(value)}")

    kind.__init__ = checked


def _check_calls(interface, functions):
    """Has the functions of each class that implements an interface checked."""

    def checked(function, returns):
        @functools.wraps(function)
        def call(*arguments):
            try:
                returned = function(*arguments)
            except Err as error:
                if isinstance(error.value, _CASES):
                    raise
                raise Err(types.Failure_Permanent(str(error.value))) from None
            if returns is not None and not isinstance(returned, returns):
                code = function.__code__
                file = code.co_filename.rsplit("/", 1)[-1]
                place = f"{code.co_name} ({file}:{code.co_firstlineno})"
                raise TypeError(f"{place} should return an {returns.__name__}, and returned {_shown(returned)}")
            return returned

        return call

    def __init_subclass__(cls, **named):
        super(interface, cls).__init_subclass__(**named)
        for name, returns in functions.items():
            if name in cls.__dict__:
                setattr(cls, name, checked(cls.__dict__[name], returns))

    interface.__init_subclass__ = classmethod(__init_subclass__)


for _kind, _fields in _FIELDS.items():
    _check_fields(_kind, _fields)
for _interface, _functions in {
    "Batch": {"begin": None, "process_row": types.Outcome, "mark_done": None},
    "SlowQuery": {"run": types.Outcome, "mark_done": None},
}.items():
    if hasattr(exports, _interface):
        _check_calls(getattr(exports, _interface), _functions)
