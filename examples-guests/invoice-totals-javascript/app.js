// Adds up invoices, with the tax of each rate. `invoice-totals-python` does the same, to the byte, and says what.

import { log } from "rowmill:jobs/host@0.1.0";

// QuickJS has none.
globalThis.console = { log: (...words) => log("info", words.join(" ")) };

// With these no sum leaves the numbers that JavaScript counts exactly.
const LINES_MAX = 500;
const QUANTITY_MAX = 10_000;
const PRICE_CENTS_MAX = 10_000_000;

const TAXES = [0, 7, 19];
// Those of the batch that this instance serves.
let taxes = TAXES;

export const lifecycle = {
  init(_app) {},
  close() {},
};

export const batch = {
  begin({ context }) {
    ({ taxes = TAXES } = JSON.parse(context));
    if (!Array.isArray(taxes) || !taxes.every((tax) => isWhole(tax, 0, 100))) {
      throw { tag: "permanent", val: "taxes should be a list of whole percents, 0 to 100" };
    }
  },

  processRow({ line: number, input }) {
    const { invoice, lines: given } = JSON.parse(input);
    const lines = [...given];
    const messages = findProblems(invoice, lines);
    if (messages.length > 0) {
      return { status: "failed", output: "", messages, pieces: [] };
    }
    const totals = addUp(lines);
    console.log(`${invoice}: ${lines.length} lines`);
    const text = [number, invoice, totals.net_cents, totals.tax_cents, totals.gross_cents].join(",");
    const output = JSON.stringify({ invoice, ...totals });
    return { status: "success", output, messages, pieces: [{ file: "totals.csv", text }] };
  },

  markDone({ rows, success, failed }) {
    log("info", `${rows} invoices: ${success} added up, ${failed} failed`);
  },
};

function findProblems(invoice, lines) {
  const message = (id, code, field, ...values) => ({ id, code, field, values: values.map(String) });
  if (typeof invoice !== "string" || !/^[A-Za-z0-9-]+$/.test(invoice)) {
    return [message(1, "invoice-wrong", "invoice")];
  }
  if (lines.length < 1 || lines.length > LINES_MAX) {
    return [message(2, "lines-count", "lines", lines.length)];
  }
  return lines.flatMap(({ quantity, price_cents, tax }, index) => {
    const problems = [];
    if (!isWhole(quantity, 1, QUANTITY_MAX)) problems.push(message(3, "quantity-wrong", "quantity", index + 1));
    if (!isWhole(price_cents, 0, PRICE_CENTS_MAX)) problems.push(message(4, "price-wrong", "price_cents", index + 1));
    if (!taxes.includes(tax)) problems.push(message(5, "tax-unknown", "tax", index + 1));
    return problems;
  });
}

function isWhole(value, least, most) {
  return Number.isInteger(value) && least <= value && value <= most;
}

function addUp(lines) {
  const netByRate = new Map();
  for (const { quantity, price_cents, tax } of lines) {
    netByRate.set(tax, (netByRate.get(tax) ?? 0) + quantity * price_cents);
  }
  const rates = [...netByRate].sort(([one], [other]) => one - other);
  const sums = rates.map(([percent, net_cents]) => ({ percent, net_cents, tax_cents: Math.floor((net_cents * percent + 50) / 100) }));
  const sum = (name) => sums.reduce((total, rate) => total + rate[name], 0);
  const [net_cents, tax_cents] = [sum("net_cents"), sum("tax_cents")];
  return { net_cents, tax_cents, gross_cents: net_cents + tax_cents, taxes: sums };
}
