// Makes the mistake that a row names, as authors make them. `make mistakes` shows what a person is told of each.

import { checked } from "./rowmill.js";

const PRICES = { A: 100 };

export const lifecycle = {
  init(_app) {},
  close() {},
};

export const batch = checked({
  begin(_batch) {},

  processRow({ input }) {
    const given = JSON.parse(input);
    return MISTAKES[given.mistake](given);
  },

  markDone(_summary) {},
});

function success(output) {
  return { status: "success", output: JSON.stringify(output), messages: [], pieces: [] };
}

const MISTAKES = {
  index(given) {
    return success({ third: given.list[2].amount });
  },

  missing_field(given) {
    return success({ amount: given.amount.toFixed(2) });
  },

  null_value(given) {
    return success({ name: given.nothing.name });
  },

  no_function(given) {
    return success({ parts: given.text.spilt(",") });
  },

  unknown_name(_given) {
    return success({ total: totl });
  },

  constant(given) {
    const sum = 0;
    sum += given.list.length;
    return success({ sum });
  },

  big_number(given) {
    return success({ sum: 10n + given.zero });
  },

  no_list(given) {
    const [first] = given.zero;
    return success({ first });
  },

  wrong_json(given) {
    return success(JSON.parse(given.text));
  },

  no_json_type(_given) {
    return success({ amount: 5n });
  },

  range(given) {
    return success({ text: "x".repeat(given.zero - 1) });
  },

  exception(_given) {
    throw new Error("there is no such account");
  },

  exception_text(_given) {
    throw "there is no such account";
  },

  exception_object(_given) {
    throw { tag: "permanet", val: "there is no such account" };
  },

  recursion(given) {
    return success({ sum: 1 + MISTAKES.recursion(given) });
  },

  endless(_given) {
    let count = 0;
    while (count >= 0) count += 1;
    return success({ count });
  },

  memory(_given) {
    const kept = [];
    for (;;) kept.push(new Uint8Array(1 << 20));
  },

  returns_nothing(given) {
    PRICES[given.text];
  },

  returns_text(_given) {
    return "done";
  },

  no_field(_given) {
    return { status: "success", output: "{}", messages: [] };
  },

  wrong_status(_given) {
    return { status: "ok", output: "{}", messages: [], pieces: [] };
  },

  wrong_output(_given) {
    return { status: "success", output: { amount: 5 }, messages: [], pieces: [] };
  },

  wrong_messages(_given) {
    return { status: "failed", output: "", messages: { code: "amount-negative" }, pieces: [] };
  },

  not_json(_given) {
    return { status: "success", output: "done", messages: [], pieces: [] };
  },
};
