// What the reader has said so far. It stays in this browser; nothing is sent.

const KEY = "gradutils-learning";
const EMPTY = { predictions: {}, answers: {}, showAll: false };

const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

export const read = () => {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    return isTable(kept) ? { ...EMPTY, ...kept } : EMPTY;
  } catch {
    return EMPTY; // the browser keeps nothing, or something else wrote there
  }
};

export const write = (state) => {
  try {
    localStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    // Without storage a page works until it is left.
  }
};

export const clear = () => write(EMPTY);

/** Keep one prediction or answer: `table` is "predictions" or "answers". */
export const keep = (table, name, value) => {
  const state = read();
  write({ ...state, [table]: { ...state[table], [name]: value } });
};

/** Return the state that a saved file holds, or throw an error that says what is wrong with it. */
export const parse = (text) => {
  let state;
  try {
    state = JSON.parse(text);
  } catch {
    throw new Error("This file is not one that this page has saved: it is no JSON.");
  }
  for (const table of ["predictions", "answers"]) {
    if (!isTable(state) || !isTable(state[table])) {
      throw new Error(`This file is not one that this page has saved: it has no table "${table}".`);
    }
  }
  return { predictions: state.predictions, answers: state.answers, showAll: state.showAll === true };
};
