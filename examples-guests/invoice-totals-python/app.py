"""Adds up invoices, with the tax of each rate. `invoice-totals-javascript` does the same, to the byte.

A row is an object with `invoice` (letters, digits and dashes) and `lines`, each of them an object with `quantity`, `price_cents` and `tax` (percent). The
context may say which `taxes` there are. The answer has the sums in cents; tax is rounded half up, once per rate. A line that cannot be right is told by a message with its number,
and the invoice fails. Good ones are listed in `totals.csv` (`line,invoice,net,tax,gross`).
"""

import json
import re

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import host
from wit_world.imports.host import Level
from wit_world.imports.types import AppInfo, BatchInfo, Failure_Permanent, Message, Outcome, Piece, Row, RowStatus, Summary

# With these no sum leaves the numbers that JavaScript counts exactly.
LINES_MAX = 500
QUANTITY_MAX = 10_000
PRICE_CENTS_MAX = 10_000_000

TAXES = [0, 7, 19]
# Those of the batch that this instance serves.
taxes: list[int] = TAXES


class Lifecycle(exports.Lifecycle):
    def init(self, app: AppInfo) -> None:
        pass

    def close(self) -> None:
        pass


class Batch(exports.Batch):
    def begin(self, batch: BatchInfo) -> None:
        global taxes
        taxes = json.loads(batch.context).get("taxes", TAXES)
        if not isinstance(taxes, list) or not all(is_whole(tax, 0, 100) for tax in taxes):
            raise Err(Failure_Permanent("taxes should be a list of whole percents, 0 to 100"))

    def process_row(self, row: Row) -> Outcome:
        invoice = json.loads(row.input)
        lines = list(invoice["lines"])
        problems = find_problems(invoice.get("invoice"), lines)
        if problems:
            return Outcome(RowStatus.FAILED, "", problems, [])
        answer = {"invoice": invoice["invoice"], **add_up(lines)}
        print(f"{answer['invoice']}: {len(lines)} lines")
        fields = [row.line, answer["invoice"], answer["net_cents"], answer["tax_cents"], answer["gross_cents"]]
        output = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
        return Outcome(RowStatus.SUCCESS, output, [], [Piece("totals.csv", ",".join(map(str, fields)))])

    def mark_done(self, summary: Summary) -> None:
        host.log(Level.INFO, f"{summary.rows} invoices: {summary.success} added up, {summary.failed} failed")


def find_problems(invoice: object, lines: list[dict]) -> list[Message]:
    if not isinstance(invoice, str) or not re.fullmatch("[A-Za-z0-9-]+", invoice):
        return [Message(1, "invoice-wrong", "invoice", [])]
    if not 1 <= len(lines) <= LINES_MAX:
        return [Message(2, "lines-count", "lines", [str(len(lines))])]
    problems = []
    for number, line in enumerate(lines, 1):
        if not is_whole(line.get("quantity"), 1, QUANTITY_MAX):
            problems.append(Message(3, "quantity-wrong", "quantity", [str(number)]))
        if not is_whole(line.get("price_cents"), 0, PRICE_CENTS_MAX):
            problems.append(Message(4, "price-wrong", "price_cents", [str(number)]))
        if not is_whole(line.get("tax"), 0, 100) or line["tax"] not in taxes:
            problems.append(Message(5, "tax-unknown", "tax", [str(number)]))
    return problems


def is_whole(value: object, least: int, most: int) -> bool:
    """Whether it is a whole number, written in whatever way: JSON knows one kind of number, and Python two."""
    return type(value) in (int, float) and least <= value <= most and value == int(value)


def add_up(lines: list[dict]) -> dict:
    net_by_rate: dict[int, int] = {}
    for line in lines:
        rate = int(line["tax"])
        net_by_rate[rate] = net_by_rate.get(rate, 0) + int(line["quantity"]) * int(line["price_cents"])
    rates = [{"percent": rate, "net_cents": net, "tax_cents": (net * rate + 50) // 100} for rate, net in sorted(net_by_rate.items())]
    net = sum(net_by_rate.values())
    tax = sum(rate["tax_cents"] for rate in rates)
    return {"net_cents": net, "tax_cents": tax, "gross_cents": net + tax, "taxes": rates}
