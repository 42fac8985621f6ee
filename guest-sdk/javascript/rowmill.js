// Checks what a processor returns and throws, so that a mistake names its field and its function:
//
//   import { checked } from "./rowmill.js";
//   export const batch = checked({ begin(batch) {}, processRow(row) { … }, markDone(summary) {} });
//
// - `throw "text"` is a permanent failure with this text, `throw { tag, val }` the failure that it names.
// - A value of another shape than wit/jobs.wit says is a TypeError that names the field and the function that returned it.
//
// It is plain JavaScript and works in unit tests, too.

const isText = (value) => typeof value === "string";
const isId = (value) => Number.isInteger(value) && value >= 0 && value <= 2147483647;
const TEXT = ["a text", isText];
const TEXT_OR_NOTHING = ["a text or null", (value) => value === null || value === undefined || isText(value)];

const MESSAGE = { id: ["a whole number, 0 to 2147483647", isId], code: TEXT, field: TEXT_OR_NOTHING, values: [TEXT] };
const PIECE = { file: TEXT, text: TEXT };
const OUTCOME = {
  status: ['"success" or "failed"', (value) => value === "success" || value === "failed"],
  // The runtime reads all of it.
  output: ["a text of JSON, as JSON.stringify makes it", (value) => isText(value) && /^$|^\s*[{["\-0-9tfn]/.test(value)],
  messages: [MESSAGE],
  pieces: [PIECE],
};

function shown(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "a list";
  return isText(value) ? `the text ${JSON.stringify(value.slice(0, 60))}` : `of type ${typeof value}`;
}

// A shape is a record of shapes, a list of one shape, or what a value should be with how to know it.
function check(path, value, shape) {
  if (Array.isArray(shape) && typeof shape[1] === "function") {
    if (!shape[1](value)) throw new TypeError(`${path} should be ${shape[0]}, and is ${shown(value)}`);
  } else if (Array.isArray(shape)) {
    if (!Array.isArray(value)) throw new TypeError(`${path} should be a list, and is ${shown(value)}`);
    value.forEach((item, at) => check(`${path}[${at}]`, item, shape[0]));
  } else {
    if (value === null || typeof value !== "object") throw new TypeError(`${path} should be an object, and is ${shown(value)}`);
    for (const field of Object.keys(shape)) check(`${path}.${field}`, value[field], shape[field]);
  }
}

const FAILURES = {
  permanent: TEXT,
  retry: { reason: TEXT, afterMs: ["a number or null", (value) => value === null || value === undefined || Number(value) >= 0] },
  "abort-batch": TEXT,
};

// Makes of a thrown value a failure of the contract, or an error that ends the instance.
function thrown(name, error) {
  if (isText(error)) return { tag: "permanent", val: error };
  if (error instanceof Error) return error;
  if (error === null || typeof error !== "object" || !Object.hasOwn(FAILURES, error.tag)) {
    const tag = error !== null && typeof error === "object" && "tag" in error ? `the tag ${JSON.stringify(error.tag)}` : shown(error);
    return new TypeError(`${name} threw ${tag}; a failure is { tag: "permanent" | "retry" | "abort-batch", val }`);
  }
  try {
    check(`what ${name} threw: val`, error.val, FAILURES[error.tag]);
  } catch (wrong) {
    return wrong;
  }
  return error;
}

// The place of a function, as far as the engine knows it.
function placed(error, name, call) {
  const file = call.fileName ?? "app.js";
  const line = call.lineNumber;
  if (line !== undefined) error.stack = `    at ${name} (${file}:${line}:1)\n${error.stack ?? ""}`;
  return error;
}

export function checked(functions) {
  const wrapped = {};
  for (const [name, call] of Object.entries(functions)) {
    wrapped[name] = (...given) => {
      let returned;
      try {
        returned = call.apply(functions, given);
      } catch (error) {
        const end = thrown(name, error);
        throw end instanceof Error && end !== error ? placed(end, name, call) : end;
      }
      if (name === "processRow" || name === "run") {
        try {
          check(`what ${name} returned`, returned, OUTCOME);
        } catch (wrong) {
          throw placed(wrong, name, call);
        }
      }
      return returned;
    };
  }
  return wrapped;
}
