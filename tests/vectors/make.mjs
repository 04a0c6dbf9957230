// Makes the vectors of both sealed formats, one file per outcome, with nothing but Node's standard library:
//
//     node tests/vectors/make.mjs [directory]
//
// Keys and nonces are fixed, so every run makes the same bytes; real nonces are drawn at random for every seal. It
// shares no code with the packages that the vectors test; docs/PROTOCOL.md is all it was written from. sealed_v1.json
// is older, made with Go, and stays as it is.
//
// A file holds: `format`, what the content type of the payload said; `keys`, those of the client, the preferred one
// first; `payload`; `expected`, what it was asked for or told beside it; `require_bound`; and the outcome, either
// `plaintext` (and `binding` in format 2) or `error` with a fragment that its text `says`. Bytes are hex; versions and
// revisions are decimal text, since not every JSON reader keeps 63 bits.
import { createCipheriv, createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const directory = process.argv[2] ?? dirname(fileURLToPath(import.meta.url));
const made = new Set();

const hash = (text) => createHash("sha256").update(text).digest();
const KEY = hash("a key of the vectors");
const NEXT_KEY = hash("the key after a rotation");
const FOREIGN_KEY = hash("a key of another token");
const NONCE = hash("a nonce").subarray(0, 12);
const OTHER_NONCE = hash("another nonce").subarray(0, 12);
const DOCUMENT = Buffer.from('{"host":"db1.example.com","port":5432}');
const EMPTY = Buffer.alloc(0);
const idOf = (key) => createHash("sha256").update(key).digest().subarray(0, 8);

const EPOCH = "0192f3a4b5c6d7e8f9a0b1c2";
const EARLIER_EPOCH = "0192f3a4b5c5d7e8f9a0b1c2";
const LATER_EPOCH = "0192f3a4b5c7000000000000";
const BINDING = { epoch: EPOCH, name: "orders", environment: "production", label: "main", version: 7n, revision: 42n };
const MOST = 2n ** 63n - 1n;
const ODD = 2n ** 53n + 1n;

// --- sealing ---------------------------------------------------------------------------------------------------------

function encrypt(key, nonce, plaintext, additional) {
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  if (additional !== null) cipher.setAAD(additional);
  return Buffer.concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

const seal = (plaintext, key = KEY, nonce = NONCE) => Buffer.concat([nonce, encrypt(key, nonce, plaintext, null)]);

function uint(size, value) {
  const field = Buffer.alloc(8);
  field.writeBigUInt64BE(BigInt(value));
  return field.subarray(8 - size);
}

// The fields of a header in their order, by name. `changed` replaces any of them by other bytes.
function fields(binding, { key = KEY, nonce = NONCE, ...changed } = {}) {
  const parts = { format: Buffer.from([2]), "key id": idOf(key), nonce };
  for (const what of ["epoch", "name", "environment", "label"]) {
    const text = Buffer.from(binding[what]);
    parts[`length of the ${what}`] = uint(2, text.length);
    parts[what] = text;
  }
  parts.version = uint(8, binding.version);
  parts.revision = uint(8, binding.revision);
  return { ...parts, ...changed };
}

const concat = (parts) => Buffer.concat(Object.values(parts));

function sealBound(plaintext, binding = BINDING, { key = KEY, nonce = NONCE, ...changed } = {}) {
  const header = concat(fields(binding, { key, nonce, ...changed }));
  return Buffer.concat([header, encrypt(key, nonce, plaintext, header)]);
}

// Where a field of the header begins and ends.
function place(what, binding = BINDING) {
  let begin = 0;
  for (const [name, field] of Object.entries(fields(binding))) {
    if (name === what) return [begin, begin + field.length];
    begin += field.length;
  }
  throw new Error(`a header has no ${what}`);
}

function flip(payload, position) {
  const changed = Buffer.from(payload);
  changed[position] ^= 1;
  return changed;
}

// --- writing ---------------------------------------------------------------------------------------------------------

const plain = (value) => JSON.parse(JSON.stringify(value, (_, each) => (typeof each === "bigint" ? `${each}` : each)));
const ASKED = { name: "orders", environment: "production", label: "main" };

function write(name, description, format, payload, { keys = [KEY], expected = ASKED, bound = false }, outcome) {
  if (made.has(name)) throw new Error(`two vectors are called ${name}`);
  made.add(name);
  const vector = {
    description,
    format,
    keys: keys.map((key) => key.toString("hex")),
    payload: payload.toString("hex"),
    expected: plain(expected),
    require_bound: bound,
    ...outcome,
  };
  writeFileSync(join(directory, `${name}.json`), `${JSON.stringify(vector, null, 2)}\n`);
}

function opens(name, description, payload, plaintext, given = {}) {
  write(`v1-${name}`, description, 1, payload, given, { plaintext: plaintext.toString("hex") });
}

function opensBound(name, description, payload, plaintext, { binding = BINDING, ...given } = {}) {
  const outcome = { plaintext: plaintext.toString("hex"), binding: plain(binding) };
  write(`v2-${name}`, description, 2, payload, given, outcome);
}

function refused(format, name, description, payload, says, { error = "DecryptionError", ...given } = {}) {
  write(`v${format}-${name}`, description, format, payload, given, { error, says });
}

mkdirSync(directory, { recursive: true });

// --- format 1 --------------------------------------------------------------------------------------------------------

const one = seal(DOCUMENT);
const WRONG = "does not authenticate under this client's keys";

opens("opens", "a document, sealed under the only key", one, DOCUMENT);
opens("opens-empty-document", "no bytes at all, sealed: nonce and tag alone", seal(EMPTY), EMPTY);
const unicode = Buffer.from('{"größe":"👍"}');
opens("opens-unicode", "text beyond ASCII and beyond 16 bits", seal(unicode), unicode);
const bytes = Buffer.from([...Array(256).keys()]);
opens("opens-bytes", "every byte there is; what is sealed need not be text", seal(bytes), bytes);
opens("opens-under-the-older-key", "during a rotation: sealed under the second key of the ring", one, DOCUMENT,
  { keys: [NEXT_KEY, KEY] });
const two = Buffer.concat([Buffer.from([2]), NONCE.subarray(1)]);
opens("opens-with-a-nonce-like-format-2", "the nonce happens to begin with 0x02: the content type tells the format",
  seal(DOCUMENT, KEY, two), DOCUMENT);
refused(1, "empty", "no bytes at all", EMPTY, "0 bytes is too short");
refused(1, "ends-inside-nonce", "11 bytes", one.subarray(0, 11), "11 bytes is too short");
refused(1, "ends-before-tag", "a nonce and nothing else", one.subarray(0, 12), "12 bytes is too short");
refused(1, "ends-inside-tag", "27 bytes: an empty document, its last byte cut off", seal(EMPTY).subarray(0, 27),
  "27 bytes is too short");
refused(1, "cut-short", "the last byte cut off: the tag is taken from one byte too early", one.subarray(0, -1), WRONG);
refused(1, "trailing-byte", "a byte too many", Buffer.concat([one, Buffer.from([0])]), WRONG);
refused(1, "wrong-key", "sealed under the key of another token", seal(DOCUMENT, FOREIGN_KEY), WRONG);
refused(1, "wrong-keys", "sealed under neither of two keys", seal(DOCUMENT, FOREIGN_KEY), WRONG,
  { keys: [NEXT_KEY, KEY] });
refused(1, "swapped-nonce", "the nonce of another payload", Buffer.concat([OTHER_NONCE, one.subarray(12)]), WRONG);
refused(1, "flipped-nonce", "one bit of the nonce is flipped", flip(one, 0), WRONG);
refused(1, "flipped-ciphertext", "one bit of the ciphertext is flipped", flip(one, 12), WRONG);
refused(1, "flipped-tag", "one bit of the tag is flipped", flip(one, one.length - 1), WRONG);
refused(1, "with-additional-data", "sealed with additional data, which format 1 has not",
  Buffer.concat([NONCE, encrypt(KEY, NONCE, DOCUMENT, Buffer.from("orders"))]), WRONG);
refused(1, "is-format-2", "a bound payload whose content type was lost", sealBound(DOCUMENT), WRONG);
refused(1, "require-bound", "it would open, but only bound payloads are accepted", one, "require_bound is on",
  { bound: true });

// --- format 2: what opens --------------------------------------------------------------------------------------------

const bound = sealBound(DOCUMENT);
const told = { ...ASKED, version: 7n, epoch: EPOCH, revision: 42n };

opensBound("opens", "asked for and told exactly what it is bound to", bound, DOCUMENT, { expected: told, bound: true });
opensBound("opens-for-its-name", "only the name was asked for: the rest is the service's to choose", bound, DOCUMENT,
  { expected: { name: "orders" } });
opensBound("opens-empty-document", "no bytes at all, sealed: header and tag alone", sealBound(EMPTY), EMPTY);
opensBound("opens-long-document", "5,000 bytes", sealBound(Buffer.alloc(5000, "[{}],")), Buffer.alloc(5000, "[{}],"));
opensBound("opens-under-the-older-key", "during a rotation: the header picks the second key of the ring",
  bound, DOCUMENT, { keys: [NEXT_KEY, KEY] });
opensBound("opens-under-the-newer-key", "during a rotation: the header picks the first key of the ring",
  sealBound(DOCUMENT, BINDING, { key: NEXT_KEY }), DOCUMENT, { keys: [NEXT_KEY, KEY] });

function opensAs(name, description, changes, expected = {}) {
  const binding = { ...BINDING, ...changes };
  const asked = { name: binding.name, environment: binding.environment, label: binding.label, ...expected };
  opensBound(name, description, sealBound(DOCUMENT, binding), DOCUMENT, { binding, expected: asked });
}

opensAs("opens-unicode-names", "texts are UTF-8, and their lengths count bytes",
  { name: "größe", environment: "тест", label: "機能/👍" });
opensAs("opens-slash-in-label", "a label may hold slashes", { label: "feature/new-prices" });
opensAs("opens-empty-texts", "empty texts and zeros: how a cache writes what a foreign service does not tell",
  { epoch: "", environment: "", label: "", version: 0n, revision: 0n });
opensAs("opens-longest-texts", "texts of 1024 bytes each", {
  epoch: "e".repeat(1024), name: "n".repeat(1024), environment: "ü".repeat(512), label: "👍".repeat(256),
});
opensAs("opens-largest-revision", "revision 2^63-1", { revision: MOST }, { epoch: EPOCH, revision: MOST });
opensAs("opens-largest-version", "version 2^63-1", { version: MOST }, { version: MOST });
opensAs("opens-beyond-doubles", "a version and a revision over 2^53, which a double cannot hold",
  { version: ODD, revision: ODD + 2n }, { version: ODD, epoch: EPOCH, revision: ODD + 2n });
opensBound("opens-same-revision-again", "the very revision that the client has seen is no replay", bound, DOCUMENT,
  { expected: { ...ASKED, at_least: { epoch: EPOCH, revision: 42n } } });
opensBound("opens-newer-revision", "newer than what the client has seen", bound, DOCUMENT,
  { expected: { ...ASKED, at_least: { epoch: EPOCH, revision: 41n } } });
opensBound("opens-later-epoch", "a later epoch counts as newer, whatever its revision", bound, DOCUMENT,
  { expected: { ...ASKED, at_least: { epoch: EARLIER_EPOCH, revision: 1000n } } });

// --- format 2: cut short ---------------------------------------------------------------------------------------------

refused(2, "empty", "no bytes at all", EMPTY, "is empty");
refused(2, "format-byte-alone", "one byte", bound.subarray(0, 1), "ends inside its key id,");
for (const what of Object.keys(fields(BINDING)).slice(1)) {
  const name = `ends-inside-${what.replace("length of the", "length-of").replace(" ", "-")}`;
  const short = bound.subarray(0, place(what)[1] - 1);
  refused(2, name, `cut one byte before the end of the ${what}`, short, `ends inside its ${what},`);
}
const size = concat(fields(BINDING)).length;
refused(2, "header-alone", "a whole header and nothing behind it", bound.subarray(0, size), "ends inside its tag,");
refused(2, "ends-inside-tag", "a header and 15 bytes", bound.subarray(0, size + 15), "ends inside its tag,");
const FALSE = "does not authenticate under key";
refused(2, "cut-short", "the last byte cut off: the tag is taken from one byte too early", bound.subarray(0, -1),
  FALSE);
refused(2, "trailing-byte", "a byte too many", Buffer.concat([bound, Buffer.from([0])]), FALSE);

// --- format 2: not what it says --------------------------------------------------------------------------------------

for (const byte of [0, 1, 3, 255]) {
  const hex = byte.toString(16).padStart(2, "0");
  refused(2, `format-byte-${hex}`, `the first byte is 0x${hex}, and the rest authenticates`,
    sealBound(DOCUMENT, BINDING, { format: Buffer.from([byte]) }), `begins with 0x${hex}`);
}
refused(2, "is-format-1", "an unbound payload that is called format 2", one, "is not of sealed format 2");
for (const what of ["nonce", "epoch", "name", "environment", "label", "version", "revision"]) {
  refused(2, `flipped-${what}`, `one bit of the ${what} is flipped`, flip(bound, place(what)[1] - 1), FALSE);
}
refused(2, "flipped-key-id", "one bit of the key id is flipped: nobody holds that key", flip(bound, 1),
  "this client holds");
refused(2, "flipped-ciphertext", "one bit of the ciphertext is flipped", flip(bound, size), FALSE);
refused(2, "flipped-tag", "one bit of the tag is flipped", flip(bound, bound.length - 1), FALSE);

const other = { ...BINDING, name: "prices", version: 3n, revision: 40n };
const otherBound = sealBound(DOCUMENT, other, { nonce: OTHER_NONCE });
refused(2, "swapped-nonce", "the nonce of another payload",
  Buffer.concat([concat(fields(BINDING, { nonce: OTHER_NONCE })), bound.subarray(size)]), FALSE);
refused(2, "swapped-header", "the header of another config in front of this one's ciphertext",
  Buffer.concat([concat(fields(other)), bound.subarray(size)]), FALSE, { expected: { name: "prices" } });
refused(2, "swapped-ciphertext", "the ciphertext and tag of another config behind this one's header",
  Buffer.concat([bound.subarray(0, size), otherBound.subarray(size)]), FALSE);
refused(2, "moved-boundary", "a letter moved from the name to the environment: same letters, other lengths",
  Buffer.concat([concat(fields({ ...BINDING, name: "order", environment: "sproduction" })), bound.subarray(size)]),
  FALSE, { expected: { name: "order" } });
refused(2, "unbound-header", "sealed without additional data",
  Buffer.concat([bound.subarray(0, size), encrypt(KEY, NONCE, DOCUMENT, null)]), FALSE);
refused(2, "half-bound-header", "sealed with only the names as additional data",
  Buffer.concat([bound.subarray(0, size), encrypt(KEY, NONCE, DOCUMENT, bound.subarray(21, size))]), FALSE);
refused(2, "wrong-key-under-its-id", "sealed under another key than the one that the header names",
  Buffer.concat([bound.subarray(0, size), encrypt(FOREIGN_KEY, NONCE, DOCUMENT, bound.subarray(0, size))]), FALSE);
const [heldId, foreignId] = [KEY, FOREIGN_KEY].map((key) => idOf(key).toString("hex"));
refused(2, "unknown-key", "sealed under the key of another token, and it says so",
  sealBound(DOCUMENT, BINDING, { key: FOREIGN_KEY }), `sealed with key ${foreignId}; this client holds ['${heldId}']`);
refused(2, "unknown-key-of-two", "the key after a rotation is not yet held; the text lists those that are",
  sealBound(DOCUMENT, BINDING, { key: NEXT_KEY }), "set CONFIG_SERVICE_KEY to the token's current key",
  { keys: [KEY, FOREIGN_KEY] });

// --- format 2: authentic, and malformed all the same -----------------------------------------------------------------

const broken = (changed, binding = BINDING) => sealBound(DOCUMENT, binding, changed);
refused(2, "length-one-too-many", "the epoch takes a byte of what follows; the rest makes no header",
  broken({ "length of the epoch": uint(2, 25) }), "over 1024");
refused(2, "length-one-too-few", "the epoch leaves its last byte to what follows",
  broken({ "length of the epoch": uint(2, 23) }), "over 1024");
refused(2, "length-little-endian", "a length written the other way around",
  broken({ "length of the name": Buffer.from([6, 0]) }), "its name of 1536 bytes is over 1024");
refused(2, "length-beyond-the-payload", "a label of 1000 bytes in a payload of 125",
  broken({ "length of the label": uint(2, 1000) }), "ends inside its label,");
for (const what of ["epoch", "name", "environment", "label"]) {
  refused(2, `oversized-${what}`, `the ${what} has 1025 bytes, and all of them came`,
    sealBound(DOCUMENT, { ...BINDING, [what]: "x".repeat(1025) }), `its ${what} of 1025 bytes is over 1024`);
  refused(2, `largest-length-of-${what}`, `the ${what} claims 65535 bytes`,
    broken({ [`length of the ${what}`]: uint(2, 65535) }), `its ${what} of 65535 bytes is over 1024`);
}
for (const [name, description, hex] of [
  ["not-utf8", "a byte that UTF-8 never has", "6f72ff65"],
  ["not-utf8-cut", "a character of two bytes, of which one came", "6f72c3"],
  ["not-utf8-overlong", "a NUL in two bytes, which UTF-8 forbids", "6fc080"],
  ["not-utf8-surrogate", "half of a surrogate pair, which UTF-8 forbids", "6feda080"],
]) {
  const field = Buffer.from(hex, "hex");
  const payload = broken({ "length of the name": uint(2, field.length), name: field });
  refused(2, name, description, payload, "its name is not UTF-8");
}
refused(2, "version-too-large", "version 2^63", sealBound(DOCUMENT, { ...BINDING, version: MOST + 1n }),
  `its version is over ${MOST}`);
refused(2, "revision-too-large", "revision 2^64-1", sealBound(DOCUMENT, { ...BINDING, revision: 2n ** 64n - 1n }),
  `its revision is over ${MOST}`);

// --- format 2: authentic, and another one than was asked for ---------------------------------------------------------

function misfit(name, description, expected, says) {
  refused(2, name, description, bound, says, { expected: { ...told, ...expected } });
}

misfit("another-name", "another config under the same key", { name: "prices" }, "bound to name 'orders', not 'prices'");
misfit("another-environment", "the same config of another environment", { environment: "staging" },
  "bound to environment 'production', not 'staging'");
misfit("another-label", "the same config under another label", { label: "next" }, "bound to label 'main', not 'next'");
misfit("another-version", "another version than was asked for", { version: 6n }, "bound to version 7, not 6");
misfit("another-epoch", "the headers beside it tell another epoch", { epoch: LATER_EPOCH },
  `bound to epoch '${EPOCH}', not '${LATER_EPOCH}'`);
misfit("another-revision", "the headers beside it tell another revision", { revision: 43n },
  "bound to revision 42, not 43");
misfit("another-case", "names are compared to the letter", { name: "Orders" }, "bound to name 'orders', not 'Orders'");
misfit("several-differences", "every part that differs is told", { name: "prices", label: "next", version: 1n },
  "bound to name 'orders', not 'prices', label 'main', not 'next', version 7, not 1");
refused(2, "another-normalization", "one letter as two code points is another name",
  sealBound(DOCUMENT, { ...BINDING, name: "gro\u0308ße" }), "bound to name", { expected: { name: "größe" } });
misfit("older-revision", "a replay: the client has seen a newer revision",
  { at_least: { epoch: EPOCH, revision: 43n } }, `an older revision than ${EPOCH}-43`);
misfit("older-epoch", "a replay from before a restore: the client has seen a later epoch",
  { at_least: { epoch: LATER_EPOCH, revision: 1n } }, `an older epoch than ${LATER_EPOCH}-1`);

// --- other formats ---------------------------------------------------------------------------------------------------

for (const [format, word] of [[0, "none"], [3, "a later one"]]) {
  refused(format, "unknown-format", `the content type names a format that is not known: ${word}`, bound,
    `sealed format ${format}, and this client knows 1 and 2`, { error: "InvalidResponseError" });
}
