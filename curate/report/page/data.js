// The run's data: each script delivers one piece, because a page opened from a disk may load only scripts and pictures.
// `facts` comes from curate/report/facts.py, `columns` from curate/report/columns.py; a column is loaded when it is first needed.
"use strict";

const folder = document.documentElement.dataset.folder;
const arriving = new Map();
const loaded = new Map();
let facts = null;
let rows = 0;
const columns = new Map();

/** Called by every piece: its name, and its bytes deflated and in base64. */
function deliver(name, text) {
  arriving.get(name)(text);
  arriving.delete(name);
}

/** The bytes of a piece. Rejects with one sentence when its file is missing. */
function load(name) {
  if (!loaded.has(name)) loaded.set(name, fetched(name).then(inflated));
  return loaded.get(name);
}

function fetched(name) {
  return new Promise((resolve, reject) => {
    arriving.set(name, resolve);
    const script = make("script", { src: `${folder}/${name}.js` });
    script.addEventListener("load", () => script.remove());
    script.addEventListener("error", () => reject(new Error(`${folder}/${name}.js is missing; write the report again: rushes report ${facts?.run ?? "RUN"}`)));
    document.head.append(script);
  });
}

async function inflated(text) {
  const bytes = Uint8Array.fromBase64 ? Uint8Array.fromBase64(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const parsed = (bytes) => JSON.parse(new TextDecoder().decode(bytes));

/** Loads `facts` and the list of columns. */
async function open_run() {
  facts = parsed(await load("run"));
  rows = facts.rows;
  for (const column of facts.columns) columns.set(column.name, column);
}

/** Loads the values of a column that has them as bytes, and returns it: `values` is a typed array with one entry per row. */
async function column(name) {
  const found = columns.get(name);
  if (found.values) return found;
  const { buffer } = await load(found.piece);
  if (found.kind === "number") found.values = found.type === "f32" ? new Float32Array(buffer) : new Float64Array(buffer);
  else found.values = found.kind === "word" ? new Uint16Array(buffer) : found.kind === "clip" ? new Int32Array(buffer) : new Uint8Array(buffer);
  loaded.delete(found.piece);
  return found;
}

/** The value of a loaded column in a row: a number, true or false, a word, the number of another row, or null. */
function value_of(found, row) {
  const value = found.values[row];
  if (found.kind === "number") return Number.isNaN(value) ? null : value;
  if (found.kind === "flag") return value === 255 ? null : value === 1;
  if (found.kind === "word") return value === 65535 ? null : found.words[value];
  return value === -1 ? null : value;
}

/** All text of a row: an object from column to value; a column that is null there is left out. */
async function texts(row) {
  const chunk = await text_chunk(Math.floor(row / facts.text_rows));
  return chunk[row % facts.text_rows];
}

const chunks = new Map();
function text_chunk(n) {
  if (!chunks.has(n)) chunks.set(n, load(`text-${String(n).padStart(5, "0")}`).then(parsed));
  return chunks.get(n);
}

/** The value of any column in a row. Loads the column or the chunk of text. */
async function shown_value(name, row) {
  if (columns.get(name).kind === "text") return (await texts(row))[name] ?? null;
  return value_of(await column(name), row);
}

/** All values of a text column, or null. Loads every chunk, which takes some seconds for many clips. */
async function all_texts(name) {
  const found = [];
  for (let n = 0; n * facts.text_rows < rows; n += 1) for (const row of await text_chunk(n)) found.push(row[name] ?? null);
  return found;
}

/** A value as text; lists and structs as JSON. */
const as_text = (value) => (typeof value === "object" && value !== null ? JSON.stringify(value) : typeof value === "string" ? value : shown(value));
