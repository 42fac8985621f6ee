"""Makes the mistake that a row names, as authors make them. `make mistakes` shows what a person is told of each."""

import json

import rowmill  # noqa: F401 - checks what is returned and raised
from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.types import Message, Outcome, Piece, RowStatus

PRICES = {"A": 100}


class Lifecycle(exports.Lifecycle):
    def init(self, app):
        pass

    def close(self):
        pass


class Batch(exports.Batch):
    def begin(self, batch):
        pass

    def process_row(self, row):
        given = json.loads(row.input)
        mistake = MISTAKES[given["mistake"]]
        made = mistake(given)
        if isinstance(made, dict):
            return Outcome(RowStatus.SUCCESS, json.dumps(made), [], [])
        return made

    def mark_done(self, summary):
        pass


def index(given):
    return {"third": given["list"][2]}


def missing_field(given):
    return {"amount": given["amount"]}


def none(given):
    return {"name": given.get("name").upper()}


def division(given):
    return {"share": 100 // given["zero"]}


def number(given):
    return {"amount": int(given["text"])}


def wrong_type(given):
    return {"sum": given["text"] + 1}


def unknown_name(given):
    return {"total": totl}  # noqa: F821


def unknown_attribute(given):
    return {"parts": given["text"].spilt(",")}


def assertion(given):
    assert given["zero"] > 0, "the amount should be positive"
    return {}


def exception(given):
    raise ValueError("there is no such account")


def error_text(given):
    raise Err("there is no such account")


def recursion(given):
    return {"sum": 1 + len(recursion(given))}


def endless(given):
    count = 0
    while count >= 0:
        count += 1
    return {"count": count}


def memory(given):
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def import_inside(given):
    import csv

    return {"columns": next(csv.reader([given["text"]]))}


def returns_nothing(given):
    PRICES.get(given["text"])


def returns_text(given):
    return "done"


def wrong_status(given):
    return Outcome("success", "{}", [], [])


def wrong_output(given):
    return Outcome(RowStatus.SUCCESS, {"amount": 5}, [], [])


def wrong_message(given):
    return Outcome(RowStatus.FAILED, "", [Message("1", "amount-negative", "amount", [])], [])


def wrong_values(given):
    return Outcome(RowStatus.FAILED, "", [Message(1, "amount-negative", "amount", [given["zero"]])], [])


def wrong_piece(given):
    return Outcome(RowStatus.SUCCESS, "{}", [], [Piece("fees.csv", 25)])


def not_json(given):
    return Outcome(RowStatus.SUCCESS, "done", [], [])


MISTAKES = {
    made.__name__: made
    for made in [
        index,
        missing_field,
        none,
        division,
        number,
        wrong_type,
        unknown_name,
        unknown_attribute,
        assertion,
        exception,
        error_text,
        recursion,
        endless,
        memory,
        import_inside,
        returns_nothing,
        returns_text,
        wrong_status,
        wrong_output,
        wrong_message,
        wrong_values,
        wrong_piece,
        not_json,
    ]
}
